"""Keeps memory and store in step: the start, the periodic task, the end."""

import time
from collections.abc import Awaitable, Callable, Collection

import trio

from ratelimitd.core.policy import Policy
from ratelimitd.core.rows import Account, Row
from ratelimitd.errors import OutcomeUnknown, StartError, StoreError, StoreUnsuitable
from ratelimitd.settings import StoreSettings
from ratelimitd.stores import Store
from ratelimitd.stores.history import Kept
from ratelimitd.stores.link import UNAVAILABLE, StoreLink
from ratelimitd.sync.flush import FLUSH_TIMEOUT_S, Flush
from ratelimitd.sync.loader import Loader, P, Parking
from ratelimitd.sync.past import Take
from ratelimitd.sync.settling import Settling
from ratelimitd.sync.walk import SLICE, walk
from ratelimitd.sync.zones import Zones

OPEN_TIMEOUT_S = 5.0
HURRY_GAP_S = 0.1
"""The shortest time from one flush's end to the next."""
LAST_TRIES_GAP_S = 0.2
"""From one try of the last flush to the next, where what is answered would be lost otherwise."""
SLACK, SLACK_SHARE = 10_000, 16
"""Accounts beyond max_accounts before lookups wait: SLACK, or a SLACK_SHARE-th of max_accounts where that is more."""
HELD_S = 2.0
"""How long a lookup waits at most for a flush to make room; Postfix waits 100 s for an answer."""
SWEEP_INTERVAL_S = 60.0
MEMO_AGE_S = 1800.0
"""A transaction that nobody has asked about for twice this long is forgotten."""


