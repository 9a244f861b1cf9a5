"""The journal: every charge is in an append-only file before its reply is sent.

The files are segments (segments.py) in `state_dir/journal`; one is written to, the next one may be laid out already
(ahead.py), the others are closed and wait for the store. When a write fails (disk full, I/O error) its charges are
counted as failures; they stay in memory, and `rotate` tries again with the next file.

What survives with each `journal_sync`:

    never   all charges, whatever signal ends the process: the kernel has them
    flush   and a power cut, except for what was charged since the last flush
    always  and a power cut at any time: each batch is on the disk before its replies are sent
"""

import contextlib
import os
from collections import Counter as Multiset
from collections.abc import Callable, Container, Iterable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from ratelimitd.core.counters import Counter, Window
from ratelimitd.core.pending import Segment
from ratelimitd.core.verdict import Charge
from ratelimitd.errors import JournalError
from ratelimitd.settings import JournalSync
from ratelimitd.state import records, segments
from ratelimitd.state.ahead import SegmentFile, discard, lay_out
from ratelimitd.state.past import Past
from ratelimitd.state.segments import Recovered

Progress = Callable[[int, int], None]
"""Called with the bytes that are read, and of how many."""

_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_FILE_MODE = 0o640
_FOLDER_MODE = 0o750
_TOTALS_PER_FRAME = 1000


class Journal:
    """The segments of one run of the daemon. `write`, `rotate` and `settle` never raise.

    `node` is the run's own id, which the store records with segment numbers: so copied or restored state directories
    never take each other's segments for their own. `failures` counts the charges that could not be written; `error`
    says why, None while the journal can be written. `ahead`: the next segment, where it is laid out. `sync` is the
    setting `journal_sync`; it may be changed.
    """

    def __init__(self, folder: Path, node: str, sync: JournalSync) -> None:
        self.folder = folder
        self.node = node
        self.failures = 0
        self.error: OSError | None = None
        self.number = 0
        self.past = Past(folder / "past")
        self._open: SegmentFile | None = None
        self.ahead: SegmentFile | None = None
        self._used = 0  # bytes in the last segment that was rotated
        self._planned = 0  # the number of the last segment that was to be laid out
        self._closed: dict[int, SegmentFile] = {}  # rotated, by file descriptor
        self._writer = records.Writer()
        self.configure(sync)

    def configure(self, sync: JournalSync) -> None:
        """Take `journal_sync`; at any time."""
        self._sync = sync

    # -- writing -------------------------------------------------------------------------------------------------

    @property
    def writable(self) -> bool:
        """Whether charges go to a file now."""
        return self._open is not None

    @property
    def size(self) -> int:
        """Bytes in the open segment."""
        return self._open.size if self._open is not None else 0

    def write(self, charges: Sequence[Charge]) -> None:
        """Append a batch: one frame, one write, before any of its replies is sent."""
        file = self._open
        if file is None:
            self.failures += len(charges)
            return
        frame, whole = segments.frame(self._writer.records(charges)), file.size
        try:
            file.append(frame)
            if self._sync == "always":
                os.fdatasync(file.fd)
        except OSError as error:
            self.failures += len(charges)
            self.error = error
            self._open = None
            with contextlib.suppress(OSError):
                file.size = whole
                file.cut()  # no frame may follow a torn one
            with contextlib.suppress(OSError):
                os.close(file.fd)

    def rotate(self) -> int:
        """Begin the next segment; the closed one's file descriptor for `settle`, -1 where it is incomplete."""
        closed, ahead, self.ahead = self._open, self.ahead, None
        if closed is not None:
            self._closed[closed.fd], self._used = closed, closed.size
        if ahead is not None and ahead.number > self.number and ahead.is_there:
            self.number, self._open, self.error = ahead.number, ahead, None
        else:
            discard(ahead, self._path)
            self.begin(self.next_number)
        return -1 if closed is None else closed.fd

    @property
    def next_number(self) -> int:
        """The number that the next segment has, unless it is laid out already."""
        return max(self.number, self._planned) + 1

    def plan(self) -> Callable[[], SegmentFile | None] | None:
        """What lays out the next segment, in a thread, for `take`; None where there is nothing to do.

        With `journal_sync` "always" each write waits for the disk in any case.
        """
        if self._open is None or self.ahead is not None or self._sync == "always":
            return None
        self._planned = number = self.next_number
        used = max(self._open.size, self._used)  # the open one has just begun, as a rule
        return partial(lay_out, self._create, self._path(number), number, segments.header(self.node, number), used)

    def take(self, ahead: SegmentFile | None) -> None:
        """Have a segment that was laid out be the next one, unless another one has begun meanwhile."""
        if ahead is not None and ahead.number > self.number:
            self.ahead = ahead
        else:
            discard(ahead, self._path)

    def begin(self, number: int) -> None:
        """Write to a new segment from now on."""
        self.number = number
        self._open = None
        header = segments.header(self.node, number)
        try:
            fd = self._create(self._path(number))
            try:
                file = SegmentFile(number, fd, header)
                if self._sync == "always":
                    self._sync_folder()
            except OSError:
                os.close(fd)
                self._path(number).unlink(missing_ok=True)
                raise
        except OSError as error:
            self.error = error
            return
        self._open, self.error = file, None

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
            file = self._closed.pop(fd, None)
            try:
                if file is not None:
                    file.cut()
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
        discard(self.ahead, self._path)
        file, self._open, self.ahead = self._open, None, None
        if file is None:
            return
        self._closed[file.fd] = file
        self.settle(file.fd)
        if file.size == len(segments.header(self.node, self.number)):
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
