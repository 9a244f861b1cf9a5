"""How far a replay is: a bar on a terminal's stderr, and nothing anywhere else."""

import sys
import time
from collections.abc import Sequence
from typing import Protocol

_WIDTH = 30
_EVERY_S = 0.1
_CLEAR = "\r\x1b[K"


class File(Protocol):
    """A file that is read: its size, 0 where it has none, how much of it was read, and how many lines that were."""

    size: int
    position: int
    lines: int


class Progress:
    """Draws the bar; `show` may be called as often as one likes, `clear` at the end."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._next = 0.0
        self._drawn = False

    def show(self, files: Sequence[File]) -> None:
        """Draw it, if it is time to."""
        if not self._shown or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _EVERY_S
        self._drawn = True
        print(_CLEAR + bar(files), end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Take it away."""
        if self._drawn:
            print(_CLEAR, end="", file=sys.stderr, flush=True)


def bar(files: Sequence[File]) -> str:
    """What is drawn: a share of all bytes, where they are known, and the lines."""
    lines = f"{sum(file.lines for file in files):,} lines"
    size = sum(file.size for file in files)
    if not size or not all(file.size for file in files):
        return lines
    share = min(1.0, sum(file.position for file in files) / size)
    done = int(share * _WIDTH)
    return f"[{'#' * done}{'.' * (_WIDTH - done)}] {share:4.0%}  {lines}"
