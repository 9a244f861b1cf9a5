"""What an account used, window by window, of what a store has kept: the end of each window, and what was used in it.

Of a sliding limit a store has parts. Here they are stretches of its period, one after the other since 1970, each with
what was used in it and the most that counted at any moment of it: what the quota is compared with. No I/O, no clock.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ratelimitd.core.limits import UNLIMITED
from ratelimitd.core.windows import Period, Sliding


class Used(NamedTuple):
    """A window that ends at `end`, in seconds since 1970.

    `most` is the most that counted at a time, in a fixed window all that was used; `beyond`: how much of what was used
    was more than the quota, and `first`, where there is some, an instant of the window, or part, that has the first.
    """

    end: int
    used: int
    most: int
    beyond: int = 0
    first: int = 0


class Past:
    """An account's windows under one limit, of rows in the order of their ends; from an instant on.

    `instant` and `beyond` are of the row that was added last: an instant of its window, or the one at which its part
    began; 0 where that is before those that are looked at; and how much of it was more than the quota.
    """

    def __init__(self, quota: int, since: int) -> None:
        self.instant = self.beyond = 0
        self._quota = quota
        self._since = since

    def add(self, end: int, used: int) -> Used | None:
        """The next row; a window that is complete with it."""
        if end <= self._since or not used:
            self._note(0, 0)
            return None
        beyond = used - self._quota if self._quota != UNLIMITED and used > self._quota else 0
        self._note(end - 1, beyond)
        return Used(end, used, used, beyond, end - 1 if beyond else 0)

    def _note(self, instant: int, beyond: int) -> None:
        self.instant, self.beyond = instant, beyond

    def finish(self) -> Used | None:
        """The last window, where it was not complete before."""
        return None


class SlidingPast(Past):
    """The same under a sliding limit: its rows are parts."""

    def __init__(self, period: Sliding, quota: int, since: int) -> None:
        super().__init__(quota, since)
        self._period = period
        self._counting: deque[tuple[int, int]] = deque()  # parts that have not left: when each leaves, what was used
        self._sum = 0
        self._stretch: Used | None = None

    def add(self, end: int, used: int) -> Used | None:
        """The next part; the stretch before it, where this part is the first one of another."""
        self._note(0, 0)
        if not used:
            return None
        length_s = self._period.length_s
        begin = end - length_s - self._period.part_s
        counting = self._counting
        while counting and counting[0][0] <= begin:
            self._sum -= counting.popleft()[1]
        counting.append((end, used))
        self._sum += used
        if begin < self._since:
            return None
        beyond = 0
        if self._quota != UNLIMITED and self._sum > self._quota:
            beyond = min(used, self._sum - self._quota)
        self._note(begin, beyond)
        before, until = self._stretch, begin - begin % length_s + length_s
        first = begin if beyond else 0
        if before is None or before.end != until:
            self._stretch = Used(until, used, self._sum, beyond, first)
            return before
        most = max(before.most, self._sum)
        self._stretch = Used(until, before.used + used, most, before.beyond + beyond, before.first or first)
        return None

    def finish(self) -> Used | None:
        """The last stretch."""
        return self._stretch


def past(period: Period, quota: int, since: int) -> Past:
    """For the windows of this period."""
    return SlidingPast(period, quota, since) if isinstance(period, Sliding) else Past(quota, since)


def windows(of: Past, rows: Iterable[tuple[int, int]]) -> Iterator[Used]:
    """All windows of these rows."""
    for end, used in rows:
        if window := of.add(end, used):
            yield window
    if window := of.finish():
        yield window


def begin(period: Period, end: int) -> int:
    """When the window begins that ends then, of `Used`; 0: there is none as the period is now."""
    return end - period.length_s if isinstance(period, Sliding) else period.begin(end)


def begin_at(period: Period, instant: int) -> int:
    """When the window began that an instant of `Past` or `Used` is in; of a sliding limit its part did then."""
    return instant if isinstance(period, Sliding) else period.begin(period.end(instant))
