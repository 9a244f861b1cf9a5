"""What memory and a store exchange: rows as they are stored, and charges and quotas that are to be written."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

T = TypeVar("T")
NO_BOUND = 1 << 62
"""Later than every window."""


class Account(NamedTuple):
    """Whose count: one key under one limit."""

    limit: str
    key: str


class Row(NamedTuple):
    """One stored count. `expiry` and `updated` in seconds since 1970; expiry 0: never used.

    `configured` is the configured quota when the daemon last wrote the row, or None where somebody else created it: a
    quota that differs from it is an administrator's grant.
    """

    limit: str
    key: str
    quota: int
    configured: int | None
    persist: bool
    used: int
    expiry: int
    updated: int

    def quota_at(self, now: int, configured: int) -> int:
        """The quota that applies: a persistent one, else a grant in its window, else the configured one."""
        if self.persist:
            return self.quota
        if self.quota == self.configured:
            return configured
        # A grant made after its window ended is meant for the one that begins with the next mail.
        return self.quota if self.expiry > now or self.updated >= self.expiry else configured


class Delta(NamedTuple):
    """Recipients to add to the window of a count that ends at `expiry`.

    `quota` is what the row gets where this delta begins the window; `configured` is what the configuration says. A row
    whose window ends after `latest`, the end of the next window, is treated as if it had none: this delta replaces it.
    """

    limit: str
    key: str
    expiry: int
    used: int
    quota: int
    configured: int
    latest: int = NO_BOUND


class Known(NamedTuple):
    """What memory knows to be stored of an account: `delta.used` recipients, and its quota, which may `persist`."""

    delta: Delta
    persist: bool


class Grant(NamedTuple):
    """A quota that an administrator gives; without `persist` it lasts until `expiry`, the end of the window."""

    limit: str
    key: str
    quota: int
    configured: int
    persist: bool
    expiry: int


def slices(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The items, `size` at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
