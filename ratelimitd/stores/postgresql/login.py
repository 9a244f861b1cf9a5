"""A login of libpq, step by step in threads, that can be given up at any time.

A step looks up names, reads certificates and derives the SCRAM key. How long that takes a server says, by the number of
iterations: for 2,000,000,000 it computes for half an hour, and nothing stops it. So the thread is abandoned, and closes
the connection when it is done, and no more than MOST such threads compute for one server.
"""

from collections import Counter
from threading import Lock

import trio
from psycopg import pq

MOST = 2

_lock = Lock()
_abandoned: Counter[str] = Counter()


class StillComputing(Exception):
    """So many logins to this server were given up that are not over that no other is begun."""


def begin(server: str) -> None:
    """Raise StillComputing where no login to a server can be begun."""
    with _lock:
        if _abandoned[server] >= MOST:
            raise StillComputing("earlier logins were given up, and still compute what the server has asked for")


class Login:
    """One login, by a connection of libpq that has begun it. `server`: its name, the same for all its logins."""

    def __init__(self, server: str, libpq: pq.abc.PGconn) -> None:
        self._server = server
        self._libpq = libpq
        self._in_thread = self._ended = False

    async def step(self) -> int:
        """What libpq waits for next. `discard` must follow where it is cancelled."""
        return await trio.to_thread.run_sync(self._step, abandon_on_cancel=True)

    def _step(self) -> int:
        with _lock:
            if self._ended:
                return pq.PollingStatus.FAILED
            self._in_thread = True
        try:
            return self._libpq.connect_poll()
        finally:
            with _lock:
                self._in_thread = False
                if self._ended:
                    self._libpq.finish()
                    _abandoned[self._server] -= 1

    def discard(self) -> None:
        """Close the connection, now or as soon as no thread uses it."""
        with _lock:
            if self._ended:
                return
            self._ended = True
            if self._in_thread:
                _abandoned[self._server] += 1
            else:
                self._libpq.finish()
