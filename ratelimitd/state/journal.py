"""The journal: every charge is in an append-only file before its reply is sent.

The files are segments (segments.py) in `state_dir/journal`; one is written to, the others are closed and wait for the
store. When a write fails (disk full, I/O error) its charges are counted as failures; they stay in memory, and `rotate`
tries again with the next file.

What survives with each `journal_sync`:

    never   all charges, whatever signal ends the process: the kernel has them
    flush   and a power cut, except for what was charged since the last flush
    always  and a power cut at any time: each batch is on the disk before its replies are sent
"""

import contextlib
import errno
import os
from collections import Counter as Multiset
from collections.abc import Callable, Container, Iterable, Sequence
from itertools import islice
from pathlib import Path

from ratelimitd.core.counters import Counter, Window
from ratelimitd.core.pending import Segment
from ratelimitd.core.verdict import Charge
from ratelimitd.errors import JournalError
from ratelimitd.settings import JournalSync
from ratelimitd.state import records, segments
from ratelimitd.state.past import Past
from ratelimitd.state.segments import Recovered

Progress = Callable[[int, int], None]
"""Called with the bytes that are read, and of how many."""

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
_FILE_MODE = 0o640
_FOLDER_MODE = 0o750
_TOTALS_PER_FRAME = 1000


class Journal:
    """The segments of one run of the daemon. `write`, `rotate` and `settle` never raise.

    `node` is the run's own id, which the store records with segment numbers: so copied or restored state directories
    never take each other's segments for their own. `failures` counts the charges that could not be written; `error`
    says why, None while the journal can be written. `sync` is the setting `journal_sync`; it may be changed.
    """

    def __init__(self, folder: Path, node: str, sync: JournalSync) -> None:
        self.folder = folder
        self.node = node
        self.failures = 0
        self.error: OSError | None = None
        self.number = 0
        self.past = Past(folder / "past")
        self._fd = -1
        self._size = 0
        self._writer = records.Writer()
        self.configure(sync)

    def configure(self, sync: JournalSync) -> None:
        """Take `journal_sync`; at any time."""
        self._sync = sync

    # -- writing -------------------------------------------------------------------------------------------------

    @property
    def writable(self) -> bool:
        """Whether charges go to a file now."""
        return self._fd >= 0

    @property
    def size(self) -> int:
        """Bytes in the open segment."""
        return self._size

    def write(self, charges: Sequence[Charge]) -> None:
        """Append a batch: one frame, one write, before any of its replies is sent."""
        if self._fd < 0:
            self.failures += len(charges)
            return
        frame = segments.frame(self._writer.records(charges))
        try:
            _write(self._fd, frame)
            if self._sync == "always":
                os.fdatasync(self._fd)
        except OSError as error:
            self._fail(error, len(charges))
            return
        self._size += len(frame)

    def _fail(self, error: OSError, charges: int) -> None:
        self.failures += charges
        self.error = error
        fd, self._fd = self._fd, -1
        with contextlib.suppress(OSError):
            os.ftruncate(fd, self._size)  # no frame may follow a torn one
        with contextlib.suppress(OSError):
            os.close(fd)

    def rotate(self) -> int:
        """Begin the next segment; the closed one's file descriptor for `settle`, -1 where it is incomplete."""
        fd = self._fd
        self.begin(self.number + 1)
        return fd

    def begin(self, number: int) -> None:
        """Write to a new segment from now on."""
        self.number = number
        self._fd = -1
        self._size = 0
        header = segments.header(self.node, number)
        try:
            fd = self._create(self._path(number))
            try:
                _write(fd, header)
                if self._sync == "always":
                    self._sync_folder()
            except OSError:
                os.close(fd)
                self._path(number).unlink(missing_ok=True)
                raise
        except OSError as error:
            self.error = error
            return
        self._fd, self._size, self.error = fd, len(header), None

    def _create(self, path: Path) -> int:
        """A new file, in a new folder where somebody has removed the one that was there."""
        try:
            return os.open(path, _NEW_FILE, _FILE_MODE)
        except FileNotFoundError:
            self.folder.mkdir(mode=_FOLDER_MODE)
            return os.open(path, _NEW_FILE, _FILE_MODE)

    def settle(self, fd: int) -> bool:
        """Close a rotated segment, after syncing it to the disk where that is configured; whether it is whole there.

        It is not where somebody has removed it. It blocks: for a thread.
        """
        try:
            try:
                if self._sync != "never":
                    os.fdatasync(fd)
                    self._sync_folder()
                return os.fstat(fd).st_nlink > 0
            finally:
                os.close(fd)
        except OSError as error:
            self.error = error
            return False

    def rewrite(self, first: int, number: int, deltas: Iterable[tuple[Counter, int]]) -> None:
        """Replace the segments first..number by one of totals. It blocks: for a thread. Raises OSError.

        It may be killed at any step: the new file's header says which ones it replaces, and it counts once it has its
        name.
        """
        fresh = self.folder / f".{number}.new"
        try:
            with fresh.open("wb") as file:
                file.write(segments.header(self.node, first))
                totals = (records.total(counter, recipients) for counter, recipients in deltas)
                while batch := "".join(islice(totals, _TOTALS_PER_FRAME)):
                    file.write(segments.frame(batch))
                file.flush()
                if self._sync != "never":
                    os.fsync(file.fileno())
            self.past.copy(self._path(number), number)
            fresh.replace(self._path(number))
        except OSError:
            with contextlib.suppress(OSError):
                fresh.unlink()
            raise
        if self._sync != "never":
            self._sync_folder()
        self._put_away(first, number)

    def put_away(self, first: int, last: int) -> None:
        """Put away the segments first..last: they are stored. It blocks: for a thread. Raises OSError."""
        self._put_away(first, last + 1)

    def _put_away(self, first: int, before: int) -> None:
        for number in self.numbers():
            if first <= number < before:
                self.past.keep(self._path(number), number)

    def close(self) -> None:
        """Close the open segment; delete it where it holds nothing."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        self.settle(fd)
        if self._size == len(segments.header(self.node, self.number)):
            with contextlib.suppress(OSError):
                self._path(self.number).unlink()

    def _path(self, number: int) -> Path:
        return self.folder / f"{number}.segment"

    def _sync_folder(self) -> None:
        """Sync the names of files that were created, renamed or deleted."""
        fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    # -- reading -------------------------------------------------------------------------------------------------

    def numbers(self) -> list[int]:
        """The numbers of the segments that are there, ascending."""
        return segments.numbers(self.folder)

    def recover(self, progress: Progress | None = None) -> list[Recovered]:
        """Every segment that holds something, oldest first; nothing is changed.

        Raises JournalError for a file that is foreign or of another version, before anything is changed; OSError.
        """
        segments.check_names(self.folder)
        numbers = self.numbers()
        sizes = [self._path(number).stat().st_size for number in numbers]
        found: list[Recovered] = []
        for i, number in enumerate(numbers, 1):
            segment = segments.read(self._path(number))
            segment.records, others = records.sound(segment.records)
            segment.damaged += sum(len(record.encode()) + 1 for record in others)
            if segment.records or segment.damaged:
                found.append(segment)
            if progress is not None:
                progress(sum(sizes[:i]), sum(sizes))
        return [one for one in found if not any(other.first <= one.number < other.number for other in found)]

    def written(self, first: int, number: int) -> Multiset[Window]:
        """The recipients by window that can be read of the segments first..number. It blocks; never raises."""
        found: Multiset[Window] = Multiset()
        with contextlib.suppress(OSError, JournalError):
            for one in self.numbers():
                if first <= one <= number:
                    for end, times in records.ends(segments.read(self._path(one)).records).items():
                        recipients, windows = records.windows(end)
                        for window in windows:
                            found[window] += recipients * times
        return found

    def forget(self, upto: int, but: Container[int]) -> None:
        """Put away the segments up to a number, except some.

        They are replaced, empty, stored or kept aside: one that stays does no harm.
        """
        for number in self.numbers():
            if number <= upto and number not in but:
                with contextlib.suppress(OSError):
                    self.past.keep(self._path(number), number)
        self.past.prune()
        for left in self.folder.glob(".*.new"):  # of a `rewrite` that was killed
            with contextlib.suppress(OSError):
                left.unlink()

    def keep_aside(self, segment: Recovered | Segment, why: str = "damaged") -> Path:
        """Keep a segment's file under another name, which ends as `why` says: it will be put away. Raises OSError."""
        aside = self.folder / f"{segment.node[:8]}-{segment.number}.{why}"
        with contextlib.suppress(FileExistsError):
            os.link(self._path(segment.number), aside)
        return aside


def _write(fd: int, data: bytes) -> None:
    """Write it all. Raises OSError: after a short write, the next one says why."""
    written = os.write(fd, data)
    while written < len(data):
        more = os.write(fd, data[written:])
        if not more:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written += more
