"""The counts in memory: what is known of every account of a limit.

A Meter holds the counters (counter.py) of one limit whose windows are fixed; sliding.py has the one of those that
slide.
"""

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Protocol

from ratelimitd.core.counter import PLAIN as PLAIN
from ratelimitd.core.counter import Counter as Counter
from ratelimitd.core.counter import Window as Window
from ratelimitd.core.counter import basis
from ratelimitd.core.epoch import Epoch
from ratelimitd.core.knowledge import Knowledge as Knowledge
from ratelimitd.core.limits import Limit
from ratelimitd.core.parts import NEVER
from ratelimitd.core.quotas import Bases, Held, Source, of_row
from ratelimitd.core.rows import Row

KEPT_LOGINS = 8192
NOTHING: Mapping[int, int] = {}
MAX_KEPT_CHARACTERS = 255
"""Counters are kept by login for so many logins of at most this length: 4 MB per limit."""


class PendingCounts(Protocol):
    """Who knows what is not stored yet: Pending."""

    def of(self, counter: "Counter") -> int: ...  # noqa: D102  as Pending


class Meter:
    """One limit's counters, by key."""

    kind: type[Counter] = Counter

    def __init__(self, limit: Limit, epoch: Epoch | None = None) -> None:
        self.limit = limit
        self.epoch = epoch or Epoch()  # ends when a count has lost, within its window, what had been charged to it
        self.counters: dict[str, Counter] = {}
        self.by_login: dict[str, Counter] = {}  # of recent logins, where the key depends on the login alone
        self.bases = Bases()
        self.untils: dict[str, int] = {}  # when the quotas end that are TIMED
        self.new: set[str] = set()  # accounts that have no row and were not charged
        self.earlier: dict[Counter, tuple[Counter, ...]] = {}  # of those that have some
        self.decisions: dict[str, int] = {}  # by status
        self.sweep_at = 0  # before that no account's window ends, as far as the limit's own windows go
        self.begun_again = 0  # counts whose window was none: it ended after the next one
        self.notice_percent = NEVER  # of a quota: at less the Watcher looks at no account
        self.notices: dict[Counter, int] = {}  # the use from which it looks again, of those that it has looked at

    def configure(self, limit: Limit, notice_percent: int = NEVER) -> None:
        """Apply this limit from now on. `notice_percent`: the least share of their quota at which somebody is notified
        of accounts; NEVER: nobody is.

        The accounts' quotas are left to `follow`, which takes some at a time: there may be many.
        """
        self.limit = limit
        self.by_login = {}
        self.sweep_at = 0
        self.notice_percent, self.notices = notice_percent, {}

    def forget(self) -> None:
        """Forget all accounts, for the meter is discarded: the garbage collector does not track counters, so it would
        not find that they and the meter refer to each other."""
        self.by_login = {}
        self.counters = {}
        self.earlier = {}
        self.notices = {}

    def first_notice(self, quota: int) -> int:
        """The use from which the Watcher looks at an account with this quota."""
        return -(-quota * self.notice_percent // 100) if quota and self.notice_percent < NEVER else NEVER

    def base(self, key: str) -> Held:
        """What holds for an account that has no quota of its own."""
        return self.bases.of(self.limit, key)

    def follow(self, keys: Iterable[str]) -> None:
        """Give these accounts their base as it is now, except those with a quota of their own."""
        for key in keys:
            counter = self.counters.get(key)
            if counter is not None and counter.source.is_base:
                counter.give(self.base(key))

    def find(self, key: str, now: int) -> Counter | None:
        """The account's counter in the present window, or None where the store must be asked first."""
        counter = self.counters.get(key)
        if counter is None or not counter.knowledge:
            return None
        if counter.valid_until <= now:
            if counter.expiry <= now:
                return self._renew(counter, now)
            counter.give(self.base(key))  # what was given until a time has ended
        if counter.expiry > self.limit.period.latest(now):
            self.begun_again += 1
            self.epoch.end()
            self._remove(key)
            return None
        return counter

    def replay(self, key: str, expiry: int, now: int) -> Counter:
        """A counter for what the journal has of an account's window, for `charge_again`; the latest is the account's.

        The store must be asked before it is decided on.
        """
        current, period = self.counters.get(key), self.limit.period
        if now < expiry <= period.latest_part(now) and not period.is_end(expiry):
            expiry = period.end(now)  # a part, or a window of another length: what it has is used in the present one
        if current is not None and period.common_end(current.expiry, expiry, now):
            current.expiry = max(current.expiry, expiry)
            return current
        counter = Counter(self, key, expiry, self.limit.configured_quota(key), basis=basis(knowledge=Knowledge.UNREAD))
        if not period.plausible(expiry, now):
            self.begun_again += 1
        elif current is None or current.expiry < expiry:
            self.counters[key] = counter
        return counter

    def charge_again(self, counter: Counter, recipients: int) -> None:
        """Charge a counter of `replay`."""
        counter.used += recipients

    def keep(self, login: str, counter: Counter) -> None:
        """Keep a login's counter in `by_login`; it holds until it is no longer valid, or its knowledge is UNREAD."""
        if self.limit.of_login and len(login) <= MAX_KEPT_CHARACTERS:
            if len(self.by_login) >= KEPT_LOGINS:
                self.by_login.clear()
            self.by_login[login] = counter

    def stand_in(self, key: str) -> Counter:
        """A placeholder for an account that is not known yet; it is not kept."""
        return Counter(self, key, 0, 0)

    def assume(self, key: str, now: int) -> Counter:
        """The account's counter while the store cannot be asked."""
        counter = self.counters.get(key)
        is_new = counter is None
        if counter is None or not now < counter.expiry <= self.limit.period.latest(now):
            counter = self._begin(key, now)
            self._note_new(key, is_new)
            counter.knowledge = Knowledge.UNREAD
        return self._assumed(counter)

    def accept(
        self, key: str, row: Row | None, pending: int, now: int, unstored: Mapping[int, int] = NOTHING
    ) -> Counter:
        """Take over what the store says. `pending`: how many of the counter's recipients are not stored yet; `unstored`
        has the same by the end of each window that the account has charges in."""
        counter = self.counters.get(key)
        before = (counter.expiry, counter.used) if counter is not None else (0, 0)
        latest = self.limit.period.latest(now)
        if row is not None and row.counts_in_parts:
            row = row.in_window(now, self.limit.period)
        if row is not None and row.expiry > latest:
            self.begun_again += 1
            self.epoch.end()
            row = row._replace(used=0, expiry=0)
        window = row.expiry if row is not None else 0
        is_new = row is None and not pending
        known_until = counter.expiry if counter is not None and counter.expiry <= latest else 0
        if counter is not None and (pending or known_until < window):
            common = self.limit.period.common_end(window, known_until, now)
            if common:  # of nodes in different time zones: what is pending counts in it, as in the store
                counter.expiry = known_until = window = common
        if counter is None or known_until <= now or window > known_until or (not pending and window != known_until):
            # The stored window counts while it lasts, whoever began it; the store drops a delta of another one.
            counter, pending = self._begin(key, now), 0
            if window > now and window != counter.expiry:  # else all accounts have the same object
                counter.expiry = window
        counter.knowledge = Knowledge.STORED
        self._note_new(key, is_new)
        counter.used = pending + (row.used if row is not None and window == counter.expiry else 0)
        if before[0] == counter.expiry and counter.used < before[1]:  # reset, or an administrator has put it back
            self.epoch.end()
        # If the counter's window is later than the row's (the clock was put back), the row's window has ended.
        counter.give(of_row(row, self.base(key), now, max(now, window) if window < counter.expiry else now))
        return counter

    def drop_ended(self, keys: Iterable[str], now: int, pending: PendingCounts) -> bool:
        """Forget those accounts whose window is over and stored; whether all that are over are forgotten."""
        all_stored = True
        for key in keys:
            counter = self.counters.get(key)
            if counter is not None and counter.ends <= now:
                if _is_stored(counter, pending):
                    self._remove(key)
                else:
                    all_stored = False
        return all_stored

    def evict(self, at_most: int, pending: PendingCounts) -> int:
        """Evict up to so many accounts that are stored, those known longest first; how many were evicted.

        They are looked up again at their next mail. What is not stored yet is never evicted.
        """
        stored = (key for key, c in self.counters.items() if _is_stored(c, pending))
        evicted = list(islice(stored, at_most))
        for key in evicted:
            self._remove(key)
        if evicted:  # what becomes of their counts from now on is not seen
            self.epoch.end()
        return len(evicted)

    def _assumed(self, counter: Counter) -> Counter:
        """The counter; unless it is known, with what holds while the store cannot be asked."""
        if not counter.knowledge:
            counter.knowledge = Knowledge.ASSUMED
            self.epoch.end()
            if counter.source.is_base:
                counter.give(self.base(counter.key))
        return counter

    def _remove(self, key: str) -> None:
        self.counters.pop(key).end()
        self.untils.pop(key, None)
        self.new.discard(key)

    def _note_new(self, key: str, is_new: bool) -> None:
        (self.new.add if is_new else self.new.discard)(key)

    def _begin(self, key: str, now: int) -> Counter:
        replaced = self.counters.get(key)
        if replaced is not None:
            replaced.end()
            key = replaced.key  # of equal texts the table keeps the first
            if replaced.source is Source.TIMED:
                self.untils.pop(key, None)
        quota, source, _ = self.base(key)
        counter = self.kind(self, key, self.limit.period.end(now), quota, basis=basis(source))
        self.counters[key] = counter
        return counter

    def _renew(self, ended: Counter, now: int) -> Counter:
        knowledge, until = ended.knowledge, ended.until
        counter = self._begin(ended.key, now)
        counter.knowledge = knowledge
        if ended.source is Source.PERSISTENT or until > now:
            counter.give(Held(ended.quota, ended.source, until))
        return counter


def _is_stored(counter: Counter, pending: PendingCounts) -> bool:
    return not pending.of(counter) and not any(map(pending.of, counter.earlier))
