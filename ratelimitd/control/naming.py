"""Which account a text means, and what is known of it, in memory or in the store."""

import time
from collections.abc import Callable
from typing import NamedTuple

from ratelimitd.control.commands import NO, NotDone, Refused
from ratelimitd.core.counters import Counter, Meter
from ratelimitd.core.limits import KeyFailed
from ratelimitd.core.policy import AT_RECIPIENT, Policy
from ratelimitd.core.rows import Account
from ratelimitd.core.standing import apart
from ratelimitd.errors import StoreError
from ratelimitd.keys import normalise
from ratelimitd.request import POLICY_REQUEST, Request
from ratelimitd.settings import Keys
from ratelimitd.sync.schedule import StoreSync


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


class Naming:
    """The accounts of a policy by the texts that name them. Keys are normalised as the daemon's own."""

    def __init__(self, policy: Policy, sync: StoreSync, settings: Keys, clock: Callable[[], float] = time.time) -> None:
        self.configure(settings)
        self._policy = policy
        self._sync = sync
        self._clock = clock

    def configure(self, settings: Keys) -> None:
        """Take how keys are normalised; at any time."""
        self._lowercase, self._rules = settings.lowercase, settings.login_rules

    def normal(self, text: str) -> str:
        """A text as a key. Raises Refused."""
        if not text.isprintable() or not text.strip():
            raise Refused(f"{text!r}: not a key")
        return normalise(text, self._lowercase)

    def names(self, text: str) -> list[Name]:
        """What a text may mean under each limit. Raises Refused."""
        itself = self.normal(text)
        request = Request.under(
            self._rules, f"request={POLICY_REQUEST}\nprotocol_state={AT_RECIPIENT}\nsasl_username={text}"
        )
        own = {itself, normalise(request.login, self._lowercase)}
        names: list[Name] = []
        for meter in self._policy.kept:
            try:
                of_login = meter.limit.key_of(request)
            except KeyFailed:
                of_login = None
            names.append(Name(meter, of_login, itself, of_login in own))
        return names

    def named(self, text: str, limit: str | None) -> list[Name]:
        """The same, under one limit where it is given. Raises Refused."""
        names = self.names(text)
        if limit is None:
            return names
        meter = self.meter(limit)
        return [name for name in names if name.meter is meter]

    def meter(self, limit: str) -> Meter:
        """A limit's meter. Raises Refused."""
        for meter in self._policy.kept:
            if meter.limit.name == limit:
                return meter
        if any(meter.limit.name == limit for meter in self._policy.meters):
            raise Refused(f"the limit {limit} counts the recipients of one message: no account is kept under it")
        names = ", ".join(meter.limit.name for meter in self._policy.kept)
        raise Refused(f"there is no limit {limit}; there are: {names}")

    def is_present(self, meter: Meter) -> bool:
        """Whether its limit is still there: a reload may have removed it during an await."""
        return any(meter is other for other in self._policy.kept)

    def present(self, meter: Meter, done: str = "") -> Meter:
        """The meter; after each await. Raises Refused where a reload has removed its limit; NotDone after `done`."""
        if not self.is_present(meter):
            gone = f"{done}there is no limit {meter.limit.name} any more: a reload has just removed it"
            raise NotDone(gone) if done else Refused(gone, NO)
        return meter

    async def targets(self, names: list[Name]) -> list[tuple[Meter, str]]:
        """The accounts that the text means, of those that are known: its own, not one that it shares."""
        known = await self.known(names)
        found: list[tuple[Meter, str]] = []
        for name in filter(lambda name: self.is_present(name.meter), names):
            keys = [key for key in name.keys if name.is_own or key == name.itself]
            found += [(name.meter, key) for key in keys if (name.limit, key) in known][:1]
        return found

    async def target(self, text: str, names: list[Name]) -> tuple[Meter, str]:
        """The one account that is meant, known or not. Raises Refused if it is not certain which."""
        targets = await self.targets(names)
        if not targets:
            targets = [(n.meter, n.keys[0]) for n in names if n.is_own or (n.of_login is None and len(names) == 1)]
        if len(targets) == 1:
            ((meter, key),) = targets
            return self.present(meter), key
        if not targets and len(names) == 1:
            (name,) = names
            raise Refused(f"under the limit {name.limit} {text} is counted as {name.of_login}: give that key")
        limits = ", ".join(name.limit for name in names)
        raise Refused(f"{text}: say which limit you mean with --limit: {limits}")

    async def known(self, names: list[Name]) -> dict[Account, Counter]:
        """The counters of the accounts that memory or store know. Raises Refused if neither can be asked."""
        return await self.found([(name.meter, Account(name.limit, key)) for name in names for key in name.keys])

    async def found(self, asked: list[tuple[Meter, Account]]) -> dict[Account, Counter]:
        """The same of these accounts."""
        now = int(self._clock())
        found = {account: counter for meter, account in asked if (counter := _find(meter, account.key, now))}
        unknown = [account for _, account in asked if account not in found]
        try:
            rows = {Account(row.limit, row.key): row for row in await self._sync.look_up(unknown)}
        except StoreError as error:
            if found:
                return found
            raise Refused(f"not in memory, and {error}; `ratelimitctl check` says more", NO) from error
        for meter, account in asked:
            counter = _find(meter, account.key, now)
            if counter is not None:
                found[account] = counter
            elif account in rows:
                found[account] = apart(meter, account.key, rows[account], now)
        return found


def _find(meter: Meter, key: str, now: int) -> Counter | None:
    """A counter in memory, unless it was made without anything charged or stored."""
    counter = meter.find(key, now)
    return None if counter is None or counter.is_new else counter
