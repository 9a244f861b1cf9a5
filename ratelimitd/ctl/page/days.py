"""The picture of the days: what was sent on each, and how much of it was refused. Many days are put together."""

from collections.abc import Callable, Sequence
from datetime import date, timedelta

from msgspec import Struct

from ratelimitd.ctl.answers import Day, ReportedDay
from ratelimitd.ctl.page import drawing
from ratelimitd.ctl.page.content import WIDTHS, Cell, Column, Figure, Table, number
from ratelimitd.ctl.page.drawing import Drawing, Shape
from ratelimitd.text import counted

MOST_BARS = 100
_LEFT, _RIGHT, _BASE, _BARS_PX, _TICKS_PX = 46, 12, 190, 150, 26


class _Unit(Struct, frozen=True):
    """What has one bar: where that of a day begins, how many days are in it at most, how its name is written."""

    name: str
    begin: Callable[[date], date]
    days: int
    form: str


_UNITS = (
    _Unit("day", lambda day: day, 1, "%d %b"),
    _Unit("week", lambda day: day - timedelta(day.weekday()), 7, "%d %b"),
    _Unit("month", lambda day: day.replace(day=1), 31, "%b %Y"),
    _Unit("year", lambda day: day.replace(month=1, day=1), 366, "%Y"),
    _Unit("decade", lambda day: date(max(1, day.year // 10 * 10), 1, 1), 3660, "%Y"),
    _Unit("century", lambda day: date(max(1, day.year // 100 * 100), 1, 1), 36_600, "%Y"),
)


class Span(Struct):
    """Some days, the first of which is `begins`."""

    begins: date
    recipients: int = 0
    refused: int = 0
    others: int = 0  # messages or accounts


def figure(days: Sequence[Day | ReportedDay], note: str) -> Figure:
    """What was sent on these days, of which there is one at least."""
    unit, all_spans = spans(days)
    with_refused = all(day.refused_recipients is not None for day in days)
    top = max(all_spans, key=lambda span: span.recipients)
    text = (
        f"Recipients in each {unit.name} from {all_spans[0].begins} on, as bars; the most, {top.recipients:,}, from "
        f"{top.begins} on."
    )
    columns: dict[Column, Callable[[Span], Cell]] = {}
    columns[Column(unit.name.capitalize(), "time")] = lambda span: Cell(str(span.begins), span.begins.toordinal())
    columns[Column("Recipients")] = lambda span: number(span.recipients)
    if with_refused:
        columns[Column("Refused")] = lambda span: number(span.refused)
    if isinstance(days[0], Day):
        columns[Column("Messages")] = lambda span: number(span.others)
    elif unit.days == 1:  # those of several days may be the same ones
        columns[Column("Accounts")] = lambda span: number(span.others)
    rows = [[cell(span) for cell in columns.values()] for span in all_spans if span.recipients]
    table = Table(f"What was sent in each {unit.name}", [*columns], rows)
    drawings = [_drawing(all_spans, unit, width, with_refused) for width in WIDTHS]
    return Figure(f"Recipients per {unit.name}", text, drawings, [table], note)


def spans(days: Sequence[Day | ReportedDay]) -> tuple[_Unit, list[Span]]:
    """The smallest unit of which there are no more than MOST_BARS, and all of these, the empty ones, too."""
    dates = [date.fromisoformat(day.day) for day in days]
    for unit in _UNITS:
        made = _empty(unit, min(dates), max(dates))
        if len(made) <= MOST_BARS:
            break
    for day, on in zip(days, dates, strict=True):
        span = made[unit.begin(on)]
        span.recipients += day.recipients
        span.refused += day.refused_recipients or 0
        span.others += day.messages if isinstance(day, Day) else day.accounts
    return unit, [*made.values()]


def _empty(unit: _Unit, first: date, last: date) -> dict[date, Span]:
    """Spans from day to day; no more than MOST_BARS and one."""
    made: dict[date, Span] = {}
    begins = unit.begin(first)
    while begins <= last and len(made) <= MOST_BARS:
        made[begins] = Span(begins)
        if date.max - begins < timedelta(unit.days):  # there is no next one
            break
        begins = unit.begin(begins + timedelta(unit.days))
    return made


def _drawing(all_spans: Sequence[Span], unit: _Unit, width: int, with_refused: bool) -> Drawing:
    most = max(1, *[span.recipients for span in all_spans], 1)
    step = (width - _RIGHT - _LEFT) / max(7, len(all_spans))
    shapes = [*(_legend() if with_refused else []), *_scale(most, width)]
    for i, span in enumerate(all_spans):
        shapes += _bars(span, _LEFT + i * step, step, most)
    return Drawing("days", width, _BASE + _TICKS_PX, [*shapes, *_dates(all_spans, unit, step, width)])


def _legend() -> list[Shape]:
    return [
        drawing.bar("bar", 0, 4, 12, 12, ""),
        drawing.text("caption", 18, 14, "admitted"),
        drawing.bar("bar over", 96, 4, 12, 12, ""),
        drawing.text("caption", 114, 14, "refused"),
    ]


def _scale(most: int, width: int) -> list[Shape]:
    shapes = []
    for count in range(0, most + 1, max(1, drawing.round_number(most / 2))):
        y = _BASE - _BARS_PX * count / most
        shapes += [drawing.line("grid" if count else "base", _LEFT, y, width - _RIGHT, y)]
        shapes += [drawing.text("tick", _LEFT - 6, y + 4, drawing.short(count), "end")]
    return shapes


def _bars(span: Span, x: float, step: float, most: int) -> list[Shape]:
    """What was admitted, above what was refused."""
    left, width = (x + 0.5, step - 1) if step < 8 else (x + 1, step - 2)
    sent, refused = (_BARS_PX * number / most for number in (span.recipients, min(span.refused, span.recipients)))
    title = f"{span.begins}: {counted(span.recipients, 'recipient')}"
    if span.refused:
        title += f", {span.refused:,} refused"
    return [
        *([drawing.bar("bar", left, _BASE - sent, width, sent - refused, title)] if sent > refused else []),
        *([drawing.bar("bar over", left, _BASE - refused, width, refused, title)] if refused else []),
    ]


def _dates(all_spans: Sequence[Span], unit: _Unit, step: float, width: int) -> list[Shape]:
    """As many dates as have room."""
    shapes: list[Shape] = []
    free_from = 0.0
    for i, span in enumerate(all_spans):
        words, middle = span.begins.strftime(unit.form).lstrip("0"), _LEFT + (i + 0.5) * step
        half = drawing.text_px(words) / 2
        if middle - half >= free_from and middle + half <= width:
            shapes += [drawing.line("base", middle, _BASE, middle, _BASE + 5)]
            shapes += [drawing.text("tick", middle, _BASE + 19, words, "middle")]
            free_from = middle + half + 24
    return shapes
