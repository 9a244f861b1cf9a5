"""A drawing: shapes with their places, in CSS pixels. What they look like the style alone says, by their class."""

from collections.abc import Iterable, Sequence

from msgspec import Struct

TEXT_PX = 12
_CHARACTER_PX = 6.7
ROW_PX = 18


class Shape(Struct, frozen=True):
    """One shape of SVG; `title` is shown where it is pointed at."""

    tag: str
    attributes: dict[str, str | float]
    text: str = ""
    title: str = ""


class Drawing(Struct, frozen=True):
    """Shapes, the later ones above the earlier ones."""

    name: str
    width: int
    height: int
    shapes: Sequence[Shape]


class Label(Struct, frozen=True):
    """A text at the head of a vertical line; `row` 0 is the lowest."""

    text: str
    x: float
    row: int
    anchor: str
    kind: str


def bar(kind: str, x: float, y: float, width: float, height: float, title: str) -> Shape:
    """A rectangle."""
    place: dict[str, str | float] = {"x": _px(x), "y": _px(y), "width": _px(width), "height": _px(height)}
    return Shape("rect", {"class": kind, **place}, title=title)


def line(kind: str, x: float, y: float, to_x: float, to_y: float) -> Shape:
    """A line."""
    return Shape("line", {"class": kind, "x1": _px(x), "y1": _px(y), "x2": _px(to_x), "y2": _px(to_y)})


def curve(kind: str, points: Iterable[tuple[float, float]]) -> Shape:
    """A line through points."""
    return Shape("polyline", {"class": kind, "points": " ".join(f"{_px(x)},{_px(y)}" for x, y in points)})


def dot(kind: str, x: float, y: float, title: str) -> Shape:
    """A point."""
    return Shape("circle", {"class": kind, "cx": _px(x), "cy": _px(y), "r": 4.5}, title=title)


def text(kind: str, x: float, y: float, words: str, anchor: str = "start") -> Shape:
    """A line of text; `y` is its base line."""
    return Shape("text", {"class": kind, "x": _px(x), "y": _px(y), "text-anchor": anchor}, text=words)


def labels(wanted: Iterable[tuple[float, str, str]], left: float) -> list[Label]:
    """Labels (x, text, kind) in as many rows as they need to stand beside each other, left of their lines.

    One that would begin before `left` stands to the right of its line.
    """
    placed: list[Label] = []
    taken: list[list[tuple[float, float]]] = []
    for x, words, kind in sorted(wanted):
        width = text_px(words) + 10
        anchor = "end" if x - width >= left else "start"
        begin, end = (x - width, x + 2) if anchor == "end" else (x - 2, x + width)
        free = (row for row, spans in enumerate(taken) if all(end <= a or begin >= b for a, b in spans))
        row = next(free, len(taken))
        if row == len(taken):
            taken.append([])
        taken[row].append((begin, end))
        placed.append(Label(words, x, row, anchor, kind))
    return placed


def heads(placed: Sequence[Label], base: float) -> list[Shape]:
    """The texts of labels whose lowest row stands on `base`."""
    return [
        text(
            f"label {each.kind}",
            each.x + (-5 if each.anchor == "end" else 5),
            base - each.row * ROW_PX,
            each.text,
            each.anchor,
        )
        for each in placed
    ]


def rows_px(placed: Sequence[Label]) -> float:
    """How high the rows of labels are."""
    return ROW_PX * max((each.row + 1 for each in placed), default=0)


def round_number(most: float) -> int:
    """The greatest of 1, 2, 5, 10, 20, 50 ... that is not above `most`; 0 below 1."""
    sizes = (size * 10**power for power in range(20, -1, -1) for size in (5, 2, 1))
    return next((size for size in sizes if size <= most), 0)


def short(value: int) -> str:
    """A number of four digits at most."""
    for size, letter in ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**4, "k")):
        if value >= size:
            return f"{value / (1000 if letter == 'k' else size):.3g}{letter}"
    return f"{value:,}"


def text_px(words: str) -> float:
    """About how wide a text is."""
    return len(words) * _CHARACTER_PX


def _px(value: float) -> float:
    return round(value, 1)
