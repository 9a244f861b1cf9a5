"""From the store into memory: accounts that are looked up, and what others changed.

A reply waits for nothing here but the one lookup of an account that is not in memory, at most `store.timeout_s`; while
the store is unavailable not even for that.
"""

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

import trio

from ratelimitd.core.counters import Counter, Knowledge, Meter
from ratelimitd.core.pending import Segment
from ratelimitd.core.policy import Policy
from ratelimitd.core.rows import Account, Row
from ratelimitd.core.verdict import Waiting
from ratelimitd.errors import StoreUnsuitable
from ratelimitd.log.log import Log
from ratelimitd.state.backlog import Backlog
from ratelimitd.stores.link import UNAVAILABLE, StoreLink
from ratelimitd.stores.survey import renames
from ratelimitd.sync.domains import DomainRows
from ratelimitd.sync.past import PastWindows
from ratelimitd.sync.putback import PutBack
from ratelimitd.sync.walk import ROWS, walk


class Parked(Protocol):
    """A request that waits for its accounts to be looked up."""

    @property
    def waiting(self) -> Waiting:
        """What it waits for."""
        ...


P = TypeVar("P", bound=Parked)


class Parking(Protocol[P]):
    """Who parks requests until their accounts are looked up: the pump."""

    @property
    def parked_some(self) -> trio.Event:
        """Set once requests wait; another one after `take_parked`."""
        ...

    def take_parked(self) -> list[P]:
        """The requests that wait; whoever takes them calls `resume`."""
        ...

    def resume(self, parked: Sequence[P]) -> None:
        """Decide these: every account is known now, or is assumed."""
        ...


