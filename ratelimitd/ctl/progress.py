"""How far a long work is: a line on a terminal's stderr that is drawn in place, and nothing anywhere else."""

import shutil
import sys
import time
from collections.abc import Callable

from ratelimitd.ctl.tables import fitted
from ratelimitd.text import escape

_EVERY_S = 0.1
_CLEAR = "\r\x1b[K"


class Progress:
    """Draws the line; `show` may be called as often as one likes, `clear` at the end."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._next = 0.0
        self._drawn = False

    def show(self, line: Callable[[], str]) -> None:
        """Draw the line, if it is time to."""
        if not self._shown or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _EVERY_S
        self._drawn = True
        text = fitted(escape(line()), shutil.get_terminal_size().columns - 1)
        print(_CLEAR + text, end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Take it away."""
        if self._drawn:
            print(_CLEAR, end="", file=sys.stderr, flush=True)
