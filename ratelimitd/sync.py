"""Between memory, journal and store: looks up accounts, flushes, takes over what others changed, forgets what ended.

Nothing here is in the way of a reply but the one lookup of an account that is not in memory, and that is bounded by
`store.timeout_s`. While the store is away even that is left out, and segments accumulate.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeVar

import trio

from ratelimitd.counters import Counter, Knowledge, Pending, Segment, Table, merge
from ratelimitd.errors import NodeConflict, StartError, StoreError
from ratelimitd.journal import Journal
from ratelimitd.logs import Log
from ratelimitd.policy import Policy
from ratelimitd.rows import Account, Delta, Row
from ratelimitd.server import Pump
from ratelimitd.state import StateDir
from ratelimitd.stores import Flushed, Store

FLUSH_TIMEOUT_S = 30.0
SWEEP_INTERVAL_S = 60.0
MEMO_AGE_S = 1800.0
"""A transaction that nobody asked about for twice this long is forgotten."""
SLICE = 500
"""Accounts per turn where many are walked: a millisecond or less."""
MAX_CLOSED = 16
"""Segments that may wait for the store before they are merged into one."""

T = TypeVar("T")


class Sync:
    """Keeps memory and store in step. `store_up` is what the last operation said."""

    def __init__(
        self,
        store: Store,
        policy: Policy,
        journal: Journal,
        state: StateDir,
        log: Log,
        *,
        timeout_s: float = 1.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.store = store
        self.store_up = False
        self.flushes = self.flush_failures = self.rejected = 0
        self.flush_s = 0.0
        self._policy = policy
        self._pending: Pending = policy.pending
        self._journal = journal
        self._state = state
        self._log = log
        self._timeout_s = timeout_s
        self._clock = clock
        self._opened = False
        self._cursor = ""
        self._first_number = 0  # of this run's segments
        self._attempted: set[int] = set()
        self._incomplete: set[int] = set()  # closed segments that the journal lacks records of
        self._journal_failed = False
        self._lock = trio.Lock()

    def _table(self, name: str) -> Table | None:
        return next((table for table in self._policy.tables if table.limit.name == name), None)

    # -- start ---------------------------------------------------------------------------------------------------

    async def begin(self, last_segment: int) -> int:
        """Open the store if it can be had, begin this run's first segment; the last one that is stored."""
        recorded = 0
        try:
            with trio.fail_after(max(self._timeout_s, 5.0)):
                await self._open()
                recorded = await self.store.recorded(self._journal.node)
            self.store_up = True
        except (StoreError, trio.TooSlowError) as error:
            self._log.error("the store is away; counting in memory and journal until it is back", reason=_why(error))
        self._first_number = max(last_segment, recorded) + 1
        self._pending.open.number = self._first_number
        self._journal.begin(self._first_number)
        self._note_journal()
        return recorded

    async def _open(self) -> None:
        if not self._opened:
            await self.store.open()
            self._opened = True
            self._cursor = (await self.store.changes("")).cursor

    def _up(self) -> None:
        if not self.store_up:
            self.store_up = True
            self._log.warning("the store is back", store=self.store.name)

    def _down(self, error: BaseException) -> None:
        self.flush_failures += 1
        if self.store_up:
            self.store_up = False
            self._log.error("the store is away; counting in memory and journal until it is back", reason=_why(error))

    # -- accounts that are not in memory ---------------------------------------------------------------------------

    async def load(self, pump: Pump) -> None:
        """Look up the accounts of parked requests, all that wait in one query, and resume them."""
        while True:
            await pump.parked_some.wait()
            parked = pump.take_parked()
            now = int(self._clock())
            missing = {Account(t.limit.name, key) for p in parked for t, key in self._policy.missing(p.keys, now)}
            rows = await self._lookup(sorted(missing)) if missing and self.store_up else None
            if rows is not None:
                self._install(missing, rows)
            pump.resume(parked)

    async def _lookup(self, accounts: list[Account]) -> list[Row] | None:
        try:
            with trio.fail_after(self._timeout_s):
                return await self.store.lookup(accounts)
        except (StoreError, trio.TooSlowError) as error:
            self._down(error)
            return None

    def _install(self, accounts: Iterable[Account], rows: Iterable[Row]) -> None:
        now = int(self._clock())
        by_account = {Account(row.limit, row.key): row for row in rows}
        for account in accounts:
            table = self._table(account.limit)
            if table is not None and table.find(account.key, now) is None:  # else a flush was faster
                table.accept(account.key, by_account.get(account), self._pending_of(table, account.key), now)

    def _pending_of(self, table: Table, key: str) -> int:
        counter = table.counters.get(key)
        return self._pending.of(counter) if counter is not None else 0

    # -- the flush -------------------------------------------------------------------------------------------------

    async def keep(self, flush_interval_s: float, refresh_s: float) -> None:
        """The periodic task: flush, take over changes, forget what ended."""
        refreshed = swept = aged = trio.current_time()
        while True:
            await trio.sleep(flush_interval_s)
            await self.flush()
            now = trio.current_time()
            if now - refreshed >= refresh_s - flush_interval_s:
                refreshed = now
                await self.refresh()
            if now - swept >= SWEEP_INTERVAL_S:
                swept = now
                await self.sweep()
            if now - aged >= MEMO_AGE_S:
                aged = now
                self._policy.charges.age()

    async def flush(self) -> bool:
        """Store what is not stored yet; whether nothing is left of it. Never raises."""
        async with self._lock:
            await self._rotate()
            began = trio.current_time()
            try:
                with trio.fail_after(FLUSH_TIMEOUT_S):
                    await self._open()
                    stored = await self._store_closed()
            except (StoreError, trio.TooSlowError) as error:
                self._down(error)
                await self._mend()
                return False
            except NodeConflict:
                await self._become_another_node()
                return False
            self.flush_s = trio.current_time() - began
            returned = not self.store_up
            self._up()
            await self._take_over(stored.rows)
            if returned:
                await self._ask_again()
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
            if not self.store_up:
                await self.store.recorded(self._journal.node)
            return Flushed([], [])
        last = segments[-1].number

        def deltas_after(recorded: int) -> list[Delta]:
            if recorded >= self._first_number and recorded not in self._attempted:
                raise NodeConflict
            return sorted(merge(segments, recorded))

        try:
            stored = await self.store.flush(self._journal.node, last, deltas_after)
        finally:
            self._attempted.add(last)
        self._attempted = {last}
        self._pending.stored(last)
        self._incomplete = {number for number in self._incomplete if number > last}
        self.flushes += 1
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

    async def _take_over(self, rows: list[Row]) -> None:
        for chunk in _slices(rows):
            now = int(self._clock())
            for row in chunk:
                table = self._table(row.limit)
                counter = table.counters.get(row.key) if table is not None else None
                if table is not None and counter is not None:
                    table.accept(row.key, row, self._pending.of(counter), now)
            await trio.lowlevel.checkpoint()

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

    # -- the rest --------------------------------------------------------------------------------------------------

    async def refresh(self) -> None:
        """Take over what others changed in the store: an administrator's quota, another node's count."""
        if not self.store_up:
            return
        async with self._lock:
            try:
                with trio.fail_after(FLUSH_TIMEOUT_S):
                    changes = await self.store.changes(self._cursor)
            except (StoreError, trio.TooSlowError) as error:
                self._down(error)
                return
            self._cursor = changes.cursor
            await self._take_over(changes.rows)

    async def sweep(self) -> None:
        """Forget accounts whose window is over and stored."""
        for table in self._policy.tables:
            for keys in _slices(list(table.counters)):
                table.drop_ended(keys, int(self._clock()), self._pending)
                await trio.lowlevel.checkpoint()

    async def _ask_again(self) -> None:
        """Accounts that were assumed while the store was away are to be looked up at their next mail."""
        for table in self._policy.tables:
            for counters in _slices(list(table.counters.values())):
                for counter in counters:
                    if counter.knowledge == Knowledge.ASSUMED:
                        counter.knowledge = Knowledge.UNREAD
                await trio.lowlevel.checkpoint()

    async def finish(self) -> None:
        """The last flush, and the end of journal and store."""
        if not await self.flush() and self._pending.closed:
            self._log.warning("stopping with counts that are in the journal only", accounts=len(self._pending))
        self._journal.close()
        await self.store.close()


def _merged(segments: list[Segment]) -> dict[Counter, int]:
    total: dict[Counter, int] = {}
    for segment in segments:
        for counter, recipients in segment.deltas.items():
            total[counter] = total.get(counter, 0) + recipients
    return total


def _slices(items: list[T]) -> Iterator[list[T]]:
    for start in range(0, len(items), SLICE):
        yield items[start : start + SLICE]


def _why(error: BaseException) -> str:
    return "no answer in time" if isinstance(error, trio.TooSlowError) else str(error)
