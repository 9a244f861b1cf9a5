"""A limit as configured: whom it counts, over which period, how many recipients, what to answer beyond."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ratelimitd.action import Template
from ratelimitd.period import Period
from ratelimitd.request import Request

UNLIMITED = 0
"""A quota of 0 counts and never refuses, as the Perl daemon has it."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One `[[limit]]`. `key_of` gives the normalised key of a request, or None: the limit does not apply."""

    name: str
    key_name: str
    key_of: Callable[[Request], str | None]
    period: Period
    quota: int
    action: Template
    quotas: Mapping[str, int] = field(default_factory=dict)

    def configured_quota(self, key: str) -> int:
        """Recipients per period for a key: its own exception, else its domain's (`@a.domain`), else `quota`."""
        quotas = self.quotas
        if not quotas:
            return self.quota
        own = quotas.get(key)
        return own if own is not None else quotas.get("@" + key.rpartition("@")[2], self.quota)

    def refusal(self, key: str, used: int, quota: int, expiry: int) -> bytes:
        """The reply to a request that goes beyond the quota."""
        return self.action.render(
            used=used,
            quota=quota,
            key=key,
            period=self.period.name,
            reset=self.period.describe(expiry),
        )
