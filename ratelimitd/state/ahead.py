"""Segments that are laid out before they are needed, so that no reply waits for the disk.

A write(2) changes the file's size and time, and waits where the file system is just writing that to its own journal for
somebody's fsync: a tenth of a second and more on a busy disk. What is copied into a mapped page that is in memory,
writable and changed already waits for nothing, and is the kernel's at once, as what is written is: it outlives a
kill -9. So a thread fills a file with zeros, syncs it, maps it, and changes every page once. Behind the last record
the file is zeros, until `Journal.settle` cuts it. What does not fit, the journal writes behind it.
"""

import contextlib
import errno
import mmap
import os
from collections.abc import Callable
from pathlib import Path

LEAST, MOST = 1 << 18, 1 << 24
"""Bytes of a file that is laid out: twice what the one before held, in whole LEASTs, within these."""
CHUNK = 1 << 16


class Room:
    """The pages of a file from its beginning, mapped. Making it blocks: for a thread. Raises OSError."""

    def __init__(self, fd: int, header: bytes, size: int) -> None:
        first, zeros = header.ljust(CHUNK, b"\0"), bytes(CHUNK)  # not all at once: that holds the interpreter
        for at in range(0, size, CHUNK):
            _write(fd, zeros if at else first, at)
        os.fdatasync(fd)
        self.size = size
        self._through = os.memfd_create("ratelimitd-journal")
        try:
            _write(self._through, zeros, 0)
            self._ours = mmap.mmap(self._through, CHUNK)
            self._map = mmap.mmap(fd, size)
            self._view = memoryview(self._map)
            for at in range(0, size, CHUNK):
                self.put(zeros if at else first, at)
        except OSError:
            os.close(self._through)
            raise
        except ValueError as error:  # somebody has cut the file meanwhile
            os.close(self._through)
            raise OSError(errno.EIO, str(error)) from error

    def put(self, data: bytes, at: int) -> int:
        """Copy bytes to a place in the file; how many of them fit. Raises OSError.

        The kernel copies them, from memory of ours that it reads as a file: a page that cannot be had, of a file that
        somebody has cut, is an error then. If we stored them there ourselves, it would be a SIGBUS.
        """
        view = self._view[at : at + len(data)]
        length = len(view)
        if length > CHUNK:
            return self.put(data[:CHUNK], at) + self.put(data[CHUNK:length], at + CHUNK)
        self._ours[:length] = data[:length]
        if os.preadv(self._through, [view], 0) < length:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return length

    def close(self) -> None:
        """Unmap the file; it blocks where it is large."""
        self._view.release()
        self._map.close()
        self._ours.close()
        os.close(self._through)


class SegmentFile:
    """The file of a segment that is written to. `size`: what it holds; behind that there may be zeros of its `room`."""

    def __init__(self, number: int, fd: int, header: bytes, room: int = 0) -> None:
        """Write the header, and lay out so much room, which blocks. Raises OSError; the descriptor stays open."""
        self.number = number
        self.fd = fd
        self.size = len(header)
        self._mapped = Room(fd, header, room) if room else None
        self._fits = self._mapped is not None
        if not room:
            _write(fd, header, 0)

    def append(self, data: bytes) -> None:
        """Write at the end. Raises OSError; then the file may hold a part of it."""
        done = 0
        if self._fits and self._mapped is not None:
            try:
                done = self._mapped.put(data, self.size)
            except OSError:  # a write says why
                self._fits = False
        if done < len(data):
            self._fits = False
            _write(self.fd, data[done:], self.size + done)
        self.size += len(data)

    def cut(self) -> None:
        """Cut the file behind what it holds, and unmap it. It blocks. Raises OSError."""
        mapped, self._mapped, self._fits = self._mapped, None, False
        try:
            os.ftruncate(self.fd, self.size)
        finally:
            if mapped is not None:
                mapped.close()

    @property
    def is_there(self) -> bool:
        """Whether nobody has removed it."""
        return os.fstat(self.fd).st_nlink > 0


def lay_out(create: Callable[[Path], int], path: Path, number: int, header: bytes, used: int) -> SegmentFile | None:
    """Lay out a segment in the file that `create` opens, with twice the room that one before has used.

    None where it cannot be, and the file is gone again: the disk is full, and others need what is left of it, or the
    file system does not map files. It blocks: for a thread.
    """
    size = min(MOST, max(1, -(-2 * used // LEAST)) * LEAST)  # its pages are memory: not the next power of two
    with contextlib.suppress(OSError):
        fd = create(path)
        try:
            return SegmentFile(number, fd, header, size)
        except OSError:
            os.close(fd)
            path.unlink()
    return None


def discard(file: SegmentFile | None, path_of: Callable[[int], Path]) -> None:
    """Delete a segment that was laid out and is not used. It blocks, as a rule for a moment; never raises."""
    if file is not None:
        with contextlib.suppress(OSError):
            file.cut()
        with contextlib.suppress(OSError):
            os.close(file.fd)
        with contextlib.suppress(OSError):
            path_of(file.number).unlink()


def _write(fd: int, data: bytes, at: int) -> None:
    """Write it all. Raises OSError: after a short write, the next one says why."""
    written = os.pwrite(fd, data, at)
    while written < len(data):
        more = os.pwrite(fd, data[written:], at + written)
        if not more:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written += more
