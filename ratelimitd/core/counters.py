"""The counts in memory: what is known of every account.

A Counter is one account's count in one window. When its window is over a new Counter takes its place; the old one
lives on in the deltas that are not stored yet (pending.py), so that a delta always knows its window.
"""

from collections.abc import Iterable
from enum import IntEnum
from itertools import islice
from typing import TYPE_CHECKING

from msgspec import Struct

from ratelimitd.core.limits import Limit
from ratelimitd.core.rows import Row

if TYPE_CHECKING:
    from ratelimitd.core.pending import Pending

NEVER = 1 << 62
"""No count gets there."""
KEPT_LOGINS = 8192
MAX_KEPT_CHARACTERS = 255
"""Of longer logins no counter is kept by login; what is kept of all for a limit takes 4 MB at most."""


class Knowledge(IntEnum):
    """What a counter's `used` is based on."""

    UNREAD = 0  # charges from the journal alone, or it is its account's no more: the store is to be asked
    ASSUMED = 1  # the store could not be asked: the configured quota and a use of 0
    STORED = 2  # the stored count, and what was charged since


class Source(IntEnum):
    """Where a counter's quota comes from."""

    CONFIGURED = 0
    GRANTED = 1  # an administrator's, for this window only
    PERSISTENT = 2  # an administrator's, for good


class Counter(Struct, eq=False, gc=False):
    """One account's count in the window that ends at `expiry`. `used` includes what is not stored yet.

    The garbage collector does not walk these (gc=False): there may be a million, and their meter lives for ever.
    """

    meter: "Meter"
    key: str
    expiry: int
    quota: int
    used: int = 0
    source: Source = Source.CONFIGURED  # of the quota
    is_new: bool = False  # no row of it is known: its first charge is the account's INSERT
    knowledge: Knowledge = Knowledge.STORED
    notice_at: int = 0  # the use at which Policy.look is to be called

    def __post_init__(self) -> None:
        self.notice_at = self.meter.notice_from

    @property
    def limit(self) -> Limit:
        """The limit that it counts for, as configured now."""
        return self.meter.limit

    def give(self, quota: int, source: Source) -> None:
        """Set the quota and its source. Nothing else writes them: what was told of another quota is told again."""
        self.source = source
        if quota != self.quota:
            self.quota = quota
            self.notice_at = self.meter.notice_from


