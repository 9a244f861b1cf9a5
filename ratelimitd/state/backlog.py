"""The backlog: what is charged and not stored yet, in memory and in the journal's files, which are kept in step here.

Charges go to the open segment: Policy adds them to `Pending`, and the pump writes them to the `Journal`. A flush
closes it (`rotate`), stores what is closed, a transaction at a time (`next_run`, `deltas`), and forgets it (`stored`,
`put_away`). Where many accounts come in meanwhile, it is closed early (`divide`): a transaction takes memory by each.

While the store is unavailable segments accumulate: at most MAX_CLOSED, then they become one of totals (`condense`). So
memory and disk hold one delta per account and segment, and of the latest MAX_CLOSED + 1 segments every charge (some
150 bytes each). Segments of earlier runs, and those whose storing is in doubt, are left as they are.

The files of segments that are stored or merged are kept for a while (past.py): Postfix goes on with the transactions in
them, or asks again about what was charged and not answered, and this run may be killed before it does.
"""

import errno
import time
from collections import Counter as Multiset
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import trio

from ratelimitd.core.counters import Counter
from ratelimitd.core.pending import ACCOUNTS as ACCOUNTS
from ratelimitd.core.pending import Pending, Segment, first, joined, merge
from ratelimitd.core.rows import NO_SEGMENT, Account, Delta
from ratelimitd.errors import RunUnknown, StoreReplaced
from ratelimitd.state import records
from ratelimitd.state.journal import Journal, Progress
from ratelimitd.state.segments import Recovered

MAX_CLOSED = 16
"""Segments that may wait for the store before they are merged into one."""
ASIDE = "aside"
"""How the names of files end whose segments may be stored or not."""
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Unstored(NamedTuple):
    """Closed segments of one run, which one transaction stores."""

    node: str
    segments: Sequence[Segment]

    @property
    def last(self) -> int:
        """The number of the last segment: what the store records."""
        return self.segments[-1].number


