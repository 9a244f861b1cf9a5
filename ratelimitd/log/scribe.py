"""Writes lines to a file in a thread of its own, so that no reply waits for the disk.

A write(2) to a file waits where the file system is just committing what somebody syncs: a tenth of a second and more on
a busy disk. The thread takes what has come within a millisecond in one write: it is woken once for many requests, and
never while it works.
"""

import os
import threading
import time
from queue import SimpleQueue

GATHER_S = 0.001
CHUNK = 256
"""Pieces in one write, a few hundred KiB: more of them hold the interpreter while they are joined."""
PATIENCE_S = 5.0
"""How long the end waits for a disk that hangs; what has not been written by then is lost."""


class Scribe:
    """Writes to a descriptor, which is its own: whoever calls `write` does it until `begin`, from then on the thread.

    What comes while more than `backlog_bytes` wait for the disk is dropped, and so is what cannot be written.
    """

    def __init__(self, fd: int, backlog_bytes: int) -> None:
        self._fd = fd
        self._backlog_bytes = backlog_bytes
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()  # None: the end
        self._thread: threading.Thread | None = None
        # One thread alone changes each of these.
        self._taken_bytes = self._done_bytes = 0
        self._refused = self._failed = 0

    @property
    def dropped(self) -> int:
        """How many lines are not in the file, and will not be."""
        return self._refused + self._failed

    def write(self, data: bytes) -> None:
        """Write whole lines, or drop and count them."""
        if self._thread is None:
            self._put(data)
        elif self._taken_bytes - self._done_bytes + len(data) > self._backlog_bytes:
            self._refused += data.count(b"\n")
        else:
            self._taken_bytes += len(data)
            self._queue.put(data)

    def begin(self) -> None:
        """Let the thread write from now on."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="log", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        is_open = True
        while is_open:
            piece = self._queue.get()
            if piece is not None:
                time.sleep(GATHER_S)
            pieces = []
            while piece is not None:
                pieces.append(piece)
                if len(pieces) == CHUNK or self._queue.empty():
                    break
                piece = self._queue.get()
            is_open = piece is not None
            self._put(data := b"".join(pieces))
            self._done_bytes += len(data)
        os.close(self._fd)

    def _put(self, data: bytes) -> None:
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError:
            self._failed += data.count(b"\n")

    def switch(self, fresh: int) -> None:
        """Write to another open file from now on; its descriptor takes the number of the old one.

        What waits goes to the fresh file. A write that is under way still ends in the old one.
        """
        os.dup2(fresh, self._fd, inheritable=False)
        os.close(fresh)

    def close(self) -> None:
        """Write what waits, and close the descriptor; after that nothing may be written. It blocks for `PATIENCE_S`."""
        if self._thread is None:
            os.close(self._fd)
        else:
            self._queue.put(None)
            self._thread.join(PATIENCE_S)
