"""The picture of what accounts use under a limit: above, how often how much; below, whom a quota would have refused.

Both have the same axis, and the line of the configured quota goes through both, but not through the words between.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence

from ratelimitd.ctl.answers import LimitUse
from ratelimitd.ctl.page import drawing
from ratelimitd.ctl.page.axis import Axis
from ratelimitd.ctl.page.drawing import Drawing, Label, Shape

_LEFT, _RIGHT = 46, 18
_BARS_PX, _CURVE_PX = 110, 140
_CAPTION_PX, _GAP_PX, _TICKS_PX = 24, 30, 42
_SPARE_DECADES = 0.5
"""Between the share of one account and none."""
_FAR = 30
"""A quota that is so many times what anybody uses stands at the edge, lest the uses become too narrow to be seen."""
_MOST_DECADES = 5.0
QUANTILES = {"50": "half", "90": "90 %", "99": "99 %", "100": "all"}
ADVICE = {"1%": "1 %", "0.1%": "0.1 %", "0": "none"}

_Points = Sequence[tuple[float, float]]


def distribution(limit: LimitUse, width: int) -> Drawing:
    """The picture of a limit that somebody has used, so many pixels wide."""
    axis = _axis(limit, width)
    marks = drawing.labels(_marks(limit, axis), _LEFT)
    advice = drawing.labels(_advice(limit, axis), _LEFT)
    bars_top = _CAPTION_PX + drawing.rows_px(marks) + 4
    bars_base = bars_top + _BARS_PX
    curve_caption = bars_base + _GAP_PX
    curve_top = curve_caption + _CAPTION_PX + drawing.rows_px(advice) + 4
    curve_base = curve_top + _CURVE_PX
    points = _refusing(limit, axis, curve_top)
    shapes = [
        *_bars(limit, axis, bars_top),
        *_lines(marks, bars_top, bars_base),
        *_shares(limit, axis, curve_top),
        drawing.curve("area", [*points, (points[-1][0], curve_base), (points[0][0], curve_base)]),
        drawing.curve("curve", points),
        *[drawing.line("mark advice", each.x, _lead(each, curve_top), each.x, curve_base) for each in advice],
        *_quota(marks, (bars_top, bars_base), (curve_top, curve_base)),
        *[drawing.dot("advice", each.x, _height(points, each.x), each.text) for each in advice],
        drawing.text("caption", 0, 14, f"How often so much was used in a {window_of(limit)}"),
        drawing.text("caption", 0, curve_caption + 14, "Share of accounts that a quota would refuse"),
        *drawing.heads(marks, bars_top - 6),
        *drawing.heads(advice, curve_top - 6),
        *_ticks(limit, axis, curve_base),
    ]
    return Drawing("distribution", width, int(curve_base + _TICKS_PX), shapes)


def _axis(limit: LimitUse, width: int) -> Axis:
    most = limit.quantiles["100"]
    least = limit.histogram[0].from_ if limit.histogram else limit.quantiles["50"]
    quota = min(limit.quota or most, _FAR * most)
    return Axis(min(least, quota), max(most, quota), _LEFT, width - _RIGHT)


def _marks(limit: LimitUse, axis: Axis) -> list[tuple[float, str, str]]:
    """What stands above the bars: each quantile and the quota."""
    found = [(axis.at(used), text, "use") for used, text in together(limit.quantiles, QUANTILES, "≤").items()]
    if limit.quota:
        arrow = " →" if limit.quota > axis.ends[-1] else ""
        found.append((axis.at(limit.quota), f"quota {limit.quota:,}{arrow}", "quota"))
    return found


def _advice(limit: LimitUse, axis: Axis) -> list[tuple[float, str, str]]:
    """What stands above the curve: the quotas that would have refused so many."""
    return [(axis.at(quota), text, "advice") for quota, text in together(limit.quota_for, ADVICE, "at").items()]


def together(numbers: dict[str, int], names: dict[str, str], word: str) -> dict[int, str]:
    """A text for each number; of equal ones that of the last, which says most."""
    return {value: f"{names[name]} {word} {value:,}" for name, value in numbers.items()}


def _bars(limit: LimitUse, axis: Axis, top: float) -> list[Shape]:
    """How many windows there are of each bucket, with lines to read that by."""
    base = top + _BARS_PX
    most = max((bucket.windows for bucket in limit.histogram), default=0)
    shapes = []
    for count in sorted({drawing.round_number(most / part) for part in (1, 4, 30)} | {0}):
        y = base - _high(count, most)
        shapes += [drawing.line("grid", axis.left, y, axis.right, y)]
        shapes += [drawing.text("tick", axis.left - 6, y + 4, drawing.short(count), "end")]
    for bucket in limit.histogram:
        left, right = axis.at(bucket.from_ - 1), axis.at(bucket.to)
        height = max(1.5, _high(bucket.windows, most))
        title = f"{between(bucket.from_, bucket.to)} {limit.counts}: {bucket.windows:,} {window_of(limit)}s"
        shapes += (
            [drawing.bar("bar", left + 0.5, base - height, right - left - 1, height, title)] if bucket.windows else []
        )
    return shapes


def _high(count: int, most: int) -> float:
    """How high a bar is: by the square root, or nobody would see the few windows that a quota is about."""
    return _BARS_PX * math.sqrt(count / max(1, most))


def _lines(marks: Sequence[Label], top: float, base: float) -> list[Shape]:
    return [drawing.line("mark use", each.x, _lead(each, top), each.x, base) for each in marks if each.kind == "use"]


def _quota(marks: Sequence[Label], bars: tuple[float, float], curve: tuple[float, float]) -> list[Shape]:
    """The line of the configured quota, through the bars and through the curve, but not through what stands between."""
    shapes = []
    for each in marks:
        if each.kind == "quota":
            shapes += [drawing.line("mark quota", each.x, _lead(each, bars[0]), each.x, bars[1])]
            shapes += [drawing.line("mark quota", each.x, curve[0], each.x, curve[1])]
    return shapes


def _lead(label: Label, top: float) -> float:
    """Where the line of a label begins: beside its text."""
    return top - 16 - label.row * drawing.ROW_PX


def _refusing(limit: LimitUse, axis: Axis, top: float) -> _Points:
    """The curve: at each use the share of accounts that have used more."""
    above = limit.accounts
    points = [(axis.left, top)]
    for bucket in limit.histogram:
        points.append((axis.at(bucket.from_ - 1), _y(above, limit, top)))
        above -= bucket.accounts
        points.append((axis.at(min(bucket.to, limit.quantiles["100"])), _y(above, limit, top)))
    return [*points, (axis.right, _y(above, limit, top))]


def _y(accounts: int, limit: LimitUse, top: float) -> float:
    """The height of so many accounts among all: a tenth of them is one step lower, none are at the bottom."""
    if not accounts:
        return top + _CURVE_PX
    return top + min(_CURVE_PX - 3, -math.log10(accounts / limit.accounts) * _step_px(limit))


def _step_px(limit: LimitUse) -> float:
    """How far a tenth of the accounts is below all of them."""
    return _CURVE_PX / (_SPARE_DECADES + min(_MOST_DECADES, max(1.0, math.log10(limit.accounts))))


def _shares(limit: LimitUse, axis: Axis, top: float) -> list[Shape]:
    shapes = []
    for decade in range(int((_CURVE_PX - drawing.TEXT_PX) / _step_px(limit)) + 1):
        y = top + decade * _step_px(limit)
        shapes += [drawing.line("grid", axis.left, y, axis.right, y)]
        shapes += [drawing.text("tick", axis.left - 6, y + 4, f"{100 / 10**decade:g} %", "end")]
    y = top + _CURVE_PX
    return [
        *shapes,
        drawing.line("base", axis.left, y, axis.right, y),
        drawing.text("tick", axis.left - 6, y + 4, "none", "end"),
    ]


def _height(points: _Points, x: float) -> float:
    """Where the curve is at `x`."""
    i = min(max(1, bisect_left([place for place, _ in points], x)), len(points) - 1)
    (x0, y0), (x1, y1) = points[i - 1], points[i]
    return y1 if x1 <= x0 else y0 + (y1 - y0) * min(1.0, (x - x0) / (x1 - x0))


def _ticks(limit: LimitUse, axis: Axis, base: float) -> list[Shape]:
    shapes = []
    for tick in axis.ticks():
        shapes += [drawing.line("base", axis.at(tick), base, axis.at(tick), base + 5)]
        shapes += [drawing.text("tick", axis.at(tick), base + 18, drawing.short(tick), "middle")]
    words = f"{limit.counts} of an account in a {window_of(limit)}"
    return [*shapes, drawing.text("tick", axis.right, base + 36, words, "end")]


def window_of(limit: LimitUse) -> str:
    """What a limit counts in."""
    return "message" if limit.period == "message" else "window"


def between(low: int, high: int) -> str:
    """`7` or `7–8`."""
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"