class Meter:
    """The counters of one limit, by key."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.counters: dict[str, Counter] = {}
        self.by_login: dict[str, Counter] = {}  # of the latest logins, where the key depends on the login alone
        self.window = ""  # window_of(window_end): mostly that of all charges
        self.window_end = -1
        self.decisions: dict[str, int] = {}  # by status
        self.notice_from = NEVER  # 0 where somebody is to be told of the accounts' use

    def window_of(self, expiry: int) -> str:
        """What the journal writes before a key: the limit and the window."""
        self.window_end = expiry
        self.window = f"\0{self.limit.name}\0{expiry}\0"
        return self.window

    def configure(self, limit: Limit, *, watched: bool) -> None:
        """Count by this limit from now on; `watched`: somebody is to know when accounts reach a share of their quota.

        The accounts' quotas are `follow`'s: there may be many.
        """
        self.limit = limit
        self.by_login = {}
        self.notice_from = 0 if watched else NEVER
        for counter in self.counters.values():
            counter.notice_at = self.notice_from

    def forget(self) -> None:
        """Let all accounts go; they and the meter hold each other, and the garbage collector does not see it."""
        self.by_login = {}
        self.counters = {}

    def follow(self, keys: Iterable[str]) -> None:
        """Give these accounts the quota that is configured now, but for those that the database gave theirs."""
        for key in keys:
            counter = self.counters.get(key)
            if counter is not None and counter.source is Source.CONFIGURED:
                counter.give(self.limit.configured_quota(key), Source.CONFIGURED)

    def find(self, key: str, now: int) -> Counter | None:
        """The account's counter in the window of now, or None where the store is to be asked first."""
        counter = self.counters.get(key)
        if counter is None or not counter.knowledge:
            return None
        return counter if counter.expiry > now else self._renew(counter, now)

    def keep(self, login: str, counter: Counter) -> None:
        """Have the counter of a login at hand; it serves as long as its window lasts and its knowledge is something."""
        if self.limit.of_login and len(login) <= MAX_KEPT_CHARACTERS:
            if len(self.by_login) >= KEPT_LOGINS:
                self.by_login.clear()
            self.by_login[login] = counter

    def stand_in(self, key: str) -> Counter:
        """In place of an account's counter that is not known yet; kept nowhere."""
        return Counter(self, key, 0, 0)

    def assume(self, key: str, now: int) -> Counter:
        """The account's counter while the store cannot be asked."""
        counter = self.counters.get(key)
        if counter is None:
            counter = self._begin(key, now)
            counter.is_new = True
            counter.knowledge = Knowledge.ASSUMED
        elif not counter.knowledge:
            counter.knowledge = Knowledge.ASSUMED
        return counter

    def accept(self, key: str, row: Row | None, pending: int, now: int) -> Counter:
        """Take over what the store says. `pending` is what the account's counter holds that is not stored yet."""
        counter = self.counters.get(key)
        window = row.expiry if row is not None else 0
        is_new = row is None and not pending
        known_until = counter.expiry if counter is not None else 0
        if counter is None or known_until <= now or window > known_until or (not pending and window != known_until):
            # The stored window counts while it lasts, whoever began it; a delta of another one is the store's to drop.
            counter, pending = self._begin(key, now), 0
            if window > now:
                counter.expiry = window
        counter.knowledge = Knowledge.STORED
        counter.is_new = is_new
        counter.used = pending + (row.used if row is not None and window == counter.expiry else 0)
        configured = self.limit.configured_quota(key)
        # Where the counter's window is later than the row's, for the clock was put back, the row's has ended.
        ended = row is not None and window < counter.expiry
        quota = configured if row is None else row.quota_at(max(now, window) if ended else now, configured)
        persistent = row is not None and row.persist
        counter.give(quota, Source.PERSISTENT if persistent else given_for_now(quota, configured))
        return counter

    def apart(self, key: str, row: Row | None, now: int) -> Counter:
        """The counter that would be kept for the account, kept nowhere: for those who only want to know."""
        other = Meter(self.limit)
        counter = other.assume(key, now) if row is None else other.accept(key, row, 0, now)
        counter.meter = self  # else the two hold each other, and the garbage collector does not see it
        return counter

    def drop_ended(self, keys: Iterable[str], now: int, pending: "Pending") -> None:
        """Forget those accounts whose window is over and stored."""
        for key in keys:
            counter = self.counters.get(key)
            if counter is not None and counter.expiry <= now and not pending.of(counter):
                self._remove(key)

    def evict(self, at_most: int, pending: "Pending") -> int:
        """Forget up to so many accounts that are stored, those known longest first; how many were forgotten.

        They are looked up again at their next mail. What is not stored yet is never forgotten.
        """
        stored = (key for key, c in self.counters.items() if not pending.of(c))
        evicted = list(islice(stored, at_most))
        for key in evicted:
            self._remove(key)
        return len(evicted)

    def _remove(self, key: str) -> None:
        self.counters.pop(key).knowledge = Knowledge.UNREAD

    def _begin(self, key: str, now: int) -> Counter:
        replaced = self.counters.get(key)
        if replaced is not None:
            replaced.knowledge = Knowledge.UNREAD
        counter = Counter(self, key, self.limit.period.end(now), self.limit.configured_quota(key))
        self.counters[key] = counter
        return counter

    def _renew(self, ended: Counter, now: int) -> Counter:
        knowledge = ended.knowledge
        counter = self._begin(ended.key, now)
        counter.is_new = ended.is_new
        counter.knowledge = knowledge
        if ended.source is Source.PERSISTENT:
            counter.give(ended.quota, Source.PERSISTENT)
        return counter


def given_for_now(quota: int, configured: int) -> Source:
    """The source of a quota that does not persist: a grant, unless it is the configured one."""
    return Source.CONFIGURED if quota == configured else Source.GRANTED
