"""What an administrator sees of accounts, and does with them: show, set, unset, reset, top.

It works on memory and store together: of a running daemon or, while none is running, of what one left.
"""

import time
from collections.abc import AsyncIterator, Callable

import msgspec
import trio

from ratelimitd.control.answers import (
    AccountHistory,
    AccountView,
    CountReset,
    CountsReset,
    LimitRanking,
    QuotaChanged,
    QuotaSet,
    QuotasUnset,
    Ranking,
    ShownAccount,
)
from ratelimitd.control.commands import NO, History, NotDone, Refused, Reset, Set, Show, Top, Unset
from ratelimitd.control.domains import Domains, is_domain
from ratelimitd.control.ends import end_of
from ratelimitd.control.history import Histories
from ratelimitd.control.naming import Naming
from ratelimitd.control.views import view
from ratelimitd.core.counters import Counter, Meter
from ratelimitd.core.limits import UNLIMITED
from ratelimitd.core.policy import Policy
from ratelimitd.core.quotas import Held, Source
from ratelimitd.core.rows import Account, Grant, Row
from ratelimitd.core.standing import apart
from ratelimitd.errors import OutcomeUnknown, StoreError
from ratelimitd.settings import Keys
from ratelimitd.stores import Store
from ratelimitd.sync.schedule import StoreSync
from ratelimitd.sync.walk import most_used


