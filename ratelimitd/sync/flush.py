"""The flush: what is charged goes from memory and journal into the store, exactly once.

The journal is rotated; one transaction stores the deltas of the closed segments and the number of the last of them;
then the segments are forgotten and deleted. A segment that the store has recorded is never stored again, so a flush
whose outcome is unknown is simply done again. What a killed run has left is deleted ASKED_AGAIN_S later: Postfix asks
again about what was charged and not answered, and this run may be killed as well before it does.

While the store is away segments accumulate: at most MAX_CLOSED, then they become one of totals. So memory and disk
hold one delta per account and segment, and of the latest MAX_CLOSED + 1 segments every charge (some 150 bytes each).
Segments of earlier runs, and those whose storing is in doubt, are left as they are.
"""

import math
from collections.abc import Iterator
from itertools import groupby
from operator import attrgetter

import trio

from ratelimitd.core.pending import Pending, Segment, joined, merge
from ratelimitd.core.rows import Delta
from ratelimitd.errors import NotStored, StartError
from ratelimitd.log.log import Log
from ratelimitd.state.directory import StateDir
from ratelimitd.state.journal import Journal
from ratelimitd.stores.link import UNAVAILABLE, StoreLink
from ratelimitd.sync.loader import Loader
from ratelimitd.text import escape

FLUSH_TIMEOUT_S = 30.0
ASKED_AGAIN_S = 60.0
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
        self._first = 0  # of this run's segments
        self._asked_again_until = -math.inf  # about the segments before
        self._doubtful = 0  # segments up to this number may be stored, though nobody said so
        self._journal_failed = False

    def begin(self, number: int) -> None:
        """Begin this run's first segment."""
        self._first = number
        self._asked_again_until = trio.current_time() + ASKED_AGAIN_S
        self._doubtful = number - 1
        self._pending.begin(number, self._journal.node)
        self._journal.begin(number)
        self._note_journal()

    async def flush(self) -> bool:
        """Store what is not stored yet; whether nothing is left of it. Never raises."""
        await self._rotate()
        began = trio.current_time()
        try:
            with trio.fail_after(FLUSH_TIMEOUT_S):
                await self._link.open()
                if not self._link.up:
                    await self._link.store.recorded(self._journal.node)
                await self._store_closed()
        except UNAVAILABLE as error:
            self._link.failed(error)
            await self._mend()
            return False
        self.done_at = trio.current_time()
        self.seconds = self.done_at - began
        if self._link.succeeded():
            await self._loader.ask_again()
        return True

    # -- the journal -----------------------------------------------------------------------------------------------

    async def _rotate(self) -> None:
        pending, journal = self._pending, self._journal
        if pending.open.deltas:
            closed = pending.open
            fd = journal.rotate()
            pending.close(journal.number)
            closed.unwritten = True
            if fd >= 0:
                with trio.CancelScope(shield=True):
                    closed.unwritten = not await trio.to_thread.run_sync(journal.settle, fd)
        elif not journal.writable:
            journal.begin(journal.number + 1)
            pending.begin(journal.number, journal.node)
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

    async def _mend(self) -> None:
        """While the store is away: merge segments where they are many, and write what the journal lacks."""
        closed = self._pending.closed
        ours = [segment for segment in closed if segment.number > self._doubtful]
        if len(ours) > MAX_CLOSED:
            whole = await trio.to_thread.run_sync(joined, ours)
            self._pending.closed = [*closed[: -len(ours)], whole]
        for segment in self._pending.closed:
            if segment.unwritten:
                try:
                    await trio.to_thread.run_sync(
                        self._journal.rewrite, segment.first, segment.number, segment.deltas.items()
                    )
                except OSError as error:
                    self._log.debug("the journal cannot be rewritten", reason=error)
                    return
                segment.unwritten = False

    # -- the store -------------------------------------------------------------------------------------------------

    async def _store_closed(self) -> None:
        """One transaction for the closed segments of each run, the earliest run first."""
        while closed := self._pending.closed:
            node, segments = next(groupby(closed, attrgetter("node")))
            await self._store(node, list(segments))

    async def _store(self, node: str, segments: list[Segment]) -> None:
        """Store segments of one run; then they are forgotten, and deleted."""
        last = segments[-1].number
        certain = self._doubtful

        def deltas_after(recorded: int) -> Iterator[Delta]:
            nonlocal certain
            certain = max(self._first - 1, recorded if node == self._journal.node else 0)
            self._doubtful = max(certain, last)
            return merge(segments, recorded)

        try:
            stored = await self._link.store.flush(node, last, deltas_after)
        except NotStored:
            self._doubtful = certain
            raise
        self._pending.stored(last)
        self.count += 1
        self._set_aside(stored.rejected)
        await self._loader.take_over(stored.rows)
        first = self._first if trio.current_time() < self._asked_again_until else 0
        try:
            await trio.to_thread.run_sync(self._journal.delete, first, last)
        except OSError as error:  # it is recorded as stored: it will be deleted later
            self._log.warning("a stored segment cannot be deleted", folder=self._journal.folder, reason=error)

    def _set_aside(self, rejected: list[tuple[Delta, str]]) -> None:
        for delta, reason in rejected:
            self.rejected += 1
            self._log.error("the database refuses a record; it is set aside", **delta._asdict(), reason=reason)
        if rejected:
            lines = ["\t".join(escape(str(field)) for field in (*delta, reason)) for delta, reason in rejected]
            try:
                self._state.append("rejected.tsv", "\n".join(lines) + "\n")
            except StartError as error:
                self._log.error("a refused record cannot be kept", reason=error)
