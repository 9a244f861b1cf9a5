"""Asks the daemon beside the screen: one that does not answer holds up no key that is typed.

A question waits in a thread, one at a time: to connect to a daemon that hangs may take as long as to be answered. What
is done with the answer is not known here.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from ratelimitd.control.answers import Ranking
from ratelimitd.control.commands import Refused, Top

Ask = Callable[[Top], Ranking]


class Asking:
    """The question that is being asked. `wake` is called from a thread when there is an answer."""

    def __init__(self, ask: Ask, wake: Callable[[], None]) -> None:
        self._ask = ask
        self._wake = wake
        self._asked_at = 0.0
        self._thread: threading.Thread | None = None
        self._answer: Ranking | Exception | None = None

    @property
    def waiting_s(self) -> float | None:
        """How long the question has been waiting; None: there is none."""
        return time.monotonic() - self._asked_at if self._thread is not None else None

    def begin(self, command: Top) -> None:
        """Ask, where nothing is being asked."""
        assert self._thread is None
        self._asked_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, args=(command,), daemon=True)
        self._thread.start()

    def answer(self) -> Ranking | Refused | None:
        """The answer, once it is there. Raises what else the asking has raised."""
        answer, self._answer = self._answer, None
        if answer is not None:
            self._thread = None
        if isinstance(answer, Exception) and not isinstance(answer, Refused):
            raise answer
        return answer

    def _run(self, command: Top) -> None:
        try:
            self._answer = self._ask(command)
        except Exception as error:  # raised where the answer is taken
            self._answer = error
        with suppress(OSError):  # the screen has gone
            self._wake()
