"""Whose quota holds, in one order of precedence:

the account's row with persist = 1; its grant, until that ends; what `[limit.quotas]` says of the account; the row of
its domain (persist = 1); what `[limit.quotas]` says of the domain; `quota`. The last four are the account's base.

Nothing here knows how much is used, nor of windows: a grant for a window is what `Row.quota_at` says.
"""

from enum import IntEnum
from typing import NamedTuple

from ratelimitd.core.limits import Limit
from ratelimitd.core.rows import Row


class Source(IntEnum):
    """Where an account's quota comes from."""

    CONFIGURED = 0
    GRANTED = 1  # set by an administrator, for this window only
    PERSISTENT = 2  # set by an administrator, for all windows
    DOMAIN = 3  # the row of its domain
    TIMED = 4  # set by an administrator, until a time

    @property
    def is_base(self) -> bool:
        """Whether it is no quota of the account's own: it follows the configuration and its domain's row."""
        return self in (Source.CONFIGURED, Source.DOMAIN)


class Held(NamedTuple):
    """The quota that holds, and where it comes from; `until`: when it ends (seconds since 1970), where it is TIMED."""

    quota: int
    source: Source
    until: int = 0


class Bases:
    """What holds for the accounts of a limit that have no quota of their own.

    `domains` has the quotas of those `@a.domain` that are known to have a row with persist = 1; `apply` is its one
    writer. It may be read in any thread.
    """

    __slots__ = ("domains",)

    def __init__(self) -> None:
        self.domains: dict[str, int] = {}

    def of(self, limit: Limit, key: str) -> Held:
        """An account's base."""
        if self.domains and key not in limit.quotas:
            quota = self.domains.get(limit.domain_of(key))
            if quota is not None:
                return Held(quota, Source.DOMAIN)
        return Held(limit.configured_quota(key), Source.CONFIGURED)

    def apply(self, domain: str, row: Row | None) -> bool:
        """Take over the row of a domain, or that there is none; whether other quotas hold from now on."""
        before = self.domains.pop(domain, None)
        if row is not None and row.persist:
            self.domains[domain] = row.quota
        return before != self.domains.get(domain)


def of_row(row: Row | None, base: Held, now: int, at: int) -> Held:
    """What holds for an account with this row, or none. `at`: the instant that a grant without an end is judged by."""
    if row is None:
        return base
    if row.persist:
        return Held(row.quota, Source.PERSISTENT)
    if row.until > now:
        return Held(row.quota, Source.TIMED, row.until)
    quota = row.quota_at(at, base.quota)
    return base if quota == base.quota else Held(quota, Source.GRANTED)
