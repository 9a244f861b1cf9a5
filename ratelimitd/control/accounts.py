"""What an administrator sees of accounts, and does with them: show, set, reset, top.

It works on memory and store together: of a running daemon or, while none is running, of what one left.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

import msgspec
import trio

from ratelimitd.control.answers import AccountView, CountsReset, LimitRanking, QuotaSet, Ranking, ShownAccount
from ratelimitd.control.commands import NO, Refused, Reset, Set, Show, Top
from ratelimitd.core.counters import Counter, Meter, Source, given_for_now
from ratelimitd.core.limits import UNLIMITED, KeyFailed
from ratelimitd.core.policy import AT_RECIPIENT, Policy
from ratelimitd.core.rows import Account, Grant, Row
from ratelimitd.errors import OutcomeUnknown, StoreError
from ratelimitd.keys import normalise
from ratelimitd.request import POLICY_REQUEST, Request
from ratelimitd.settings import Keys
from ratelimitd.stores import Store
from ratelimitd.sync.schedule import StoreSync
from ratelimitd.sync.walk import most_used


class Name(NamedTuple):
    """What a text may mean under one limit: a login, whose key is `of_login`, or a key `itself`."""

    meter: Meter
    of_login: str | None
    itself: str
    is_own: bool  # no other login has this key, as under `email`; under `domain` many share it

    @property
    def limit(self) -> str:
        """The limit's name."""
        return self.meter.limit.name

    @property
    def keys(self) -> list[str]:
        """The possible keys, the likelier one first."""
        if self.of_login is None or self.of_login == self.itself:
            return [self.itself]
        return [self.of_login, self.itself] if self.is_own else [self.itself, self.of_login]