class Backlog:
    """Pending segments and their files: at the start `read`, `begin` and `restore`, then a `rotate` for each flush.

    Methods raise only what they say.
    """

    def __init__(self, pending: Pending, journal: Journal, clock: Callable[[], float] = time.time) -> None:
        self._pending = pending
        self._journal = journal
        self._clock = clock
        self._first = 0  # of this run's segments
        self._doubtful = 0  # segments up to this number may be stored, though nobody said so
        self._certain = 0  # what _doubtful is again if the transaction of now is rolled back
        self._recorded = 0  # the last segment of this run that the store has
        self.every_window = False  # whether the store keeps those, too, that are over
        self._rotated = trio.Event()
        self._incomplete: set[int] = set()  # numbers of closed segments whose files lack some of them
        self._unsettled: dict[int, int] = {}  # descriptors of closed segments' files, by number
        self._settling = trio.Lock()
        self._last = 0  # the last segment that this flush stores

    # -- the journal -----------------------------------------------------------------------------------------------

    @property
    def node(self) -> str:
        """This run's id."""
        return self._journal.node

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return self._journal.folder

    @property
    def error(self) -> OSError | None:
        """Why the journal cannot be written; None where it can."""
        return self._journal.error

    @property
    def failures(self) -> int:
        """Charges that were not written to the journal."""
        return self._journal.failures

    @property
    def incomplete(self) -> frozenset[int]:
        """The numbers of closed segments that are complete in memory alone."""
        return frozenset(self._incomplete)

    @property
    def recorded(self) -> int:
        """The last segment of this run that the store has said it recorded; 0 for none."""
        return self._recorded

    @property
    def accounts(self) -> int:
        """Counts that are not stored yet, one per account and segment."""
        return len(self._pending)

    # -- the start -------------------------------------------------------------------------------------------------

    def read(self, progress: Progress | None = None) -> tuple[list[Recovered], int]:
        """What earlier runs have left, oldest first, and the number of their last segment.

        Raises JournalError for a file that is foreign or of another version, before anything is changed; OSError.
        """
        found = self._journal.recover(progress)
        self._journal.past.begin()
        return found, max(self._journal.past.last, *self._journal.numbers(), 0)

    def restore(self, segment: Recovered, deltas: dict[Counter, int]) -> None:
        """Take in what an earlier run has left and the store may lack. The oldest comes first."""
        self._pending.restore(Segment(segment.number, segment.node, deltas, segment.first))

    def keep_only(self, segments: Iterable[Recovered], last: int) -> None:
        """Put away the files up to a number that are none of these: nothing in them is to be stored."""
        self._journal.forget(last, {segment.number for segment in segments})

    def transactions(self, segments: Sequence[Recovered], at_most: int) -> list[Recovered]:
        """These segments, and the latest that are kept though they are stored or merged: with so many records."""
        with_transactions = {
            one.number for one in segments if any(records.has_transactions(record[0]) for record in one.records)
        }
        # Both names may be there, of a file that was to be merged.
        kept = self._journal.past.read(at_most, with_transactions)
        return sorted([*kept, *segments], key=attrgetter("number"))

    def keep_aside(self, segment: Recovered | Segment, why: str = "damaged") -> Path:
        """Keep a segment's file under another name, which ends as `why` says: it will be put away. Raises OSError."""
        return self._journal.keep_aside(segment, why)

    def begin(self, number: int) -> None:
        """Begin this run's first segment."""
        self._first = number
        self._doubtful = number - 1
        self._open(number)

    def _open(self, number: int) -> None:
        self._journal.begin(number)
        self._pending.begin(number, self._journal.node)

    async def keep_ahead(self) -> None:
        """Have the next segment laid out before it is needed, and closed ones settled; runs as long as the daemon."""
        while True:
            self._rotated = trio.Event()
            if (lay_out := self._journal.plan()) is not None:
                with trio.CancelScope(shield=True):
                    self._journal.take(await trio.to_thread.run_sync(lay_out))
            await self._settle()
            await self._rotated.wait()

    # -- segments --------------------------------------------------------------------------------------------------

    async def rotate(self) -> None:
        """Close the open segment where it holds charges; where the journal cannot be written, try again."""
        if self._pending.open.deltas:
            self._close_open()
        elif not self._journal.writable:
            self._open(self._journal.next_number)
        self._rotated.set()
        self._last = self._pending.open.number - 1
        await self._settle()
        if self._journal.error is not None and self._journal.error.errno in _FULL:
            await trio.to_thread.run_sync(self._journal.past.clear)

    def divide(self) -> None:
        """Close the open segment where it is large, for the next flush; not before the next one is laid out."""
        pending, ahead = self._pending, self._journal.ahead
        if len(pending.open.deltas) >= ACCOUNTS and len(pending.closed) < 4 * MAX_CLOSED and ahead is not None:
            self._close_open()
            self._rotated.set()

    def _close_open(self) -> None:
        closed = self._pending.open
        descriptor = self._journal.rotate()
        self._pending.close(self._journal.number)
        self._incomplete.add(closed.number)
        if descriptor >= 0:
            self._unsettled[closed.number] = descriptor

    async def _settle(self) -> None:
        with trio.CancelScope(shield=True):
            async with self._settling:
                while self._unsettled:
                    number, descriptor = self._unsettled.popitem()
                    if await trio.to_thread.run_sync(self._journal.settle, descriptor):
                        self._incomplete.discard(number)

    async def condense(self) -> None:
        """Merge segments where they are many, and write what the files lack. Raises OSError where that fails."""
        await self._settle()
        ours = [segment for segment in self._pending.closed if segment.number > self._doubtful]
        if len(ours) > MAX_CLOSED:
            merged = partial(joined, ours, int(self._clock()), every=self.every_window)
            whole = await trio.to_thread.run_sync(merged)
            self._pending.merged(ours, whole)
            self._incomplete.difference_update(segment.number for segment in ours)
            self._incomplete.add(whole.number)
        for segment in self._pending.closed:
            if segment.number in self._incomplete:
                await trio.to_thread.run_sync(
                    self._journal.rewrite, segment.first, segment.number, segment.deltas.items()
                )
                self._incomplete.discard(segment.number)

    # -- storing ---------------------------------------------------------------------------------------------------

    def next_run(self) -> Unstored | None:
        """Closed segments for a transaction, none that was closed since `rotate`; None where none is left."""
        self._certain = self._doubtful
        if not (segments := self._pending.earliest(self._last)):
            return None
        node = segments[0].node
        # Of an earlier run it is all: what the store has recorded of it must be among them.
        return Unstored(node, first(segments, ACCOUNTS) if node == self.node else segments)

    def deltas(self, unstored: Unstored, recorded: int) -> Iterator[Delta]:
        """What the store lacks of these segments: it has recorded that it has those up to a number.

        It is in doubt from now on whether they are stored, until `stored` or `not_stored` is called. Raises
        StoreReplaced where it has recorded of this run what cannot be, RunUnknown where that is so of an earlier one.
        """
        ours = unstored.node == self._journal.node
        if self.believed(unstored.node, recorded) != recorded:
            lost = recorded < self._recorded
            raise StoreReplaced(f"it {'lacks what' if lost else 'records more than'} this daemon has stored in it")
        if not ours and recorded > unstored.last:
            raise RunUnknown(unknown(recorded, unstored.last))
        self._certain = max(self._first - 1, recorded if ours else 0)
        self._doubtful = max(self._certain, unstored.last)
        return merge(unstored.segments, recorded, int(self._clock()))

    def believed(self, run: str, recorded: int) -> int:
        """The last stored segment of a run, where the store says so: of this run it is believed only what can be."""
        if run != self._journal.node or recorded == self._recorded:
            return recorded
        in_doubt = max(self._recorded, self._first - 1) < recorded <= self._doubtful
        return recorded if in_doubt else self._recorded

    def not_stored(self) -> None:
        """Note that the store rolled the transaction back."""
        self._doubtful = self._certain

    def stored(self, unstored: Unstored) -> None:
        """Forget segments in memory: the store has them."""
        self._pending.stored(unstored.last)
        if unstored.node == self._journal.node:
            self._recorded = unstored.last
        self._incomplete = {number for number in self._incomplete if number > unstored.last}

    async def set_aside(self, unstored: Unstored) -> None:
        """Keep the files of an earlier run's segments aside, and forget them: they may be stored or not.

        Raises OSError, and has forgotten them: the next start finds the files where they are.
        """
        self._pending.stored(unstored.last)
        for segment in unstored.segments:
            await trio.to_thread.run_sync(self._journal.keep_aside, segment, ASIDE)
        await self.put_away(unstored)

    async def put_away(self, unstored: Unstored) -> None:
        """Put away the files of segments that the store has. Raises OSError; it will be done later then."""
        await trio.to_thread.run_sync(self._journal.put_away, 0, unstored.last)

    def unwritten(self) -> dict[Account, int]:
        """What is neither stored nor in the journal's files, recipients by account. It blocks."""
        lost: Multiset[Account] = Multiset()
        for segment in (*self._pending.closed, self._pending.open):
            is_open = segment is self._pending.open
            if segment.number in self._incomplete or (is_open and segment.deltas and not self._journal.writable):
                written = self._journal.written(segment.first, segment.number)
                for counter, recipients in segment.deltas.items():
                    missing = recipients - written[counter.window]
                    if missing > 0:
                        lost[Account(counter.limit.name, counter.key)] += missing
        return lost

    def close(self) -> None:
        """Close the open segment's file."""
        self._journal.close()


def unknown(recorded: int, last: int) -> str:
    """Why nobody can know which of a run's segments are stored, the last of which is here: for the log."""
    what = f"segment {recorded}" if recorded < NO_SEGMENT else "no number"
    return f"the database records {what} as the last one stored, the last one here is {last}"
