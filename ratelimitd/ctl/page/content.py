"""What is on a page, whatever it is about: sections with answers, pictures and tables. Texts are plain, not HTML."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from msgspec import Struct

from ratelimitd.ctl.page.drawing import Drawing
from ratelimitd.text import cut

MAX_ROWS = 50
"""Of accounts in a table; the JSON has all."""
WIDTHS = (800, 340)
"""Of each picture: on screens and paper, and on phones."""
_MAX_CHARACTERS = 255


class Cell(Struct, frozen=True):
    """A value: as it is read, and by what it is sorted."""

    text: str
    order: float | str


class Column(Struct, frozen=True):
    """A column: `number` and `time` are sorted as such, `key` is somebody else's text."""

    title: str
    kind: Literal["key", "number", "time", "text"] = "number"


class Table(Struct, frozen=True):
    """Rows of cells; `more`: what is not shown."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    more: str = ""


class Figure(Struct, frozen=True):
    """A picture, in one width for screens and one for phones, and its numbers as tables."""

    title: str
    text: str  # what is to be seen, for those who do not see it
    drawings: Sequence[Drawing]
    tables: Sequence[Table]
    note: str = ""


class Tile(Struct, frozen=True):
    """An answer in one number."""

    value: str
    text: str
    detail: str = ""
    kind: Literal["plain", "quota", "advice"] = "plain"


class Section(Struct, frozen=True, kw_only=True):
    """A part of the page with a heading."""

    title: str
    text: str = ""
    tiles: Sequence[Tile] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    lines: Sequence[str] = ()  # of a file, as they are there


class Page(Struct, frozen=True, kw_only=True):
    """A whole page."""

    verb: str
    title: str
    text: str
    tiles: Sequence[Tile] = ()
    sections: Sequence[Section]


def number(value: int) -> Cell:
    """A number, exact."""
    return Cell(f"{value:,}", value)


def percent(part: int, whole: int) -> str:
    """A share in two digits, which is 0 only where it is none and 100 only where it is all."""
    if part in (0, whole):
        return "100 %" if part else "0 %"
    share = 100 * part / whole
    digits = next((digits for digits, least in enumerate((10, 1, 0.1, 0.01)) if share >= least), None)
    return "under 0.01 %" if digits is None else "over 99 %" if share > 99 else f"{share:.{digits}f} %"


def words(text: str) -> Cell:
    """A text that is none of an account's."""
    return Cell(text, text)


def key(name: str) -> Cell:
    """An account, whatever characters are in it."""
    return Cell(cut(name, _MAX_CHARACTERS), name.casefold())


def moment(iso: str) -> Cell:
    """A time of ISO 8601."""
    return Cell(iso[:16].replace("T", " "), datetime.fromisoformat(iso).timestamp())
