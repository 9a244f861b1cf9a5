"""What the accounts of one limit used, added up account by account: memory grows with neither accounts nor days' rows.

Each account comes once, with its rows in order; of all of them there are numbers, and the largest of each kind.
"""

from bisect import bisect_right
from collections import Counter as Counts
from collections.abc import Sequence
from typing import NamedTuple

from msgspec import Struct

from ratelimitd.core.limits import UNLIMITED, Limit
from ratelimitd.core.past import Used, past
from ratelimitd.core.quotas import Held, Source
from ratelimitd.core.windows import DAY_S, HOUR_S, Sliding
from ratelimitd.ctl.distribution import Distribution
from ratelimitd.ctl.report.largest import Largest

LISTED = 1000
"""Accounts of each list."""
LISTED_NEW = 100
"""Accounts whose first window is on one day."""
NEAR = 2
"""A quota is one that nobody comes near where this many times the greatest use is less."""


class OneDay(Struct):
    """What was used on a day."""

    recipients: int = 0
    accounts: int = 0
    beyond: int = 0


class Account(Struct):
    """What one account used in all windows; `beyond`: what was more than its quota. Times are instants of windows, as
    core/past.py has them."""

    key: str
    quota: int
    recipients: int = 0
    windows: int = 0
    worst: int = 0
    beyond: int = 0
    windows_over: int = 0
    first_over: int = 0
    last_over: int = 0
    begun: int = 0  # in its first window
    at_once: int = 0  # what it used in that


class Whose(NamedTuple):
    """A quota that several accounts may have: a limit's own (`of` is None), a domain's, one of `[limit.quotas]`."""

    of: str | None
    stored: bool


class Use(Struct):
    """What is used of a quota."""

    quota: int
    accounts: int = 0
    worst: int = 0

    @property
    def is_far(self) -> bool:
        """Whether nobody comes near it."""
        return self.quota != UNLIMITED and self.worst * NEAR < self.quota


class Totals:
    """One limit's; `midnights` are where the days begin, and the end of the last day."""

    def __init__(self, limit: Limit, midnights: Sequence[int]) -> None:
        self.limit = limit
        self.midnights = midnights
        self.recipients = self.accounts = self.beyond = self.accounts_over = 0
        self.begins = midnights[-1]  # an instant of the first window
        self.days = [OneDay() for _ in midnights[1:]]
        self.most: Largest[Account] = Largest(LISTED)
        self.over: Largest[Account] = Largest(LISTED)
        self.refused: Largest[Account] = Largest(LISTED)
        self.new = [Largest[Account](LISTED_NEW) for _ in self.days]
        self.own_quotas: Largest[tuple[str, Use]] = Largest(LISTED)
        named = {Whose(name, False): quota for name, quota in limit.quotas.items()}
        self.quotas = {whose: Use(quota) for whose, quota in [(Whose(None, False), limit.quota), *named.items()]}
        self._windows: Counts[int] = Counts()
        self._most: Counts[int] = Counts()

    @property
    def distribution(self) -> Distribution:
        """What was used in windows, and by accounts."""
        return Distribution(self._windows, self._most)

    @property
    def has_days(self) -> bool:
        """Whether it is known on which day something was used: windows are no longer than a day, parts than an hour."""
        period = self.limit.period
        return period.part_s <= HOUR_S if isinstance(period, Sliding) else 2 * period.apart_s <= DAY_S

    @property
    def knows_refused(self) -> bool:
        """Whether what is used beyond a quota is what was refused: otherwise that was not counted."""
        return self.limit.count_rejected or not self.limit.enforce

    def begin(self, key: str, held: Held) -> "Reading":
        """The next account, with the quota that holds for it."""
        return Reading(self, key, held)

    def day_of(self, instant: int) -> int:
        """The number of the day of an instant."""
        return min(max(bisect_right(self.midnights, instant) - 1, 0), len(self.days) - 1)

    @property
    def since(self) -> int:
        """Where the days begin."""
        return self.midnights[0]

    @property
    def since_day(self) -> int:
        """The number of the first day of which there is something; of the last day, if there is nothing."""
        return self.day_of(self.begins)

    def count_window(self, used: Used) -> None:
        """Count a window of an account."""
        self._windows[used.most] += 1

    def count(self, account: Account, held: Held) -> None:
        """Count an account that is complete."""
        self.accounts += 1
        self.recipients += account.recipients
        self._most[account.worst] += 1
        self.most.add(account.recipients, account)
        self.new[self.day_of(account.begun)].add(account.at_once, account)
        self.begins = min(self.begins, account.begun)
        if account.windows_over:
            self.accounts_over += 1
            self.beyond += account.beyond
            self.over.add(account.worst - account.quota, account)
            self.refused.add(account.beyond, account)
        self._count_quota(account, held)

    def _count_quota(self, account: Account, held: Held) -> None:
        if not held.source.is_base:
            use = Use(held.quota, 1, account.worst)
            if use.is_far:
                self.own_quotas.add(use.quota, (account.key, use))
            return
        if held.source is Source.DOMAIN:
            whose = Whose(self.limit.domain_of(account.key), True)
        else:
            whose = Whose(self.limit.exception_for(account.key), False)
        use = self.quotas.setdefault(whose, Use(held.quota))
        use.accounts += 1
        use.worst = max(use.worst, account.worst)


class Reading:
    """An account whose rows are read: `add` each, then `finish`."""

    def __init__(self, totals: Totals, key: str, held: Held) -> None:
        self._totals = totals
        self._held = held
        self._account = Account(key, held.quota)
        self._past = past(totals.limit.period, held.quota, totals.since)
        self._day = -1

    def add(self, end: int, used: int) -> None:
        """The next row."""
        window = self._past.add(end, used)
        if self._past.instant:
            self._count_day(self._past.instant, used)
        if window:
            self._take(window)

    def _count_day(self, instant: int, used: int) -> None:
        self._account.begun = self._account.begun or instant
        number = self._totals.day_of(instant)
        day = self._totals.days[number]
        day.recipients += used
        day.beyond += self._past.beyond
        if number != self._day:
            day.accounts += 1
            self._day = number

    def finish(self) -> None:
        """All rows were added."""
        if window := self._past.finish():
            self._take(window)
        if self._account.windows:
            self._totals.count(self._account, self._held)

    def _take(self, window: Used) -> None:
        self._totals.count_window(window)
        account = self._account
        if not account.windows:
            account.at_once = window.most
        account.windows += 1
        account.recipients += window.used
        if window.most > account.worst:
            account.worst = window.most
        if window.beyond:
            account.beyond += window.beyond
            account.windows_over += 1
            account.first_over = account.first_over or window.first
            account.last_over = window.first
