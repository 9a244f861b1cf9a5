"""Bars in a table, with a mark where a quota is. They fit the terminal, and are ASCII where that is not UTF-8."""

import os
import shutil
import sys
from collections.abc import Sequence
from typing import NamedTuple

from ratelimitd.ctl import tables

NARROWEST, WIDEST = 10, 60
_OF_PYTHON = ("C.UTF-8", "C.utf8", "UTF-8")
"""What Python itself sets LC_CTYPE to, where the locale is C."""


class Bars(NamedTuple):
    """The characters of bars, and how wide a line may be."""

    columns: int
    full: str = "#"
    mark: str = "|"

    def table(self, header: Sequence[str], rows: Sequence[Sequence[object]], right: Sequence[int], of: "Scale") -> str:
        """A table with a bar at the end of each row: of each number in `of.numbers`."""
        plain = tables.table(header, rows, right).splitlines()
        room = self.columns - 1 - max(map(tables.width, plain)) - 2 * len(tables.GAP)
        longest = min(max(room, NARROWEST), WIDEST)
        bars = ["", *[self.bar(number, of, longest) for number in of.numbers]]
        beside = max(map(tables.width, plain))
        lines = [
            (line + " " * (beside - tables.width(line)) + tables.GAP + bar).rstrip()
            for line, bar in zip(plain, bars, strict=True)
        ]
        return "".join(line + "\n" for line in lines)

    def bar(self, number: int, of: "Scale", longest: int) -> str:
        """A bar; one that goes beyond the mark does so by a character at least, no other does."""
        length = -(-number * longest // of.greatest) if of.greatest else 0
        if of.mark is None:
            return self.full * length
        place = min(of.mark * longest // of.greatest, longest - 1) if of.greatest else 0
        beyond = max(1, length - place) if number > of.mark else 0
        return (self.full * min(length, place)).ljust(place) + self.mark + self.full * beyond


class Scale(NamedTuple):
    """The numbers of some bars, and where the mark is."""

    numbers: Sequence[int]
    mark: int | None = None

    @property
    def greatest(self) -> int:
        """What the longest bar stands for."""
        return max([*self.numbers, self.mark or 0])


def bars() -> Bars:
    """Those for standard output."""
    columns = shutil.get_terminal_size().columns
    return Bars(columns, "█", "│") if _is_utf8() else Bars(columns)


def _is_utf8() -> bool:
    ctype = os.environ.get("LC_CTYPE", "")
    said = os.environ.get("LC_ALL") or (ctype if ctype not in _OF_PYTHON else "") or os.environ.get("LANG", "")
    encoding = sys.stdout.encoding or ""
    return all(text.lower().replace("-", "").endswith("utf8") for text in (said.partition("@")[0], encoding))
