"""From the store into memory: accounts that are looked up, and what others changed.

Nothing here is in the way of a reply but the one lookup of an account that is not in memory, and that is bounded by
`store.timeout_s`. While the store is away even that is left out.
"""

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping

import trio

from ratelimitd.core.counters import Counter, Knowledge, Meter
from ratelimitd.core.policy import Policy
from ratelimitd.core.rows import Account, Row
from ratelimitd.server.pump import Pump
from ratelimitd.stores.link import UNAVAILABLE, StoreLink
from ratelimitd.sync.walk import walk


class Loader:
    """Takes rows of the store over into the policy's meters."""

    def __init__(
        self, link: StoreLink, policy: Policy, timeout_s: float = 1.0, clock: Callable[[], float] = time.time
    ) -> None:
        self._link = link
        self._policy = policy
        self._pending = policy.pending
        self.timeout_s = timeout_s
        self._clock = clock

    async def load(self, pump: Pump, make_room: Callable[[], Awaitable[None]]) -> None:
        """Look up the accounts of parked requests, all that wait in one query, and resume them.

        `make_room` returns when memory has room for more accounts.
        """
        while True:
            await pump.parked_some.wait()
            parked = pump.take_parked()
            now = int(self._clock())
            missing = {Account(t.limit.name, key) for p in parked for t, key in p.waiting.missing(now)}
            if missing and self._link.up:
                await make_room()
                await self.look_up(sorted(missing))
            pump.resume(parked)

    async def look_up(self, accounts: list[Account]) -> None:
        """Take over what is stored of accounts that are not in memory, unless the store is away or too slow."""
        try:
            with trio.fail_after(self.timeout_s):
                rows, stored = await self._read(accounts)
        except UNAVAILABLE as error:
            self._link.failed(error)
        else:
            self._install(accounts, rows, stored)

    async def look_up_unread(self, accounts: Iterable[Account]) -> None:
        """The same of those that are in memory with what the journal alone has told of them."""
        unread = [account for account in accounts if self._is_unread(account)]
        if unread:
            await self.look_up(unread)

    def _is_unread(self, account: Account) -> bool:
        counter = self._counter(*account)
        return counter is not None and not counter.knowledge

    async def _read(self, accounts: list[Account]) -> tuple[list[Row], dict[str, int]]:
        """The accounts' rows, and up to which segment of each run they include what is pending.

        A flush may commit meanwhile: accounts with charges that are not stored yet are read until both agree.
        """
        pending = self._pending
        while True:
            closed = pending.closed  # a new list once some of it is stored
            uncertain = any(map(self._pending_of, accounts))
            runs = {pending.open.node, *(segment.node for segment in closed)} if uncertain else set()
            before = {run: await self._link.store.recorded(run) for run in runs}
            rows = await self._link.store.lookup(accounts)
            after = {run: await self._link.store.recorded(run) for run in runs}
            if before == after and (closed is pending.closed or not runs):
                return rows, after

    def _install(self, accounts: Iterable[Account], rows: Iterable[Row], stored: Mapping[str, int]) -> None:
        now = int(self._clock())
        by_account = {Account(row.limit, row.key): row for row in rows}
        for account in accounts:
            meter = self._meter(account.limit)
            if meter is not None and meter.find(account.key, now) is None:  # else a flush was faster
                meter.accept(account.key, by_account.get(account), self._pending_of(account, stored), now)

    def _meter(self, name: str) -> Meter | None:
        return next((meter for meter in self._policy.meters if meter.limit.name == name), None)

    def _counter(self, limit: str, key: str) -> Counter | None:
        meter = self._meter(limit)
        return meter.counters.get(key) if meter is not None else None

    def _pending_of(self, account: Account, stored: Mapping[str, int] | None = None) -> int:
        counter = self._counter(*account)
        return self._pending.of(counter, stored) if counter is not None else 0

    def accept(self, rows: Iterable[Row]) -> None:
        """Take over a few rows, also of accounts that are not in memory."""
        now = int(self._clock())
        for row in rows:
            meter = self._meter(row.limit)
            if meter is not None:
                meter.accept(row.key, row, self._pending_of(Account(row.limit, row.key)), now)

    async def take_over(self, rows: list[Row]) -> None:
        """Take over the rows of accounts that are in memory."""
        async for chunk in walk(rows):
            now = int(self._clock())
            for row in chunk:
                counter = self._counter(row.limit, row.key)
                if counter is not None:
                    counter = counter.meter.accept(row.key, row, self._pending.of(counter), now)
                    self._policy.taken_over(counter, now)

    async def take_over_changes(self, timeout_s: float) -> None:
        """Take over what others changed: an administrator's quota, another node's count."""
        more = True
        while more:
            try:
                with trio.fail_after(timeout_s):
                    changes = await self._link.store.changes(self._link.cursor)
            except UNAVAILABLE as error:
                self._link.failed(error)
                return
            self._link.cursor, more = changes.cursor, changes.more
            await self.take_over(changes.rows)

    async def ask_again(self) -> None:
        """Accounts that were assumed while the store was away are to be looked up at their next mail."""
        for meter in self._policy.meters:
            async for counters in walk(list(meter.counters.values())):
                for counter in counters:
                    if counter.knowledge == Knowledge.ASSUMED:
                        counter.knowledge = Knowledge.UNREAD