class Loader:
    """Takes rows of the store over into the policy's meters. A lookup takes `timeout_s` at most."""

    def __init__(
        self,
        link: StoreLink,
        policy: Policy,
        backlog: Backlog,
        timeout_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._link = link
        self._store = link.store
        self._policy = policy
        self._backlog = backlog
        self._pending = policy.pending
        self.timeout_s = timeout_s
        self.domains = DomainRows(policy)
        self.past = PastWindows(link, policy, backlog, clock)
        self.put_back = PutBack(link, policy, backlog, self.domains, clock)
        self._surveyed = False
        self._clock = clock

    async def load(self, parking: Parking[P], make_room: Callable[[], Awaitable[None]]) -> None:
        """Look up the accounts of parked requests, of all that wait in one query, and resume the requests.

        `make_room` returns when memory has room for more accounts. Runs as long as the daemon.
        """
        while True:
            await parking.parked_some.wait()
            parked = parking.take_parked()
            now = int(self._clock())
            missing = {Account(meter.limit.name, key) for p in parked for meter, key in p.waiting.missing(now)}
            if missing and self._link.up:
                await make_room()
                await self.look_up(sorted(missing))
            parking.resume(parked)

    async def look_up(self, accounts: list[Account]) -> None:
        """Take over what is stored of accounts that are not in memory, unless the store is unavailable or too slow."""
        try:
            with trio.fail_after(self.timeout_s):
                rows, stored = await self._read(accounts)
        except UNAVAILABLE as error:
            self._link.failed(error)
        else:
            self._install(accounts, rows, stored)

    async def look_up_unread(self, accounts: Iterable[Account]) -> None:
        """The same for those of the accounts that are in memory, but known from the journal alone."""
        unread = [account for account in accounts if self._is_unread(account)]
        if unread:
            await self.look_up(unread)

    def _is_unread(self, account: Account) -> bool:
        counter = self._counter(*account)
        return counter is not None and not counter.knowledge

    async def rows(self, accounts: Sequence[Account]) -> list[Row]:
        """What is stored of these accounts; the rows of their domains, which are among them, are taken over.

        Raises StoreError.
        """
        domains = self.domains.of(accounts)
        rows = await self._store.lookup([*accounts, *domains], int(self._clock()))
        self.domains.take(rows, domains)
        return rows

    async def _read(self, accounts: list[Account]) -> tuple[list[Row], dict[str, int]]:
        """The accounts' rows, and the last segment of each run that they include.

        A flush may commit meanwhile: where accounts have charges that are not stored yet, both are read until they
        agree.
        """
        pending = self._pending
        while True:
            generation = pending.generation
            uncertain = any(map(self._has_pending, accounts))
            runs = {pending.open.node, *(segment.node for segment in pending.closed)} if uncertain else set()
            before = {run: await self._store.recorded(run) for run in runs}
            rows = await self.rows(accounts)
            after = {run: await self._store.recorded(run) for run in runs}
            if before == after and (generation == pending.generation or not runs):
                return rows, {run: self._backlog.believed(run, recorded) for run, recorded in after.items()}

    def _install(self, accounts: Iterable[Account], rows: Iterable[Row], stored: Mapping[str, int]) -> None:
        self._link.say()
        now = int(self._clock())
        by_account = {Account(row.limit, row.key): row for row in rows}
        for account in accounts:
            meter = self._meter(account.limit)
            if meter is not None and meter.find(account.key, now) is None:  # otherwise a flush has brought the row
                self._accept(meter, account.key, by_account.get(account), now, stored)

    def _meter(self, name: str) -> Meter | None:
        return next((meter for meter in self._policy.all_meters if meter.limit.name == name), None)

    def _counter(self, limit: str, key: str) -> Counter | None:
        meter = self._meter(limit)
        return meter.counters.get(key) if meter is not None else None

    def _has_pending(self, account: Account) -> bool:
        counter = self._counter(*account)
        return counter is not None and bool(self._pending.by_window(counter))

    def _accept(
        self, meter: Meter, key: str, row: Row | None, now: int, stored: Mapping[str, int] | None = None
    ) -> Counter:
        """Have an account's meter take over its row; `stored`: the last segment of each run that the row includes."""
        counter = meter.counters.get(key)
        if counter is None:
            return meter.accept(key, row, 0, now)
        unstored = self._pending.by_window(counter, stored)
        return meter.accept(key, row, unstored.get(counter.expiry, 0), now, unstored)

    def accept(self, rows: Iterable[Row]) -> None:
        """Take over a few rows, also of accounts that are not in memory, and of domains."""
        self._link.say()
        rows = list(rows)
        self.domains.take(rows)
        now = int(self._clock())
        for row in rows:
            meter = self._meter(row.limit)
            if meter is not None and (row.key in meter.counters or not meter.limit.is_domain(row.key)):
                self._accept(meter, row.key, row, now)

    async def take_over(
        self, rows: list[Row], stored: Sequence[Segment] = (), included: Mapping[str, int] | None = None
    ) -> int:
        """Take over the rows of accounts that are in memory, once these segments are stored. `included`: the last
        segment of each run that the rows include, where a commit may have stored more than memory knows.

        How many recipients of running windows found no place: the rows have later windows, of other nodes.
        """
        self._link.say()
        without_place = 0
        async for chunk in walk(rows, ROWS):
            now = int(self._clock())
            for row in chunk:
                counter = self._counter(row.limit, row.key)
                if counter is not None:
                    if now < counter.expiry < row.expiry and not self._has_place(counter, row, now):
                        without_place += sum(segment.deltas.get(counter, 0) for segment in stored)
                    counter = self._accept(counter.meter, row.key, row, now, included)
                    self._policy.taken_over(counter, now)
        return without_place

    @staticmethod
    def _has_place(counter: Counter, row: Row, now: int) -> bool:
        """Whether a running window's charges were added to a row that ends later."""
        return counter.limit.sliding or counter.limit.period.common_end(row.expiry, counter.expiry, now) > 0

    async def take_over_changes(self, timeout_s: float) -> None:
        """Take over what others changed: an administrator's quota, another node's count.

        A row that is written as no key is, in another case of letters, becomes its account's.
        """
        await self._survey(timeout_s)
        more = True
        while more:
            try:
                with trio.fail_after(timeout_s):
                    changes = await self._store.changes(self._link.cursor, int(self._clock()))
                    changed = [*changes.rows, *await self._adopt(changes.rows, timeout_s)]
                    self.domains.take(changed)
                    if not changes.more:
                        await self.domains.ask_again(self._store)
            except UNAVAILABLE as error:
                self._link.failed(error)
                return
            self._link.cursor, more = changes.cursor, changes.more
            await self.take_over(changed)
        await self.domains.follow()

    async def _survey(self, timeout_s: float) -> None:
        """Once: note quotas and adopt rows of the time when no daemon ran, and say what can never count anybody."""
        if self._surveyed:
            return
        self._surveyed = True
        limits = [meter.limit for meter in self._policy.kept]
        try:
            with trio.fail_after(timeout_s):
                await self._store.note_given()
                survey = await self._store.survey()
                adopted = await self._adopt(survey.odd, timeout_s)
                self.domains.take(adopted)
                await self.take_over(adopted)
        except UNAVAILABLE as error:  # the table is too large for it, perhaps: everything else goes on
            self._link.say_once("the rows of the database cannot be examined", reason=error)
            return
        for line in survey.remarks(limits):
            self._link.say_once("what is configured or stored counts nobody", reason=line)

    async def _adopt(self, of: Iterable[Account | Row], timeout_s: float) -> list[Row]:
        """Make rows their accounts' whose keys are not normalised; the accounts' rows."""
        now = int(self._clock())
        wanted = renames((Account(*one[:2]) for one in of), [meter.limit for meter in self._policy.kept], now)
        if not wanted:
            return []
        try:
            adopted = await self._store.adopt(wanted, now)
            # Where an account's own row made no sense, memory alone knows its use.
            completed = await self.put_back.complete(timeout_s)
            return [*(completed.rows | {Account(*row[:2]): row for row in completed.among(adopted)}).values()]
        except StoreUnsuitable as error:  # no right to delete, for example
            self._link.say_once("rows that are written as no key is count nobody", reason=error, example=wanted[0].old)
            return []

    def say_what_began_again(self, log: Log) -> None:
        """Log how many counts were in windows that are none, since the last time: one line."""
        meters = [meter for meter in self._policy.all_meters if meter.begun_again]
        if meters:
            counts = sum(meter.begun_again for meter in meters)
            limits = " ".join(meter.limit.name for meter in meters)
            log.warning("counts whose window ends too far ahead begin again: was the clock ahead?",
                        counts=counts, limits=limits)  # fmt: skip
            for meter in meters:
                meter.begun_again = 0

    async def ask_about(self, segments: Iterable[Segment]) -> None:
        """Have the accounts of segments that no longer count looked up at their next mail."""
        for segment in segments:
            async for counters in walk(list(segment.deltas)):
                for counter in counters:
                    counter.knowledge = Knowledge.UNREAD

    async def ask_again(self) -> None:
        """Have accounts that were assumed while the store was unavailable looked up at their next mail."""
        for meter in self._policy.all_meters:
            async for counters in walk(list(meter.counters.values())):
                for counter in counters:
                    if counter.knowledge == Knowledge.ASSUMED:
                        counter.knowledge = Knowledge.UNREAD
