"""Segments that are stored, or merged: their files are kept for a while, for the memo of a later run.

Postfix asks again, and goes on with a transaction, long after a flush has stored what was charged to it: a session may
be idle for five minutes between two questions. So the files go to a folder of their own instead of being deleted; what
is in it is never stored again. The oldest are deleted when they are KEPT_S old, or MAX_BYTES is reached.
"""

import contextlib
import time
from collections.abc import Callable, Container
from pathlib import Path
from typing import NamedTuple

from ratelimitd.errors import JournalError
from ratelimitd.state import records, segments
from ratelimitd.state.segments import Recovered

KEPT_S = 3600
"""Seconds since the last charge in a file."""
MAX_BYTES = 64 << 20
BLOCK = 4096
"""What the smallest file takes on a disk."""


class _File(NamedTuple):
    written: float  # seconds since 1970
    size: int


class Past:
    """The folder of files that are kept. Methods block: they are for a thread, or the start."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._clock = clock
        self._files: dict[int, _File] = {}  # by number, the oldest first
        self._bytes = 0

    def begin(self) -> None:
        """Find out what earlier runs have kept; nothing is changed. Raises OSError."""
        self._files.clear()
        self._bytes = 0
        with contextlib.suppress(FileNotFoundError):
            for number in segments.numbers(self._folder):
                if number <= segments.LAST:
                    self._add(number)

    @property
    def last(self) -> int:
        """The number of the latest file; 0 where there is none."""
        return max(self._files, default=0)

    def keep(self, path: Path, number: int) -> None:
        """Move a segment's file here; one without transactions, or that cannot be moved, is deleted. Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            if not records.has_transactions(segments.beginning(path)):
                path.unlink()
                return
            try:
                self._folder.mkdir(mode=0o750, exist_ok=True)
                path.replace(self._path(number))
            except OSError:
                path.unlink()
                return
            self._add(number)
            self.prune()

    def copy(self, path: Path, number: int) -> None:
        """Give a segment's file a second name here, if it has transactions: the first is about to be replaced.

        Not every file system can: then the memo of a later run lacks them.
        """
        with contextlib.suppress(OSError):
            if records.has_transactions(segments.beginning(path)):
                self._folder.mkdir(mode=0o750, exist_ok=True)
                self._path(number).hardlink_to(path)
                self._add(number)

    def read(self, at_most: int, but: Container[int]) -> list[Recovered]:
        """The latest files that hold so many records, without some numbers; what cannot be read is left out."""
        found: list[Recovered] = []
        for number in sorted(self._files, reverse=True):
            if at_most > 0 and number not in but:
                with contextlib.suppress(OSError, JournalError):
                    segment = segments.read(self._path(number))
                    segment.records, _ = records.sound(segment.records)
                    at_most -= len(segment.records)
                    found.append(segment)
        return found

    def _path(self, number: int) -> Path:
        return self._folder / f"{number}.segment"

    def clear(self) -> None:
        """Delete everything: the disk is full, and counts come first."""
        while self._files:
            self._delete_first()

    def _add(self, number: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            status = self._path(number).stat()
            size = -(-status.st_size // BLOCK) * BLOCK
            if number not in self._files:
                self._files[number] = _File(status.st_mtime, size)
                self._bytes += size

    def prune(self) -> None:
        """Delete what is too old or too much."""
        oldest = self._clock() - KEPT_S
        while self._files and (self._bytes > MAX_BYTES or next(iter(self._files.values())).written < oldest):
            self._delete_first()

    def _delete_first(self) -> None:
        number = next(iter(self._files))
        self._bytes -= self._files.pop(number).size
        with contextlib.suppress(OSError):  # found again by the next start
            self._path(number).unlink()
