"""The flush: what is charged goes from memory and journal into the store, exactly once.

The journal is rotated; one transaction stores the deltas of the closed segments and the number of the last of them;
then the segments are forgotten and deleted. A segment that the store has recorded is never stored again, so a flush
whose outcome is unknown is simply done again. While the store is away segments accumulate, and are merged.
"""

import math
from collections.abc import Iterator
from functools import partial

import trio

from ratelimitd.counters import Counter, Pending, Segment, merge
from ratelimitd.errors import NodeConflict, StartError
from ratelimitd.journal import Journal
from ratelimitd.link import AWAY, StoreLink
from ratelimitd.loader import Loader
from ratelimitd.logs import Log
from ratelimitd.rows import Delta
from ratelimitd.state import StateDir
from ratelimitd.stores import Flushed

FLUSH_TIMEOUT_S = 30.0
MAX_CLOSED = 16
"""Segments that may wait for the store before they are merged into one."""


class Flush:
    """Stores what is pending: `flush`. `count` flushes were done, the last in `seconds`; `rejected` records refused."""

    def __init__(
        self, link: StoreLink, loader: Loader, pending: Pending, journal: Journal, state: StateDir, log: Log
    ) -> None:
        self.count = self.rejected = 0
        self.seconds = 0.0
        self.done_at = -math.inf  # on trio's clock: the last time that nothing was left to store
        self._link = link
        self._loader = loader
        self._pending = pending
        self._journal = journal
        self._state = state
        self._log = log
        self._first_number = 0  # of this run's segments
        self._attempted: set[int] = set()
        self._incomplete: set[int] = set()  # closed segments that the journal lacks records of
        self._journal_failed = False

    def begin(self, number: int) -> None:
        """Begin this run's first segment."""
        self._first_number = number
        self._pending.open.number = number
        self._journal.begin(number)
        self._note_journal()

    async def flush(self) -> bool:
        """Store what is not stored yet; whether nothing is left of it. Never raises."""
        await self._rotate()
        began = trio.current_time()
        try:
            with trio.fail_after(FLUSH_TIMEOUT_S):
                await self._link.open()
                stored = await self._store_closed()
        except AWAY as error:
            self._link.failed(error)
            await self._mend()
            return False
        except NodeConflict:
            await self._become_another_node()
            return False
        self.done_at = trio.current_time()
        self.seconds = self.done_at - began
        returned = self._link.succeeded()
        await self._loader.take_over(stored.rows)
        if returned:
            await self._loader.ask_again()
        return True

    async def _rotate(self) -> None:
        pending, journal = self._pending, self._journal
        if not pending.open.deltas:
            if journal.error is not None:
                journal.begin(journal.number)
                self._note_journal()
            return
        number, fd = journal.rotate()
        pending.close(journal.number)
        if fd < 0:
            self._incomplete.add(number)
        else:
            await trio.to_thread.run_sync(journal.settle, fd)
        self._note_journal()

    def _note_journal(self) -> None:
        failed = self._journal.error is not None
        if failed and not self._journal_failed:
            self._log.error(
                "the journal cannot be written; counting in memory until it can",
                folder=self._journal.folder,
                reason=self._journal.error,
            )
        elif self._journal_failed and not failed:
            self._log.warning("the journal is written again", unwritten=self._journal.failures)
        self._journal_failed = failed

    async def _store_closed(self) -> Flushed:
        """One transaction for all closed segments; then they are forgotten, and deleted."""
        segments = list(self._pending.closed)
        if not segments:
            if not self._link.up:
                await self._link.store.recorded(self._journal.node)
            return Flushed([], [])
        last = segments[-1].number

        def deltas_after(recorded: int) -> Iterator[Delta]:
            if recorded >= self._first_number and recorded not in self._attempted:
                raise NodeConflict
            return merge(segments, recorded)

        try:
            stored = await self._link.store.flush(self._journal.node, last, deltas_after)
        finally:
            self._attempted.add(last)
        self._attempted = {last}
        self._pending.stored(last)
        self._incomplete = {number for number in self._incomplete if number > last}
        self.count += 1
        self._set_aside(stored.rejected)
        try:
            await trio.to_thread.run_sync(self._journal.delete, last)
        except OSError as error:  # it is recorded as stored: it will be deleted later
            self._log.warning("a stored segment cannot be deleted", folder=self._journal.folder, reason=error)
        return stored

    def _set_aside(self, rejected: list[tuple[Delta, str]]) -> None:
        for delta, reason in rejected:
            self.rejected += 1
            self._log.error("the database refuses a record; it is set aside", **delta._asdict(), reason=reason)
        if rejected:
            text = "".join(f"{'	'.join(map(str, delta))}\t{reason}\n" for delta, reason in rejected)
            try:
                self._state.append("rejected.tsv", text)
            except StartError as error:
                self._log.error("a refused record cannot be kept", reason=error)

    async def _mend(self) -> None:
        """While the store is away: write what the journal lacks, and merge segments where they are many."""
        closed = self._pending.closed
        try:
            if len(closed) > MAX_CLOSED:
                first, last = closed[0].number, closed[-1].number
                merged = await trio.to_thread.run_sync(_merged, list(closed))
                await self._rewrite(first, last, merged)
                self._pending.closed = [Segment(last, merged)]
            else:
                for segment in closed:
                    if segment.number in self._incomplete:
                        await self._rewrite(segment.number, segment.number, segment.deltas)
        except OSError as error:
            self._log.debug("the journal cannot be rewritten", reason=error)

    async def _rewrite(self, first: int, last: int, deltas: dict[Counter, int]) -> None:
        await trio.to_thread.run_sync(partial(self._journal.rewrite, first, last, deltas.items()))
        self._incomplete = {number for number in self._incomplete if not first <= number <= last}

    async def _become_another_node(self) -> None:
        self._log.error(
            "another daemon stores under this node's id (is state_dir a copy?); taking a new one",
            node=self._journal.node,
        )
        try:
            self._journal.node = self._state.new_node()
        except StartError as error:
            self._log.error("no new id can be kept", reason=error)
            return
        await self._rotate()
        for segment in self._pending.closed:
            self._incomplete.add(segment.number)
        await self._mend()


def _merged(segments: list[Segment]) -> dict[Counter, int]:
    total: dict[Counter, int] = {}
    for segment in segments:
        for counter, recipients in segment.deltas.items():
            total[counter] = total.get(counter, 0) + recipients
    return total
