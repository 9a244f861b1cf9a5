"""What an account used in each window, of store and memory together: nothing twice, nothing left out.

A flush moves counts from memory to the store. So the last row, and whatever had counts that were not stored when the
reading began, is read under the lock that keeps flushes away. Rows are given on as they come: nobody holds them all.
"""

import time
from collections.abc import Callable, Mapping

import trio

from ratelimitd.core.counters import Counter
from ratelimitd.core.parts import NEVER
from ratelimitd.core.policy import Policy
from ratelimitd.core.rows import Account
from ratelimitd.errors import StoreError
from ratelimitd.state.backlog import Backlog
from ratelimitd.stores.history import Stood
from ratelimitd.stores.link import UNAVAILABLE, StoreLink
from ratelimitd.stores.past import PAGE
from ratelimitd.sync.walk import walk, walk_charged

READ_TIMEOUT_S = 10.0
"""For a page, which no mail waits for."""

Take = Callable[[int, int], None]
"""Takes the next row: when the window, or part, ends, and what was used in it."""


class PastWindows:
    """Reads the windows of an account."""

    def __init__(
        self, link: StoreLink, policy: Policy, backlog: Backlog, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = link.store
        self._pending = policy.pending
        self._backlog = backlog
        self._clock = clock

    async def read(self, account: Account, after: int, lock: trio.Lock, take: Take) -> None:
        """Have `take` called for each window that ends after a time, in the order of their ends. Raises StoreError.

        `lock` keeps flushes away.
        """
        try:
            changing = min([counter.expiry for counter in await self._unstored(account)], default=NEVER)
            full = True
            while full:
                page = await self._page(account, after)
                full = len(page) == PAGE
                settled = [row for row in page[:-1] if row[0] < changing]
                full = full and len(settled) == len(page) - 1
                for row in settled:
                    take(*row)
                    after = row[0]
            async with lock:
                last = await self._last(account, after)
            async for rows in walk(last):
                for row in rows:
                    take(*row)
        except UNAVAILABLE as error:
            raise StoreError(f"the store is unavailable: {error}".removesuffix(": ")) from error

    async def _last(self, account: Account, after: int) -> Stood:
        """The rows from there on, with what is not stored yet; nothing is flushed meanwhile."""
        unstored = [counter for counter in await self._unstored(account) if counter.expiry > after]
        stored = await self._recorded() if unstored else {}
        found: dict[int, int] = {}
        page = await self._page(account, after)
        while page:
            found.update(page)
            page = await self._page(account, page[-1][0]) if len(page) == PAGE else ()
        for counter in unstored:
            found[counter.expiry] = found.get(counter.expiry, 0) + self._pending.of(counter, stored)
        return tuple(sorted(found.items()))

    async def _page(self, account: Account, after: int) -> Stood:
        with trio.fail_after(READ_TIMEOUT_S):
            return await self._store.past.windows(*account, after, int(self._clock()))

    async def _unstored(self, account: Account) -> list[Counter]:
        """The account's counters with charges that are not stored yet, of all its windows."""
        limit, key = account
        found: dict[Counter, None] = {}
        async for counters in walk_charged(self._pending):
            found |= dict.fromkeys(one for one in counters if one.key == key and one.limit.name == limit)
        return list(found)

    async def _recorded(self) -> Mapping[str, int]:
        """The last stored segment of each run that has segments in memory."""
        runs = {segment.node for segment in (*self._pending.closed, self._pending.open)}
        with trio.fail_after(READ_TIMEOUT_S):
            return {run: self._backlog.believed(run, await self._store.recorded(run)) for run in runs}
