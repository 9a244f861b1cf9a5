"""What an administrator sees of accounts, and does to them: show, set, reset, top.

It works on memory and store alike, of a running daemon or, while none runs, of what it left.
"""

import time
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import trio

from ratelimitd.control.commands import NO, Answer, Refused, Reset, Set, Show, Top
from ratelimitd.core.counters import Counter, Meter, Source, given_for_now
from ratelimitd.core.limits import UNLIMITED, KeyFailed, Limit
from ratelimitd.core.policy import AT_RECIPIENT, Policy
from ratelimitd.core.rows import Account, Grant
from ratelimitd.errors import StoreError
from ratelimitd.keys import normalise
from ratelimitd.request import POLICY_REQUEST, Request
from ratelimitd.settings import Keys
from ratelimitd.sync.schedule import StoreSync
from ratelimitd.sync.walk import most_used


class Name(NamedTuple):
    """What a text may mean under one limit: the key of the account of that login, and the text itself as a key."""

    meter: Meter
    of_login: str | None
    itself: str
    is_own: bool  # the login has this key alone, as under `email`; not one that it shares, as under `domain`

    @property
    def keys(self) -> list[str]:
        """The possible keys, the likeliest first."""
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
        self._sync = sync
        self._clock = clock

    def configure(self, settings: Keys) -> None:
        """Take how keys are normalised; at any time."""
        self._keys = settings

    # -- seeing ----------------------------------------------------------------------------------------------------

    async def show(self, command: Show) -> Answer:
        """An account under every limit. Raises Refused where none has seen it."""
        names = self._names(command.key)
        known = await self._known(names)
        shown: list[Answer] = []
        for name in names:
            limit = name.meter.limit.name
            found = [known[Account(limit, key)] for key in name.keys if (limit, key) in known]
            if found:
                shown.append(self._view(found[0], seen=True))
            elif name.of_login is not None and ("@" in command.key or not known):
                shown.append(self._view(self._unknown(name.meter, name.of_login), seen=False))
        return {"key": command.key, "found": bool(await self._targets(names)), "limits": shown}

    async def top(self, command: Top) -> AsyncIterator[Answer]:
        """The accounts that have sent most in their present period, again and again."""
        meters = [self._meter(command.limit)] if command.limit is not None else self._policy.meters
        while True:
            limits = [await self._ranking(meter, command.count) for meter in meters]
            yield {"time": self._clock(), "limits": limits}
            if command.once:
                return
            await trio.sleep(command.interval_s)

    async def _ranking(self, meter: Meter, count: int) -> Answer:
        now = int(self._clock())
        best = await most_used(meter, count, now)
        shown = [self._view(counter, seen=True) for counter in best]
        return {"limit": meter.limit.name, "period": meter.limit.period.name, "accounts": shown}

    def _view(self, counter: Counter, *, seen: bool) -> Answer:
        limit = counter.meter.limit
        unlimited = counter.quota == UNLIMITED
        return {
            "limit": limit.name,
            "key": counter.key,
            "period": limit.period.name,
            "quota": None if unlimited else counter.quota,
            "source": source(counter),
            "used": counter.used,
            "left": None if unlimited else max(0, counter.quota - counter.used),
            "not_stored": self._policy.pending.of(counter),
            "reset": counter.expiry,
            "reset_at": limit.period.describe(counter.expiry),
            "counts": "messages" if limit.by_message else "recipients",
            "enforced": limit.enforce,
            "seen": seen,
        }

    # -- doing -----------------------------------------------------------------------------------------------------

    async def set(self, command: Set) -> Answer:
        """Give an account a quota: in memory at once, then in the store."""
        names = self._named(command.key, command.limit)
        meter, key = await self._target(command.key, names)
        now = int(self._clock())
        counter = meter.find(key, now)
        was_persistent = counter is not None and counter.source is Source.PERSISTENT and not command.persist
        configured = meter.limit.configured_quota(key)
        if counter is not None:
            lasting = Source.PERSISTENT if command.persist else given_for_now(command.quota, configured)
            counter.give(command.quota, lasting)
        expiry = counter.expiry if counter is not None else meter.limit.period.end(now)
        grant = Grant(meter.limit.name, key, command.quota, configured, command.persist, expiry)
        try:
            await self._sync.edit(lambda store: store.grant(grant, now))
        except StoreError as error:
            in_force = "in force until then, but " if counter is not None else ""
            raise Refused(f"{in_force}not stored: {error}; repeat it when the store is back", NO) from error
        answer = self._view(meter.counters[key], seen=True)
        return answer | {"gave_up_persistent": was_persistent}

    async def reset(self, command: Reset) -> Answer:
        """Set what an account has used to 0, under the limit that is named or under every one it is counted by."""
        names = self._named(command.key, command.limit)
        targets = [await self._target(command.key, names)] if command.limit else await self._targets(names)
        if not targets:
            raise Refused(f"{command.key}: no limit has counted it", NO)
        accounts = [Account(meter.limit.name, key) for meter, key in targets]
        try:
            await self._sync.edit(lambda store: store.reset(accounts))
        except StoreError as error:
            raise Refused(f"nothing is changed: {error}", NO) from error
        counters = [meter.counters.get(key) for meter, key in targets]
        return {"key": command.key, "limits": [self._view(counter, seen=True) for counter in counters if counter]}

    # -- which account is meant ------------------------------------------------------------------------------------

    def _names(self, text: str) -> list[Name]:
        if not text.isprintable() or not text.strip():
            raise Refused(f"{text!r}: not a key")
        request = Request.of(
            f"request={POLICY_REQUEST}\nprotocol_state={AT_RECIPIENT}\nsasl_username={text}", self._keys.default_domain
        )
        own = {normalise(text, self._keys.lowercase), normalise(request.login, self._keys.lowercase)}
        names: list[Name] = []
        for meter in self._policy.meters:
            try:
                of_login = meter.limit.key_of(request)
            except KeyFailed:
                of_login = None
            names.append(Name(meter, of_login, normalise(text, self._keys.lowercase), of_login in own))
        return names

    def _named(self, text: str, limit: str | None) -> list[Name]:
        names = self._names(text)
        if limit is None:
            return names
        meter = self._meter(limit)
        return [name for name in names if name.meter is meter]

    def _meter(self, limit: str) -> Meter:
        for meter in self._policy.meters:
            if meter.limit.name == limit:
                return meter
        raise Refused(f"there is no limit {limit}; there are: {', '.join(t.limit.name for t in self._policy.meters)}")

    async def _targets(self, names: list[Name]) -> list[tuple[Meter, str]]:
        """The accounts that are the text's own, where it is known; else those that it would begin."""
        known = await self._known(names)
        found: list[tuple[Meter, str]] = []
        for name in names:
            keys = [key for key in name.keys if name.is_own or key == name.itself]
            found += [(name.meter, key) for key in keys if (name.meter.limit.name, key) in known][:1]
        return found

    async def _target(self, text: str, names: list[Name]) -> tuple[Meter, str]:
        """The one account that is meant. Raises Refused where it might be another."""
        targets = await self._targets(names)
        if not targets:
            targets = [(n.meter, n.keys[0]) for n in names if n.is_own or (n.of_login is None and len(names) == 1)]
        if len(targets) == 1:
            return targets[0]
        if not targets and len(names) == 1:
            (name,) = names
            raise Refused(f"under the limit {name.meter.limit.name} {text} is counted as {name.of_login}: name that")
        limits = ", ".join(name.meter.limit.name for name in names)
        raise Refused(f"{text}: say which limit is meant with --limit: {limits}")

    # -- what is known ---------------------------------------------------------------------------------------------

    async def _known(self, names: list[Name]) -> dict[Account, Counter]:
        """The counters of those accounts that somebody has seen. Raises Refused where nobody can say."""
        now = int(self._clock())
        asked = [(name.meter, Account(name.meter.limit.name, key)) for name in names for key in name.keys]
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

    def _unknown(self, meter: Meter, key: str) -> Counter:
        return meter.apart(key, None, int(self._clock()))


def source(counter: Counter) -> str:
    """Where a counter's quota comes from, in words."""
    limit = counter.meter.limit
    if counter.source is Source.PERSISTENT:
        return "database, persistent"
    if counter.source is Source.GRANTED:
        return f"database, until {limit.period.describe(counter.expiry)}"
    return _configured_by(limit, counter.key)


def _configured_by(limit: Limit, key: str) -> str:
    domain = "@" + key.rpartition("@")[2]
    for exception in (key, domain):
        if exception in limit.quotas:
            return f'limit {limit.name}, quotas."{exception}"'
    return f"limit {limit.name}"


def _find(meter: Meter, key: str, now: int) -> Counter | None:
    """A counter in memory that is based on what was charged or stored."""
    counter = meter.find(key, now)
    return None if counter is None or counter.is_new else counter
