"""What an administrator sees and does of the rows of domains: `@a.domain`, the quota of each account that has none of
its own. Such a row is no account: it counts nothing.
"""

import time
from collections.abc import Awaitable, Callable

import msgspec

from ratelimitd.control.answers import AccountView, QuotaChanged, QuotaSet, QuotasUnset, ShownAccount
from ratelimitd.control.commands import NO, NotDone, Refused, Set, Show, Unset
from ratelimitd.control.naming import Naming
from ratelimitd.control.views import view_of_domain
from ratelimitd.core.counters import Meter
from ratelimitd.core.policy import Policy
from ratelimitd.core.rows import Account, Grant, Row
from ratelimitd.errors import StoreError
from ratelimitd.stores import Store
from ratelimitd.sync.schedule import StoreSync


def is_domain(text: str) -> bool:
    """Whether a text names a domain, for all its accounts."""
    return text.strip(" \t").startswith("@")


class Domains:
    """The rows of domains."""

    def __init__(self, policy: Policy, sync: StoreSync, naming: Naming, clock: Callable[[], float] = time.time) -> None:
        self._policy = policy
        self._sync = sync
        self._naming = naming
        self._clock = clock

    async def show(self, command: Show) -> ShownAccount:
        """A domain's row under each limit that may have one, or what holds without. Raises Refused."""
        domain = self._naming.normal(command.key)
        views = [view for _, view in await self._views(domain, self._meters(domain, None))]
        return ShownAccount(command.key, any(view.seen for view in views), views)

    async def set(self, command: Set) -> QuotaSet:
        """Give each account of a domain a quota. Raises Refused."""
        if not command.persist:
            raise Refused(f"{command.key}: the quota of a domain is for good: --persist; `ratelimitctl unset` ends it")
        if command.until is not None or command.for_s is not None:
            raise Refused("--persist, --until and --for exclude each other")
        domain = self._naming.normal(command.key)
        meters = self._meters(domain, command.limit)
        if len(meters) > 1:
            limits = ", ".join(meter.limit.name for meter in meters)
            raise Refused(f"{command.key}: say which limit you mean with --limit: {limits}")
        ((meter, before),) = await self._views(domain, meters)
        view = await self._write(meter, domain, command.quota, persist=True)
        return QuotaSet(
            **msgspec.structs.asdict(view), was=before.quota, gave_up_persistent=False, persistent=True, until_at=None
        )

    async def unset(self, command: Unset) -> QuotasUnset:
        """Take back what a domain was given. Raises Refused."""
        domain = self._naming.normal(command.key)
        views = await self._views(domain, self._meters(domain, command.limit))
        given = [(meter, view) for meter, view in views if view.seen]
        if not given:
            raise Refused(f"{command.key}: no quota was given to the domain", NO)
        changed: list[QuotaChanged] = []
        for meter, before in given:
            now = await self._write(meter, domain, meter.limit.configured_quota(domain), persist=False)
            changed.append(QuotaChanged(**msgspec.structs.asdict(now), was=before.quota))
        return QuotasUnset(command.key, changed)

    def _meters(self, domain: str, limit: str | None) -> list[Meter]:
        """The limits that may have a row of the domain. Raises Refused where there is none."""
        meters = self._policy.kept if limit is None else [self._naming.meter(limit)]
        found = [meter for meter in meters if meter.limit.is_domain(domain)]
        if not found:
            raise Refused(f"{domain}: no limit counts accounts of a domain; where domains are counted, leave out the @")
        return found

    async def _views(self, domain: str, meters: list[Meter]) -> list[tuple[Meter, AccountView]]:
        try:
            rows = await self._sync.look_up([Account(meter.limit.name, domain) for meter in meters])
        except StoreError as error:
            raise Refused(str(error), NO) from error
        found = {row.limit: row for row in rows if row.key == domain}
        now = int(self._clock())
        return [(meter, view_of_domain(meter, domain, found.get(meter.limit.name), now)) for meter in meters]

    async def _write(self, meter: Meter, domain: str, quota: int, *, persist: bool) -> AccountView:
        limit, now = meter.limit, int(self._clock())
        given = Grant(limit.name, domain, quota, limit.configured_quota(domain), persist, expiry=0)

        def grant(store: Store) -> Awaitable[list[Row]]:
            self._naming.present(meter)
            return store.grant(given, now)

        try:
            rows = await self._sync.edit(grant)
        except StoreError as error:
            raise NotDone(f"not stored: {error}; repeat it when the store is back") from error
        return view_of_domain(self._naming.present(meter, "stored, but "), domain, rows[0] if rows else None, now)
