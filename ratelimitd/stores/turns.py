"""Short turns of the threads while somebody waits for one of them: a look-up must not stand behind a flush.

CPython lets a thread go on for 5 ms while another one waits for the interpreter, and a look-up waits several times: as
it begins, at each of SQLite's steps, as it ends. With short turns at all times a busy daemon would take turns all the
time, which costs it a tenth of its CPU time. Whoever waits for a thread enters `SHORT_TURNS`; the last one to leave it
puts things back. Of the loop's thread alone.
"""

import sys
from types import TracebackType

TURN_S = 0.0003


class ShortTurns:
    """A context that may be entered again while it is: turns are short as long as somebody is in it."""

    def __init__(self) -> None:
        self._inside = 0
        self._usual_s = 0.0

    def __enter__(self) -> None:
        if not self._inside:
            self._usual_s = sys.getswitchinterval()
            sys.setswitchinterval(TURN_S)
        self._inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inside -= 1
        if not self._inside:
            sys.setswitchinterval(self._usual_s)


SHORT_TURNS = ShortTurns()
"""The interpreter has one interval for all threads."""
