"""The rows of domains in memory: `@a.domain`, the quota of each account of a domain that has none of its own.

A domain's row is read whenever an account of it is looked up, and when it was changed. One that is deleted leaves no
trace, so those that are known are asked for again, some at a time. Accounts that are in memory follow later (`follow`):
no lookup waits for that.
"""

from collections.abc import Iterable
from itertools import islice

from ratelimitd.core.counters import Meter
from ratelimitd.core.policy import Policy
from ratelimitd.core.rows import Account, Delta, Known, Row
from ratelimitd.stores import Store
from ratelimitd.sync.walk import walk

AT_ONCE = 1000
"""Rows of domains under one limit that are asked for again in one turn."""


class DomainRows:
    """Takes rows of domains over into the policy's meters."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._changed: set[Meter] = set()  # whose accounts do not follow yet

    def of(self, accounts: Iterable[Account]) -> list[Account]:
        """Where the rows of these accounts' domains stand."""
        meters = self._meters
        found = {Account(limit, meters[limit].limit.domain_of(key)): None for limit, key in accounts if limit in meters}
        return [domain for domain in found if domain.key]

    def take(self, rows: Iterable[Row], asked: Iterable[Account] = ()) -> None:
        """Take over the rows of domains among these; of `asked`, those that are not there have none."""
        found = {Account(row.limit, row.key): row for row in rows if row.key.startswith("@")}
        meters = self._meters
        for domain in dict.fromkeys((*asked, *found)):
            meter = meters.get(domain.limit)
            if meter is None or not meter.limit.is_domain(domain.key):
                continue
            if meter.bases.apply(domain.key, found.get(domain)):
                self._changed.add(meter)

    async def follow(self) -> None:
        """Give the accounts in memory what holds now: there may be a million, so in slices."""
        while self._changed:
            meter = self._changed.pop()
            async for keys in walk(list(meter.counters)):
                meter.follow(keys)

    async def ask_again(self, store: Store) -> None:
        """See whether rows are gone, AT_ONCE under each limit: the ones asked for longest ago. Raises StoreError."""
        for name, meter in self._meters.items():
            # `take` puts each at the end.
            asked = [Account(name, domain) for domain in islice(meter.bases.domains, AT_ONCE)]
            if asked:
                self.take(await store.lookup(asked, 0), asked)

    def known(self, meter: Meter) -> list[Known]:
        """What memory knows of these rows under one limit."""
        limit = meter.limit
        return [
            Known(Delta(limit.name, domain, 0, 0, quota, limit.configured_quota(domain)), persist=True)
            for domain, quota in meter.bases.domains.items()
        ]

    @property
    def _meters(self) -> dict[str, Meter]:
        return {meter.limit.name: meter for meter in self._policy.all_meters}
