"""Writes lines to a file at once while its disk is fast, and in a thread while it is not: then no reply waits for it.

A write(2) to a file waits where the file system is just committing what somebody syncs: a tenth of a second and more on
a busy disk. A thread that writes every line costs a busy daemon a tenth of its CPU time and more, and as a rule the
disk is fast. So the first write that takes long has the thread write what comes after it, until none has taken long for
a minute.
"""

import fcntl
import os
import stat
import threading
import time
from queue import SimpleQueue

SLOW_S = 0.005
"""What takes longer is the disk's doing, or a busy processor's, which is no harm."""
CALM_S = 60.0
GATHER_S = 0.005
"""How long the thread waits for more lines before it writes: its turns cost the loop its own."""
CHUNK = 256
"""Pieces in one write, a few hundred KiB: more of them hold the interpreter while they are joined."""
PATIENCE_S = 5.0
"""How long the end waits for a disk that hangs; what has not been written by then is lost."""


class Scribe:
    """Writes to a descriptor, which is its own, in the order of the calls.

    What comes while more than `backlog_bytes` wait for the disk is dropped, and so is what cannot be written.
    """

    def __init__(self, fd: int, backlog_bytes: int) -> None:
        self._fd = fd
        self._file = os.fstat(fd)
        self._backlog_bytes = backlog_bytes
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()  # None: the end
        self._thread: threading.Thread | None = None
        self._calm_at = 0.0  # the time from which on the disk is no longer slow
        self._refused = self._failed = 0
        self._mend = b""  # a line end where the file ends with half a line: it was full, or the machine went down
        self._is_unsure = True  # whether it does: somebody else has written to the file, or may have cut it
        self._before: Scribe | None = None  # has something left to write to the same file
        self._taken_bytes = 0  # for the thread
        self._done_bytes = 0  # by the thread, which writes nothing while these are all

    @property
    def dropped(self) -> int:
        """How many lines are not in the file, and will not be."""
        return self._refused + self._failed

    def write(self, data: bytes) -> None:
        """Write whole lines, have them written, or drop and count them."""
        waiting_bytes = self._taken_bytes - self._done_bytes
        if not waiting_bytes and time.monotonic() >= self._calm_at and self._before is None:
            self._put(data)
        elif waiting_bytes + len(data) > self._backlog_bytes:
            self._refused += data.count(b"\n")
        else:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                self._thread.start()
            self._taken_bytes += len(data)
            self._queue.put(data)

    def _put(self, data: bytes) -> None:
        began = time.monotonic()
        if self._is_unsure:
            self._is_unsure = False
            self._mend = _line_end(self._fd, self._mend)
        whole, done = self._mend + data, 0
        try:
            while done < len(whole):
                done += os.write(self._fd, whole[done:])
            self._mend = b""
        except OSError:
            self._failed += data.count(b"\n", max(0, done - len(whole) + len(data)))
            if done:
                self._mend = b"" if whole[done - 1 : done] == b"\n" else b"\n"
            self._is_unsure = True  # a full disk is made room on by cutting logs
        ended = time.monotonic()
        if ended - began > SLOW_S:
            self._calm_at = ended + CALM_S

    def _run(self) -> None:
        if self._before is not None and self._before._thread is not None:
            self._before._thread.join()
            self._mend = self._before._mend
            self._before = None
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

    def switch(self, fresh: int) -> None:
        """Write to another open file from now on; its descriptor takes the number of the old one.

        What waits goes to the fresh file. A write that is under way still ends in the old one.
        """
        if not self._has(found := os.fstat(fresh)):
            self._file, self._mend, self._is_unsure = found, b"", True
        os.dup2(fresh, self._fd, inheritable=False)
        os.close(fresh)

    def follow(self, before: "Scribe") -> None:
        """Be as careful as `before`, which is written to no more and closed next: another file is on the same disk as a
        rule. If it has the same file, write after what waits in it; of several the latest comes last.

        One may be closed already: what had not been written by then still waits.
        """
        self._calm_at = max(self._calm_at, before._calm_at)
        if self._has(before._file):
            self._mend = before._mend
            self._before = before if before._taken_bytes > before._done_bytes else before._before

    def _has(self, file: os.stat_result) -> bool:
        return os.path.samestat(file, self._file)

    def close(self) -> None:
        """Write what waits, and close the descriptor; after that nothing may be written. It blocks for `PATIENCE_S`."""
        if self._thread is None:
            os.close(self._fd)
        else:
            self._queue.put(None)
            self._thread.join(PATIENCE_S)


def _line_end(fd: int, known: bytes) -> bytes:
    """What ends the half line that a file ends with, nothing where it ends with a whole one; `known` where its end
    cannot be read."""
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            return known
        appends = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND
        end = found.st_size if appends else os.lseek(fd, 0, os.SEEK_CUR)
        if not end:
            return b""
        reader = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)  # this one only writes
        try:
            return b"" if os.pread(reader, 1, end - 1) in (b"", b"\n") else b"\n"
        finally:
            os.close(reader)
    except OSError:
        return known