class Accounts:
    """The accounts of a policy. Keys are normalised as the daemon's own."""

    def __init__(
        self,
        policy: Policy,
        sync: StoreSync,
        settings: Keys,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.configure(settings)
        self._policy = policy
        self._pending = policy.pending
        self._sync = sync
        self._clock = clock

    def configure(self, settings: Keys) -> None:
        """Take how keys are normalised; at any time."""
        self._lowercase, self._rules = settings.lowercase, settings.login_rules

    # -- seeing ----------------------------------------------------------------------------------------------------

    async def show(self, command: Show) -> ShownAccount:
        """An account under every limit. Raises Refused if that cannot be known."""
        names = self._names(command.key)
        known = await self._known(names)
        limits: list[AccountView] = []
        for name in names:
            found = [known[Account(name.limit, key)] for key in name.keys if (name.limit, key) in known]
            if found:
                limits.append(self._view(found[0]))
            elif name.of_login is not None and ("@" in command.key or not known):
                would_be = name.meter.apart(name.of_login, None, int(self._clock()))
                limits.append(self._view(would_be, seen=False))
        return ShownAccount(command.key, bool(await self._targets(names)), limits)

    async def top(self, command: Top) -> AsyncIterator[Ranking]:
        """The accounts that have used most in their present period, every `interval_s`. Raises Refused."""
        while True:  # a reload may add and remove limits meanwhile
            meters = [self._meter(command.limit)] if command.limit is not None else self._policy.kept
            limits = [await self._ranking(meter, command.count) for meter in meters]
            yield Ranking(self._clock(), limits)
            if command.once:
                return
            await trio.sleep(command.interval_s)

    async def _ranking(self, meter: Meter, count: int) -> LimitRanking:
        limit = meter.limit
        best = await most_used(meter, count, int(self._clock()))
        return LimitRanking(limit.name, limit.period.name, [self._view(counter) for counter in best])

    def _view(self, counter: Counter, *, seen: bool = True) -> AccountView:
        limit, unlimited = counter.limit, counter.quota == UNLIMITED
        return AccountView(
            limit=limit.name,
            key=counter.key,
            period=limit.period.name,
            quota=None if unlimited else counter.quota,
            source=source(counter),
            used=counter.used,
            left=None if unlimited else max(0, counter.quota - counter.used),
            not_stored=self._pending.of(counter),
            reset=counter.expiry,
            reset_at=limit.period.describe(counter.expiry),
            counts="messages" if limit.by_message else "recipients",
            enforced=limit.enforce,
            seen=seen,
        )

    # -- changing --------------------------------------------------------------------------------------------------

    async def set(self, command: Set) -> QuotaSet:
        """Give an account a quota: in memory at once, then in the store. Raises Refused."""
        meter, key = await self._target(command.key, self._named(command.key, command.limit))
        limit, now = meter.limit, int(self._clock())
        configured = limit.configured_quota(key)
        counter = meter.find(key, now)
        was_persistent = counter is not None and counter.source is Source.PERSISTENT
        expiry = limit.period.end(now)
        if counter is not None:
            expiry = counter.expiry
            lasting = Source.PERSISTENT if command.persist else given_for_now(command.quota, configured)
            counter.give(command.quota, lasting)
        latest = limit.period.latest(now)

        def grant(store: Store) -> Awaitable[list[Row]]:
            self._present(meter)  # it may have waited for a flush
            return store.grant(Grant(limit.name, key, command.quota, configured, command.persist, expiry, latest), now)

        try:
            rows = await self._sync.edit(grant)
        except OutcomeUnknown as error:
            in_force = "in force until then, but " if counter is not None else ""
            unknown = f"{in_force}it is not known whether it is stored: {error}; repeat it when the store is back"
            raise Refused(unknown, NO) from error
        except StoreError as error:
            in_force = "in force until then, but " if counter is not None else ""
            raise Refused(f"{in_force}not stored: {error}; repeat it when the store is back", NO) from error
        view = self._view(self._changed(self._present(meter, "stored, but "), key, rows))
        return QuotaSet(**msgspec.structs.asdict(view), gave_up_persistent=was_persistent and not command.persist)

    async def reset(self, command: Reset) -> CountsReset:
        """Set what an account has used to 0, under one limit or under every one that counts it. Raises Refused."""
        names = self._named(command.key, command.limit)
        targets = [await self._target(command.key, names)] if command.limit else await self._targets(names)
        if not targets:
            raise Refused(f"{command.key}: no limit has counted it", NO)
        accounts = [Account(meter.limit.name, key) for meter, key in targets]
        try:
            rows = await self._sync.edit(lambda store: store.reset(accounts))
        except OutcomeUnknown as error:
            todo = f"when the store is back, look at `ratelimitctl show {command.key}`, and repeat it where it was not"
            raise Refused(f"it is not known whether the count was reset: {error}; {todo}", NO) from error
        except StoreError as error:
            raise Refused(f"nothing is changed: {error}", NO) from error
        if command.limit is not None:
            self._present(targets[0][0], "stored, but ")
        present = [(meter, key) for meter, key in targets if self._is_present(meter)]
        return CountsReset(command.key, [self._view(self._changed(meter, key, rows)) for meter, key in present])

    def _changed(self, meter: Meter, key: str, rows: list[Row]) -> Counter:
        """An account whose row was changed, as memory has it or, if it was evicted meanwhile, as the store has it."""
        now = int(self._clock())
        row = next((row for row in rows if (row.limit, row.key) == (meter.limit.name, key)), None)
        return meter.find(key, now) or meter.apart(key, row, now)

    # -- which account is meant ------------------------------------------------------------------------------------

    def _names(self, text: str) -> list[Name]:
        if not text.isprintable() or not text.strip():
            raise Refused(f"{text!r}: not a key")
        request = Request.under(
            self._rules, f"request={POLICY_REQUEST}\nprotocol_state={AT_RECIPIENT}\nsasl_username={text}"
        )
        own = {normalise(text, self._lowercase), normalise(request.login, self._lowercase)}
        names: list[Name] = []
        for meter in self._policy.kept:
            try:
                of_login = meter.limit.key_of(request)
            except KeyFailed:
                of_login = None
            names.append(Name(meter, of_login, normalise(text, self._lowercase), of_login in own))
        return names

    def _named(self, text: str, limit: str | None) -> list[Name]:
        names = self._names(text)
        if limit is None:
            return names
        meter = self._meter(limit)
        return [name for name in names if name.meter is meter]

    def _meter(self, limit: str) -> Meter:
        for meter in self._policy.kept:
            if meter.limit.name == limit:
                return meter
        if any(meter.limit.name == limit for meter in self._policy.meters):
            raise Refused(f"the limit {limit} counts the recipients of one message: no account is kept under it")
        names = ", ".join(meter.limit.name for meter in self._policy.kept)
        raise Refused(f"there is no limit {limit}; there are: {names}")

    def _is_present(self, meter: Meter) -> bool:
        return any(meter is other for other in self._policy.kept)

    def _present(self, meter: Meter, done: str = "") -> Meter:
        """The meter; after each await. Raises Refused where a reload has removed its limit; `done` is what was done."""
        if not self._is_present(meter):
            raise Refused(f"{done}there is no limit {meter.limit.name} any more: a reload has just removed it", NO)
        return meter

    async def _targets(self, names: list[Name]) -> list[tuple[Meter, str]]:
        """The accounts that the text means, of those that are known: its own, not one that it shares."""
        known = await self._known(names)
        found: list[tuple[Meter, str]] = []
        for name in filter(lambda name: self._is_present(name.meter), names):
            keys = [key for key in name.keys if name.is_own or key == name.itself]
            found += [(name.meter, key) for key in keys if (name.limit, key) in known][:1]
        return found

    async def _target(self, text: str, names: list[Name]) -> tuple[Meter, str]:
        """The one account that is meant, known or not. Raises Refused if it is not certain which."""
        targets = await self._targets(names)
        if not targets:
            targets = [(n.meter, n.keys[0]) for n in names if n.is_own or (n.of_login is None and len(names) == 1)]
        if len(targets) == 1:
            ((meter, key),) = targets
            return self._present(meter), key
        if not targets and len(names) == 1:
            (name,) = names
            raise Refused(f"under the limit {name.limit} {text} is counted as {name.of_login}: give that key")
        limits = ", ".join(name.limit for name in names)
        raise Refused(f"{text}: say which limit you mean with --limit: {limits}")

    # -- what is known ---------------------------------------------------------------------------------------------

    async def _known(self, names: list[Name]) -> dict[Account, Counter]:
        """The counters of the accounts that memory or store know. Raises Refused if neither can be asked."""
        now = int(self._clock())
        asked = [(name.meter, Account(name.limit, key)) for name in names for key in name.keys]
        found = {account: counter for meter, account in asked if (counter := _find(meter, account.key, now))}
        unknown = [account for _, account in asked if account not in found]
        try:
            rows = {Account(row.limit, row.key): row for row in await self._sync.look_up(unknown)}
        except StoreError as error:
            if found:
                return found
            raise Refused(f"not in memory, and {error}", NO) from error
        for meter, account in asked:
            counter = _find(meter, account.key, now)
            if counter is not None:
                found[account] = counter
            elif account in rows:
                found[account] = meter.apart(account.key, rows[account], now)
        return found


def source(counter: Counter) -> str:
    """Where a counter's quota comes from, in words."""
    limit = counter.limit
    if counter.source is Source.PERSISTENT:
        return "database, persistent"
    if counter.source is Source.GRANTED:
        return f"database, until {limit.period.describe(counter.expiry)}"
    exception = limit.exception_for(counter.key)
    return f"limit {limit.name}" if exception is None else f'limit {limit.name}, quotas."{exception}"'


def _find(meter: Meter, key: str, now: int) -> Counter | None:
    """A counter in memory, unless it was made without anything charged or stored."""
    counter = meter.find(key, now)
    return None if counter is None or counter.is_new else counter