class StoreSync:
    """The store's side of the daemon: `link` is its health, `loader` reads from it, `flusher` writes to it."""

    def __init__(
        self,
        link: StoreLink,
        loader: Loader,
        flusher: Flush,
        policy: Policy,
        settings: StoreSettings,
        max_accounts: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.link, self._store = link, link.store
        self.loader = loader
        self.flusher = flusher
        self.zones = Zones(link, policy)
        self.settling = Settling(link.store, policy)
        self.evicted = self.held = 0
        self._policy = policy
        self._room_made = trio.Event()  # replaced each time that accounts were evicted, as many as could be
        self._clock = clock
        self._hurried = trio.Event()
        self._lock = trio.Lock()  # what was read from the store is taken over before anything else is written to it
        self.configure(settings, max_accounts)
        self._hurried = trio.Event()  # the first flush comes after an interval

    def configure(self, settings: StoreSettings, max_accounts: int) -> None:
        """Take the intervals and time-outs that flushes and lookups go by, and the bound of memory; at any time."""
        self.loader.timeout_s = self._timeout_s = settings.timeout_s
        self.history_days = settings.history_days
        self.flusher.configure(settings.history_days)
        limits = [meter.limit for meter in self._policy.all_meters]
        self._store.configure(settings.timeout_s, Kept.of(limits, settings.history_days))
        self.settling.configure(self.now)
        self._has_old = True
        self._max_accounts = max_accounts
        self._flush_interval_s, self._refresh_s = settings.flush_interval_s, settings.refresh_s
        self._hurried.set()

    async def begin(self, last_segment: int, runs: Collection[str]) -> dict[str, int]:
        """Open the store if it is available, begin this run's first segment; the last stored one of each earlier run.

        `runs` are all whose segments are still there: however old, the store does not forget them.
        Raises StartError for a store that is unsuitable as configured: asking again would not help.
        """
        recorded = await self._recorded(runs, forgetting=True)
        self.flusher.begin(last_segment + 1)
        return recorded

    async def look(self, runs: Collection[str]) -> dict[str, int]:
        """Open the store if it is available; the last stored segment of each of these runs. Raises StartError."""
        return await self._recorded(runs, forgetting=False)

    async def _recorded(self, runs: Collection[str], *, forgetting: bool) -> dict[str, int]:
        recorded: dict[str, int] = {}
        try:
            with trio.fail_after(max(self._timeout_s, OPEN_TIMEOUT_S)):
                await self.link.open()
                for run in runs:
                    recorded[run] = await self._store.recorded(run)
                if forgetting:
                    await self._store.forget(runs, self.now)
            self.link.succeeded()
        except StoreUnsuitable as error:
            raise StartError(f"store: {error}") from error
        except UNAVAILABLE as error:
            self.link.failed(error)
        return recorded

    @property
    def now(self) -> int:
        """The time, in seconds since 1970."""
        return int(self._clock())

    async def load(self, parking: Parking[P]) -> None:
        """Serve the lookups of parked requests; runs as long as the daemon."""
        await self.loader.load(parking, self.make_room)

    async def make_room(self) -> None:
        """Wait, at most HELD_S, while memory is full of accounts that are not stored yet.

        However fast new accounts arrive, no more of them get in meanwhile than there are connections.
        """
        if self.link.up and self._excess > max(SLACK, self._max_accounts // SLACK_SHARE):
            self.held += 1
            self.hurry()
            with trio.move_on_after(HELD_S):
                await self._room_made.wait()

    @property
    def _excess(self) -> int:
        return sum(len(meter.counters) for meter in self._policy.meters) - self._max_accounts

    async def _evict(self) -> None:
        """Evict what exceeds `max_accounts`: accounts that arrived since the last flush, or during an outage."""
        if not self.link.up:
            return
        excess = self._excess
        for meter in sorted(self._policy.meters, key=lambda meter: -len(meter.counters)):
            while excess > 0 and (evicted := meter.evict(min(excess, SLICE), self._policy.pending)):
                excess -= evicted
                self.evicted += evicted
                await trio.lowlevel.checkpoint()
        self._room_made.set()
        self._room_made = trio.Event()

    async def keep(self) -> None:
        """The periodic task: flush, take over changes, forget what ended."""
        refreshed = swept = aged = trio.current_time()
        await self.compare_zones()
        while True:
            await self._until_due(refreshed + self._refresh_s)
            await self.settle()
            await self.flush()  # before each refresh: it notices a database that was replaced by an older one
            await self.loader.domains.follow()
            await self._evict()
            await self._forget_history()
            now = trio.current_time()
            if now - refreshed >= self._refresh_s:
                refreshed = now
                await self.refresh()
            if now - swept >= SWEEP_INTERVAL_S:
                swept = now
                await self.sweep()
                await self.compare_zones()
            if now - aged >= MEMO_AGE_S:
                aged = now
                self._policy.memo.age()

    def hurry(self) -> None:
        """Flush soon: little is left of a quota that other nodes charge too, or there is much to store."""
        if self.link.up:
            self._hurried.set()
            self.flusher.divide()

    async def _until_due(self, refresh: float) -> None:
        """Wait for the interval, for a `refresh` or for `hurry`, but at least HURRY_GAP_S: a flood must not be all
        flushes."""
        began = trio.current_time()
        due = min(began + self._flush_interval_s, refresh)
        with trio.move_on_at(due):
            await self._hurried.wait()
        await trio.sleep_until(min(due, began + HURRY_GAP_S))
        self._hurried = trio.Event()

    def storing(self) -> bool:
        """Whether something is stored, or taken over, just now."""
        return self._lock.locked()

    async def flush(self) -> bool:
        """Store what is not stored yet; whether nothing is left of it. Never raises."""
        async with self._lock:
            return await self.flusher.flush()

    async def edit(self, change: Callable[[Store], Awaitable[list[Row]]]) -> list[Row]:
        """Change rows in the store and take them over. Raises StoreError, with nothing taken over: OutcomeUnknown where
        the store may have changed them, any other where it has not.

        What was charged before is stored first; what is charged meanwhile is kept.
        """
        async with self._lock:
            if not await self.flusher.flush():
                raise StoreError("the store is unavailable")
            try:
                with trio.fail_after(FLUSH_TIMEOUT_S):
                    rows = await change(self.link.store)
            except UNAVAILABLE as error:
                self.link.failed(error)
                if isinstance(error, trio.TooSlowError):
                    raise OutcomeUnknown("the store does not answer") from error
                raise
            self.loader.accept(rows)
            await self.loader.domains.follow()
            return rows

    async def look_up(self, accounts: list[Account]) -> list[Row]:
        """The stored rows of these accounts; memory is completed only where the journal alone has filled it.

        Raises StoreError.
        """
        if not accounts:
            return []
        await self.loader.look_up_unread(accounts)
        try:
            with trio.fail_after(self._timeout_s):
                return await self.loader.rows(accounts)
        except UNAVAILABLE as error:
            raise StoreError(f"the store is unavailable: {error}".removesuffix(": ")) from error

    async def windows(self, account: Account, after: int, take: Take) -> None:
        """Have `take` called for each window, or part, of an account that ends after a time: what is not stored yet
        included. Raises StoreError."""
        await self.loader.past.read(account, after, self._lock, take)

    async def refresh(self) -> None:
        """Take over what others changed in the store: an administrator's quota, another node's count."""
        if self.link.up:
            async with self._lock:
                await self.loader.take_over_changes(FLUSH_TIMEOUT_S)

    async def settle(self) -> None:
        """Settle rows whose windows are of another kind than their limit's, before a flush adds to them, which must not
        wait for many."""
        until = trio.current_time() + self._flush_interval_s
        while self.settling.is_due and trio.current_time() < until:
            try:
                async with self._lock:
                    with trio.fail_after(FLUSH_TIMEOUT_S):
                        await self.settling.step()
                self.link.say()
            except UNAVAILABLE as error:
                self.link.failed(error)
                return

    async def _forget_history(self) -> None:
        """Have old rows of the history go, a step after each flush, which must not wait for many."""
        if self._has_old and self.link.up:
            self._has_old = False  # a reload may say otherwise meanwhile
            try:
                with trio.fail_after(FLUSH_TIMEOUT_S):
                    more = await self._store.forget_history(self.now)
                self._has_old = self._has_old or more
                self.link.say()
            except UNAVAILABLE as error:
                self.link.failed(error)

    async def compare_zones(self) -> None:
        """See whether other nodes' windows end when this one's do."""
        if self.link.up:
            with trio.move_on_after(FLUSH_TIMEOUT_S):
                await self.zones.compare(int(self._clock()))

    async def sweep(self) -> None:
        """Forget accounts whose window is over and stored; none while the store could not give them back."""
        if not self.link.up:
            return
        self._has_old = True
        if self._policy.removed:
            self._policy.forget_removed()
        for meter in self._policy.meters:
            now, all_stored = self.now, True
            if meter.sweep_at > now and not meter.limit.sliding:  # a list of all accounts takes 8 bytes for each
                continue
            async for keys in walk(list(meter.counters)):
                all_stored &= meter.drop_ended(keys, now, self._policy.pending)
            meter.sweep_at = meter.limit.period.end(now) if all_stored else now

    async def finish(self, timeout_s: float) -> bool:
        """The last flush, within a time, and the end of journal and store; whether nothing is lost.

        Where neither the store nor the journal takes it, both are tried again as long as there is time.
        """
        with trio.move_on_after(timeout_s, shield=True):
            while True:
                if await self.flush() or not self.flusher.unsafe:
                    break
                await trio.sleep(LAST_TRIES_GAP_S)
        with trio.CancelScope(shield=True):
            safe = await self.flusher.close()
        with trio.move_on_after(timeout_s, shield=True):
            if self.link.up:
                await self.zones.withdraw()
            await self.link.close()
        return safe
