"""The picture of the days: what was sent on each, and how much of it was refused. Many days are put together."""

from collections.abc import Callable, Sequence
from datetime import date, timedelta

from msgspec import Struct

from ratelimitd.ctl.answers import Day
from ratelimitd.ctl.page import drawing
from ratelimitd.ctl.page.content import Cell, Column, Figure, Table, number
from ratelimitd.ctl.page.distribution import short
from ratelimitd.ctl.page.drawing import Drawing, Shape
from ratelimitd.text import counted

MOST_BARS = 100
_LEFT, _RIGHT, _TOP, _BARS_PX, _TICKS_PX = 46, 12, 40, 150, 26


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
    _Unit("decade", lambda day: date(day.year // 10 * 10, 1, 1), 3660, "%Y"),
    _Unit("century", lambda day: date(day.year // 100 * 100, 1, 1), 36_600, "%Y"),
)


class Span(Struct):
    """Some days, the first of which is `begins`."""

    begins: date
    messages: int = 0
    recipients: int = 0
    refused: int = 0


def figure(days: Sequence[Day], widths: Sequence[int]) -> Figure:
    """What was sent on these days, of which there is one at least."""
    unit, all_spans = spans(days)
    top = max(all_spans, key=lambda span: span.recipients)
    text = (
        f"Recipients in each {unit.name} from {all_spans[0].begins} on, as bars; the most, {top.recipients:,}, from "
        f"{top.begins} on. The numbers are in the table."
    )
    rows = [_row(span) for span in all_spans if span.recipients]
    columns = [Column(unit.name.capitalize(), "time"), Column("Messages"), Column("Recipients"), Column("Refused")]
    table = Table(f"What was sent in each {unit.name}", columns, rows)
    note = "Refused is what any limit refused, also those that are not enforced."
    drawings = [_drawing(all_spans, unit, width) for width in widths]
    return Figure(f"Recipients per {unit.name}", text, drawings, [table], note)


def spans(days: Sequence[Day]) -> tuple[_Unit, list[Span]]:
    """The smallest unit of which there are no more than MOST_BARS, and all of these, the empty ones, too."""
    dates = [date.fromisoformat(day.day) for day in days]
    for unit in _UNITS:
        made = _empty(unit, min(dates), max(dates))
        if len(made) <= MOST_BARS:
            break
    for day, on in zip(days, dates, strict=True):
        span = made[unit.begin(on)]
        span.messages += day.messages
        span.recipients += day.recipients
        span.refused += day.refused_recipients
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


def _row(span: Span) -> list[Cell]:
    return [
        Cell(span.begins.isoformat(), span.begins.toordinal()),
        number(span.messages),
        number(span.recipients),
        number(span.refused),
    ]


def _drawing(all_spans: Sequence[Span], unit: _Unit, width: int) -> Drawing:
    base, left, right = _TOP + _BARS_PX, _LEFT, width - _RIGHT
    most = max(1, *[span.recipients for span in all_spans], 1)
    step = (right - left) / max(7, len(all_spans))
    gap = 1 if step < 8 else 2
    shapes = _legend()
    for count in range(0, most + 1, max(1, drawing.round_number(most / 2))):
        y = base - _BARS_PX * count / most
        shapes += [drawing.line("grid" if count else "base", left, y, right, y)]
        shapes += [drawing.text("tick", left - 6, y + 4, short(count), "end")]
    free_from = 0.0
    for i, span in enumerate(all_spans):
        x = left + i * step
        title = f"{span.begins}: {counted(span.recipients, 'recipient')}, {span.refused:,} refused"
        height = _BARS_PX * span.recipients / most
        refused = _BARS_PX * min(span.refused, span.recipients) / most
        if span.recipients:
            shapes += [drawing.bar("bar", x + gap / 2, base - height, step - gap, height - refused, title)]
        if refused:
            shapes += [drawing.bar("bar over", x + gap / 2, base - refused, step - gap, refused, title)]
        words, middle = span.begins.strftime(unit.form).lstrip("0"), x + step / 2
        half = drawing.text_px(words) / 2
        if middle - half >= free_from and middle + half <= width:
            shapes += [drawing.line("base", middle, base, middle, base + 5)]
            shapes += [drawing.text("tick", middle, base + 19, words, "middle")]
            free_from = middle + half + 24
    return Drawing("days", width, base + _TICKS_PX, shapes)


def _legend() -> list[Shape]:
    return [
        drawing.bar("bar", 0, 4, 12, 12, ""),
        drawing.text("caption", 18, 14, "admitted"),
        drawing.bar("bar over", 96, 4, 12, 12, ""),
        drawing.text("caption", 114, 14, "refused"),
    ]
