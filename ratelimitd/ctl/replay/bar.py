"""How much of the files of a log has been read, as a bar."""

from collections.abc import Sequence
from typing import Protocol

_WIDTH = 30


class File(Protocol):
    """A file that is read: its size, 0 where it has none, how much of it was read, and how many lines that were."""

    size: int
    position: int
    lines: int


def bar(files: Sequence[File]) -> str:
    """A share of all bytes, where they are known, and the lines."""
    lines = f"{sum(file.lines for file in files):,} lines"
    size = sum(file.size for file in files)
    if not size or not all(file.size for file in files):
        return lines
    share = min(1.0, sum(file.position for file in files) / size)
    done = int(share * _WIDTH)
    return f"[{'#' * done}{'.' * (_WIDTH - done)}] {share:4.0%}  {lines}"
