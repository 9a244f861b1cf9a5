"""From memory back into the store, where it has lost what memory knows: all of it, or rows that somebody overwrote.

What is not stored yet is none of this: a flush adds it afterwards.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import trio

from ratelimitd.core.counters import Counter
from ratelimitd.core.pending import known
from ratelimitd.core.policy import Policy
from ratelimitd.core.rows import Account, Known, Row
from ratelimitd.state.backlog import Backlog
from ratelimitd.stores.link import StoreLink
from ratelimitd.sync.domains import DomainRows
from ratelimitd.sync.walk import SLICE, WITH_PARTS, walk


class Completed(NamedTuple):
    """What `complete` has done. `rows`: those that can be read now, by account; `included`: the last segment of each
    run that they include; `accounts`: all that memory knows and whose rows could not be read."""

    rows: dict[Account, Row]
    included: dict[str, int]
    accounts: set[Account]

    def among(self, rows: Iterable[Row]) -> list[Row]:
        """Rows that were written before, with these in the place of theirs: a row that was written over one that nobody
        could read has the last charges alone, so it is left out where it is not completed."""
        found = ((Account(*row[:2]), row) for row in rows)
        return [self.rows.get(account, row) for account, row in found if self._can_be_read(account)]

    def _can_be_read(self, account: Account) -> bool:
        return account in self.rows or account not in self.accounts


class PutBack:
    """Restores rows from the policy's meters: `everything`, or what `complete` finds."""

    def __init__(
        self,
        link: StoreLink,
        policy: Policy,
        backlog: Backlog,
        domains: DomainRows,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = link.store
        self._domains = domains
        self._policy = policy
        self._pending = policy.pending
        self._backlog = backlog
        self._clock = clock

    async def everything(self, timeout_s: float) -> None:
        """Have the store hold at least what memory knows to be stored: it has lost some of that. Raises StoreError.

        `timeout_s` is for some hundred accounts at a time.
        """
        with trio.fail_after(timeout_s):
            stored = await self._recorded()
        for meter in self._policy.all_meters:
            async for rows in walk(self._domains.known(meter)):
                with trio.fail_after(timeout_s):
                    await self._store.restore(rows, int(self._clock()))
            async for keys in walk(list(meter.counters), WITH_PARTS if meter.limit.sliding else SLICE):
                now = int(self._clock())
                if found := [one for key in keys for one in self._known(meter.counters.get(key), stored, now)]:
                    with trio.fail_after(timeout_s):
                        await self._store.restore(found, now)

    async def _recorded(self) -> dict[str, int]:
        """The last stored segment of each run that has closed segments in memory."""
        runs = {segment.node for segment in self._pending.closed}
        return {run: self._backlog.believed(run, await self._store.recorded(run)) for run in runs}

    async def complete(self, timeout_s: float) -> Completed:
        """Have rows whose use nobody can read, or could before a flush wrote them, hold at least what memory knows.

        A quota that can be read stays. Raises StoreError; the rest is still to be done then. `timeout_s` as above.
        """
        rows: dict[Account, Row] = {}
        stored: dict[str, int] = {}
        waiting = self._store.remarks.unread
        in_memory: set[Account] = set()
        if waiting:
            with trio.fail_after(timeout_s):
                stored = await self._recorded()
            async for accounts in walk(list(waiting)):
                counters = self._counters(accounts)
                in_memory |= counters.keys()
                if counters:
                    with trio.fail_after(timeout_s):
                        rows |= {Account(*row[:2]): row for row in await self._complete(counters, stored)}
                for account in accounts:
                    waiting.pop(account, None)
        return Completed(rows, stored, in_memory)

    async def _complete(self, counters: Mapping[Account, Counter], stored: Mapping[str, int]) -> list[Row]:
        now = int(self._clock())
        there = {Account(row.limit, row.key): row for row in await self._store.lookup(list(counters), now)}
        found: list[Known] = []
        for account, counter in counters.items():
            row = there.get(account)
            for one in self._known(counter, stored, now):
                if row is not None:
                    quota = row.quota_at(now, one.delta.configured)
                    one = Known(one.delta._replace(quota=quota), row.persist, row.end_of_quota(now))
                found.append(one)
        await self._store.restore(found, now)
        return await self._store.lookup(list(counters), now)

    def _counters(self, accounts: Iterable[Account]) -> dict[Account, Counter]:
        meters = {meter.limit.name: meter for meter in self._policy.all_meters}
        found = ((account, meters[account.limit].counters.get(account.key)) for account in accounts
                 if account.limit in meters)  # fmt: skip
        return {account: counter for account, counter in found if counter is not None}

    def _known(self, counter: Counter | None, stored: Mapping[str, int], now: int) -> list[Known]:
        """What memory knows of an account's row; nothing where it knows no more than the configuration says."""
        return known(counter, self._pending.by_window(counter, stored), now) if counter is not None else []
