"""The picture of the days: what was sent on each, and how much of it was refused. Many days are put together."""

from collections.abc import Sequence
from datetime import date, timedelta

from msgspec import Struct

from ratelimitd.ctl.answers import Day
from ratelimitd.ctl.page import drawing
from ratelimitd.ctl.page.content import Cell, Column, Figure, Table, number
from ratelimitd.ctl.page.distribution import short
from ratelimitd.ctl.page.drawing import Drawing, Shape
from ratelimitd.text import counted

MOST_BARS = 100
_SIZES = (1, 7, 28, 364, 3640, 36_400)
_LEFT, _RIGHT, _TOP, _BARS_PX, _TICKS_PX = 46, 12, 40, 150, 26


class Span(Struct):
    """Some days, the first of which is `begins`."""

    begins: date
    messages: int = 0
    recipients: int = 0
    refused: int = 0


def figure(days: Sequence[Day], widths: Sequence[int]) -> Figure:
    """What was sent on these days, of which there is one at least."""
    size, all_spans = spans(days)
    what = "day" if size == 1 else f"{size} days"
    top = max(all_spans, key=lambda span: span.recipients)
    text = (
        f"Recipients in each {what} from {all_spans[0].begins} on, as bars; the most, {top.recipients:,}, from "
        f"{top.begins} on. The numbers are in the table."
    )
    rows = [_row(span) for span in all_spans if span.recipients]
    columns = [
        Column("First day" if size > 1 else "Day", "time"),
        Column("Messages"),
        Column("Recipients"),
        Column("Refused"),
    ]
    table = Table(f"What was sent in each {what}", columns, rows)
    note = "Refused is what any limit refused, also those that are not enforced."
    drawings = [_drawing(all_spans, size, width) for width in widths]
    return Figure(f"Recipients per {what}", text, drawings, table, note)


def spans(days: Sequence[Day]) -> tuple[int, list[Span]]:
    """How many days one has, and all of them, the empty ones, too; at most MOST_BARS."""
    dates = [date.fromisoformat(day.day) for day in days]
    first, last = min(dates), max(dates)
    size = next(size for size in _SIZES if (last - first).days // size < MOST_BARS)
    made = [Span(first + timedelta(days=size * i)) for i in range((last - first).days // size + 1)]
    for day, on in zip(days, dates, strict=True):
        span = made[(on - first).days // size]
        span.messages += day.messages
        span.recipients += day.recipients
        span.refused += day.refused_recipients
    return size, made


def _row(span: Span) -> list[Cell]:
    return [
        Cell(span.begins.isoformat(), span.begins.toordinal()),
        number(span.messages),
        number(span.recipients),
        number(span.refused),
    ]


def _drawing(all_spans: Sequence[Span], size: int, width: int) -> Drawing:
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
        words, middle = _short_date(span.begins, size), x + step / 2
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


def _short_date(day: date, size: int) -> str:
    return f"{day:%d %b}".lstrip("0") if size < 28 else f"{day:%b %Y}" if size < 364 else str(day.year)
