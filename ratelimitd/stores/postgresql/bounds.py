"""How much a server may say: libpq takes all of it, and tells neither how much it was nor that it is still reading.

So the kernel is asked how much came over TCP, and the time that libpq takes to read is looked at: of
this thread alone, for another process that has the processor is not the server's fault. For a message whose head says
1 GB libpq makes room at once, which takes memory only as it is filled. Over a unix socket it may be filled until the
time is looked at: there is no count of what came. That server is one of this machine, in a folder of its own. A step
of a login runs in a thread, and a server that keeps up with it may fill that room in one.
"""

import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from socket import AF_UNIX, IPPROTO_TCP, TCP_INFO, socket

from psycopg import pq

MAX_ANSWER_BYTES = 16 << 20
"""No answer that a daemon asks for is a tenth as long. In memory it may be some times as much."""
MAX_LOGIN_BYTES = 1 << 20
_FEW_READS = 8
"""An answer of no more reads is not looked at."""
_RECEIVED = struct.Struct("=128xQ")
"""Where the kernel's `struct tcp_info` has `tcpi_bytes_received`."""
MAX_READS = 8192
MAX_COLUMNS = 64
"""No answer that is asked for has more; each is some calls, for each row, and a server may send 65,535."""
MAX_RESULTS = 8
"""Results of one call: two statements at most are sent in one."""
MAX_STEP_S = 0.05
"""Of some 64 KiB, which are read in a millisecond: what takes longer is made to."""
MAX_TEXT_BYTES = 2000
"""What is kept of an error's text."""


class EndlessError(Exception):
    """A server says more than anything it was asked for."""


class Bounds:
    """Of one answer, or of a login. Its methods raise EndlessError. `before`: the bytes that came before it."""

    def __init__(self, max_bytes: float, max_reads: float = MAX_READS, *, before: int | None = None) -> None:
        self._bytes = max_bytes
        self._before = before
        self._reads = 0
        self._max_reads = max_reads
        self._results = MAX_RESULTS
        self._step_s = MAX_STEP_S if max_bytes < inf else inf

    def read(self, descriptor: int) -> None:
        """Count one more read from a socket."""
        self._reads += 1
        if self._before is None and self._reads <= _FEW_READS:
            return
        received = _received(descriptor)
        if self._before is None:
            self._before = received
        if received - self._before > self._bytes or self._reads > self._max_reads:
            raise EndlessError("an answer without an end")

    def is_busy(self, libpq: pq.abc.PGconn) -> bool:
        """Whether libpq needs to read more for the next result; it looks at what it has read."""
        with self._soon():
            return bool(libpq.is_busy())

    def consume(self, libpq: pq.abc.PGconn) -> None:
        """Have libpq read what is there: it goes on for as long as there is more, once it has read some."""
        with self._soon():
            libpq.consume_input()

    @contextmanager
    def _soon(self) -> Iterator[None]:
        began = time.thread_time()
        yield
        if time.thread_time() - began > self._step_s:
            raise EndlessError("an answer that takes too long to read")

    def result(self) -> None:
        """Count a result."""
        self._results -= 1
        if self._results < 0:
            raise EndlessError("an answer without an end")


def _received(descriptor: int) -> int:
    """The bytes that came over a TCP connection since it began; 0 for a socket of this machine."""
    borrowed = socket(fileno=descriptor)
    try:
        if borrowed.family == AF_UNIX:
            return 0
        (received,) = _RECEIVED.unpack(borrowed.getsockopt(IPPROTO_TCP, TCP_INFO, _RECEIVED.size))
        return int(received)
    finally:
        borrowed.detach()
