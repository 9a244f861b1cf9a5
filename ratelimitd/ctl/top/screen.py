"""A terminal that a program has to itself for a while: what it shows, what is typed, how large it is.

However that ends (an error, Ctrl-C, SIGTERM, a terminal that hangs up), the terminal is as it was before: its modes,
its cursor, and what it showed. Ctrl-Z gives it back until the program goes on. What is shown is not known here.
"""

import os
import select
import shutil
import signal
import socket
import sys
import termios
import tty
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Self

from ratelimitd.ctl.tables import fitted
from ratelimitd.log import colour

_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"  # the alternate screen, without a cursor
_HOME, _CLEAR_LINE, _CLEAR_REST = "\x1b[H", "\x1b[K", "\x1b[J"
_ENDS = (signal.SIGTERM, signal.SIGHUP)
_CHANGES = (signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT)
_GONE = (OSError, termios.error)
"""A terminal that has hung up."""

_WOKEN = b"\0"
"""No signal has this number."""

Line = tuple[str, str]
"""A colour ("": none) and a text, which is as wide as it may be."""


class _Ended(BaseException):
    """A signal that ends the program."""


class Screen:
    """The terminal, as a context manager. Keys can be typed where standard input is one, too."""

    def __init__(self) -> None:
        self._out = sys.stdout.fileno()
        self._in = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
        self._encoding = sys.stdout.encoding
        self._coloured = colour.wanted(self._out)
        self._modes: list[Any] = []
        self._before: dict[signal.Signals, Any] = {}
        self._signals, self._wake = socket.socketpair()

    def __enter__(self) -> Self:
        for each in (self._signals, self._wake):
            each.setblocking(False)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        for number in _ENDS + _CHANGES:
            self._before[number] = signal.signal(number, _end if number in _ENDS else _note)
        sys.stdout.flush()
        try:
            self._take()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        for number in (*_ENDS, signal.SIGINT):  # once is enough
            self._before.setdefault(number, signal.getsignal(number))
            signal.signal(number, signal.SIG_IGN)
        self._give_back()
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._signals.close()
        self._wake.close()
        if isinstance(error, _Ended):
            number = error.args[0]
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def size(self) -> tuple[int, int]:
        """Its columns and lines, as they are now."""
        with suppress(*_GONE):
            columns, lines = os.get_terminal_size(self._out)
            if columns > 0 and lines > 0:
                return columns, lines
        return shutil.get_terminal_size()

    def draw(self, lines: Sequence[Line]) -> None:
        """Show these lines, as far as there is room for them."""
        columns, rows = self.size()
        drawn = [colour.painted(fitted(text, columns), paint if self._coloured else "") for paint, text in lines[:rows]]
        self._write(_HOME + "\r\n".join(line + _CLEAR_LINE for line in drawn) + _CLEAR_REST)

    def wait(self, seconds: float) -> str | None:
        """Wait for a key: what is typed, "" where the screen is to be drawn again; None: the time is over.

        Raises EOFError where nothing can be typed any more.
        """
        watched = [self._signals.fileno(), *([] if self._in is None else [self._in])]
        ready, _, _ = select.select(watched, [], [], max(0.0, seconds))
        if not ready:
            return None
        if watched[0] in ready:
            if signal.SIGTSTP in self._signals.recv(4096):
                self._stop()
            return ""
        return self._typed()

    def wake(self) -> None:
        """Have `wait` come back, from any thread. Raises OSError where the screen has been left."""
        self._wake.send(_WOKEN)

    def _typed(self) -> str:
        assert self._in is not None
        try:
            typed = os.read(self._in, 64)
        except OSError:
            typed = b""
        if not typed:
            raise EOFError
        return typed.decode("ascii", "replace").lower()

    def _stop(self) -> None:
        """Ctrl-Z: stop as any program does, and go on when the shell says so."""
        self._give_back()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, _note)
        self._take()

    def _take(self) -> None:
        if self._in is not None:
            self._modes = termios.tcgetattr(self._in)
            tty.setcbreak(self._in)
        self._write(_ENTER)

    def _give_back(self) -> None:
        with suppress(*_GONE):
            self._write(_LEAVE)
        if self._modes and self._in is not None:
            with suppress(*_GONE):
                termios.tcsetattr(self._in, termios.TCSADRAIN, self._modes)

    def _write(self, text: str) -> None:
        data = text.encode(self._encoding, "replace")
        while data:
            data = data[os.write(self._out, data) :]


def _end(number: int, _: FrameType | None) -> None:
    raise _Ended(number)


def _note(_: int, __: FrameType | None) -> None:
    """Nothing: its number arrives where `wait` looks."""