class Accounts:
    """The accounts of a policy, and the rows of domains."""

    def __init__(
        self,
        policy: Policy,
        sync: StoreSync,
        settings: Keys,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._policy = policy
        self._pending = policy.pending
        self._sync = sync
        self._clock = clock
        self._naming = Naming(policy, sync, settings, clock)
        self._domains = Domains(policy, sync, self._naming, clock)
        self._histories = Histories(sync, self._naming, clock)

    def configure(self, settings: Keys) -> None:
        """Take how keys are normalised; at any time."""
        self._naming.configure(settings)

    # -- seeing ----------------------------------------------------------------------------------------------------

    async def show(self, command: Show) -> ShownAccount:
        """An account under every limit. Raises Refused if that cannot be known."""
        if is_domain(command.key):
            return await self._domains.show(command)
        names = self._naming.names(command.key)
        known = await self._naming.known(names)
        limits: list[AccountView] = []
        for name in names:
            found = [known[Account(name.limit, key)] for key in name.keys if (name.limit, key) in known]
            if found:
                limits.append(self._view(found[0]))
            elif name.of_login is not None and ("@" in command.key or not known):
                would_be = apart(name.meter, name.of_login, None, int(self._clock()))
                limits.append(self._view(would_be, seen=False))
        return ShownAccount(command.key, bool(await self._naming.targets(names)), limits)

    async def history(self, command: History) -> AccountHistory:
        """What an account used in each window, under every limit. Raises Refused if that cannot be known."""
        if is_domain(command.key):
            raise Refused(f"{command.key}: a domain's row counts nothing", NO)
        return await self._histories.answer(command)

    async def top(self, command: Top) -> AsyncIterator[Ranking]:
        """The accounts that have used most in their present period, every `interval_s`. Raises Refused."""
        while True:  # a reload may add and remove limits meanwhile
            meters = [self._naming.meter(command.limit)] if command.limit is not None else self._policy.kept
            limits = [await self._ranking(meter, command) for meter in meters]
            yield Ranking(self._clock(), limits)
            if command.once:
                return
            await trio.sleep(command.interval_s)

    async def _ranking(self, meter: Meter, command: Top) -> LimitRanking:
        limit, now = meter.limit, int(self._clock())
        best = await most_used(meter, command.count, now, of_quota=command.sort == "share")
        # `find` ends quotas whose end nobody has noticed yet, for nobody has asked about these accounts since.
        return LimitRanking(limit.name, limit.period.name, [self._view(meter.find(c.key, now) or c) for c in best])

    def _view(self, counter: Counter, *, seen: bool = True) -> AccountView:
        return view(counter, self._pending, seen=seen)

    # -- changing --------------------------------------------------------------------------------------------------

    async def edit(self, command: Set | Unset | Reset) -> QuotaSet | QuotasUnset | CountsReset:
        """Change accounts. Raises Refused; NotDone where the store did not take it."""
        match command:
            case Set():
                return await self.set(command)
            case Unset():
                return await self.unset(command)
            case Reset():
                return await self.reset(command)

    async def set(self, command: Set) -> QuotaSet:
        """Give an account a quota: in memory at once, then in the store. Raises Refused."""
        if is_domain(command.key):
            return await self._domains.set(command)
        meter, key = await self._naming.target(command.key, self._naming.named(command.key, command.limit))
        limit, now = meter.limit, int(self._clock())
        until = end_of(command, limit, now)
        known = await self._naming.found([(meter, Account(limit.name, key))])
        before = known.get(Account(limit.name, key)) or apart(meter, key, None, now)
        was, was_persistent = before.quota, before.source is Source.PERSISTENT
        base = meter.base(key)
        if not (until or command.persist) and command.quota != base.quota:
            until = limit.period.lasting_until(now)
        counter = meter.find(key, now)
        expiry = counter.expiry if counter is not None else limit.period.end(now)
        if limit.sliding:  # nothing ends with it: when a part leaves is no end of a window
            expiry = 0
        if counter is not None:
            counter.give(_held(command, until, base))
        given = Grant(
            limit.name, key, command.quota, base.quota, command.persist, expiry, limit.period.latest(now), until
        )
        try:
            rows = await self._sync.edit(lambda store: self._grant(store, [(meter, given)], now))
        except StoreError as error:
            what = "it is not known whether it is stored" if isinstance(error, OutcomeUnknown) else "not stored"
            held = "it is in force until the store is back: repeat it then" if counter is not None else ""
            raise NotDone(f"{what}: {error}; {held or 'repeat it when the store is back'}") from error
        now_is = self._view(self._changed(self._naming.present(meter, "stored, but "), key, rows))
        return QuotaSet(
            **msgspec.structs.asdict(now_is),
            was=_quota(was),
            gave_up_persistent=was_persistent and not command.persist,
            persistent=command.persist,
            until_at=limit.period.describe(until) if until else None,
        )

    async def unset(self, command: Unset) -> QuotasUnset:
        """Take back the quotas of an account's own, under one limit or under every one. Raises Refused."""
        if is_domain(command.key):
            return await self._domains.unset(command)
        names = self._naming.named(command.key, command.limit)
        targets = [(meter, Account(meter.limit.name, key)) for meter, key in await self._naming.targets(names)]
        found = await self._naming.found(targets)
        now = int(self._clock())
        grants: list[tuple[Meter, Grant]] = []
        was: dict[str, int] = {}
        for meter, account in targets:
            counter = found.get(account)
            if counter is not None and not counter.source.is_base:
                base, latest = meter.base(account.key).quota, meter.limit.period.latest(now)
                grants.append((meter, Grant(*account, base, base, False, counter.expiry, latest)))
                was[account.limit] = counter.quota
        if not grants:
            raise Refused(f"{command.key}: no quota of its own is in force", NO)
        try:
            rows = await self._sync.edit(lambda store: self._grant(store, grants, now))
        except OutcomeUnknown as error:
            raise NotDone(f"it is not known whether it is stored: {error}; repeat it when the store is back") from error
        except StoreError as error:
            raise NotDone(f"nothing is changed: {error}") from error
        present = [(meter, grant.key) for meter, grant in grants if self._naming.is_present(meter)]
        views = [self._view(self._changed(meter, key, rows)) for meter, key in present]
        changed = [QuotaChanged(**msgspec.structs.asdict(one), was=_quota(was[one.limit])) for one in views]
        return QuotasUnset(command.key, changed)

    async def _grant(self, store: Store, grants: list[tuple[Meter, Grant]], now: int) -> list[Row]:
        """Write these; it may have waited for a flush, and a reload may have removed a limit meanwhile."""
        rows: list[Row] = []
        for meter, grant in grants:
            self._naming.present(meter)
            rows += await store.grant(grant, now)
        return rows

    async def reset(self, command: Reset) -> CountsReset:
        """Set what an account has used to 0, under one limit or under every one that counts it. Raises Refused."""
        if is_domain(command.key):
            raise Refused(f"{command.key}: a domain's row counts nothing", NO)
        naming = self._naming
        names = naming.named(command.key, command.limit)
        targets = [await naming.target(command.key, names)] if command.limit else await naming.targets(names)
        if not targets:
            raise Refused(f"{command.key}: no limit has counted it", NO)
        accounts = [Account(meter.limit.name, key) for meter, key in targets]
        was: dict[Account, int] = {}

        async def reset(store: Store) -> list[Row]:
            asked = list(zip((meter for meter, _ in targets), accounts, strict=True))
            was.update({account: counter.used for account, counter in (await naming.found(asked)).items()})
            return await store.reset(accounts, int(self._clock()))

        try:
            rows = await self._sync.edit(reset)
        except OutcomeUnknown as error:
            todo = f"when the store is back, look at `ratelimitctl show {command.key}`, and repeat it where it was not"
            raise NotDone(f"it is not known whether the count was reset: {error}; {todo}") from error
        except StoreError as error:
            raise NotDone(f"nothing is changed: {error}") from error
        if command.limit is not None:
            naming.present(targets[0][0], "stored, but ")
        views = [self._view(self._changed(meter, key, rows)) for meter, key in targets if naming.is_present(meter)]
        counts = [
            CountReset(**msgspec.structs.asdict(one), was=was.get(Account(one.limit, one.key), 0)) for one in views
        ]
        return CountsReset(command.key, counts)

    def _changed(self, meter: Meter, key: str, rows: list[Row]) -> Counter:
        """An account whose row was changed, as memory has it or, if it was evicted meanwhile, as the store has it."""
        now = int(self._clock())
        row = next((row for row in rows if (row.limit, row.key) == (meter.limit.name, key)), None)
        return meter.find(key, now) or apart(meter, key, row, now)


def _held(command: Set, until: int, base: Held) -> Held:
    """What holds for an account that is given this."""
    if command.persist:
        return Held(command.quota, Source.PERSISTENT)
    if until:
        return Held(command.quota, Source.TIMED, until)
    return base if command.quota == base.quota else Held(command.quota, Source.GRANTED)


def _quota(quota: int) -> int | None:
    return None if quota == UNLIMITED else quota
