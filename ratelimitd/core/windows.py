"""Periods: when the window of an instant ends. Here are what all have in common, and those that no calendar cuts.

Instants are whole seconds since 1970 (UTC). No clock is read here. Windows that a calendar cuts are in calendars.py.
"""

import re
from abc import ABC, abstractmethod
from datetime import datetime, tzinfo
from typing import Literal

PeriodName = Literal["hourly", "daily", "weekly", "monthly"]
WeekStart = Literal["sunday", "monday"]

MINUTE_S = 60
HOUR_S = 60 * MINUTE_S
DAY_S = 24 * HOUR_S
LENGTHS_S: dict[str, int] = {"hourly": HOUR_S, "daily": DAY_S, "weekly": 7 * DAY_S, "monthly": 30 * DAY_S}
"""How long the named periods are where no calendar cuts them."""
LONGEST_S = 366 * DAY_S
PARTS = 60
"""A sliding window has so many parts, or a few more: a part is a whole number of seconds, and no longer than that."""

_UNITS_S = {"s": 1, "m": MINUTE_S, "h": HOUR_S, "d": DAY_S}
_UNIT_NAMES = {DAY_S: "day", HOUR_S: "hour", MINUTE_S: "minute", 1: "second"}
_LENGTH = re.compile(r"([1-9][0-9]{0,7})([smhd])")


def length_s(period: str) -> int | None:
    """The seconds of a named period or a length such as "10m"; None for anything else, and for over 366 days."""
    match = _LENGTH.fullmatch(period)
    seconds = int(match[1]) * _UNITS_S[match[2]] if match else LENGTHS_S.get(period, 0)
    return seconds if 0 < seconds <= LONGEST_S else None


def in_words(seconds: int) -> str:
    """A length as it stands before a noun: `10-minute`, `24-hour`."""
    unit_s = next(unit_s for unit_s in _UNIT_NAMES if seconds % unit_s == 0 and (unit_s < DAY_S or seconds > DAY_S))
    return f"{seconds // unit_s}-{_UNIT_NAMES[unit_s]}"


class Period(ABC):
    """The windows of one period; `name` is what people read: in replies (`{period}`), in `show`, in the log."""

    def __init__(self, name: str, zone: tzinfo) -> None:
        self.name = name
        self.zone = zone
        # Each replaced in one step: a flush asks in a thread of its own.
        self._window = 0, 0, 0  # of the last answer: from and until when it holds, and the answer
        self._next = -1, -1  # the ends of a window and of the next one

    @abstractmethod
    def _boundary(self, now: int) -> int:
        """The end of the window of now."""

    @property
    @abstractmethod
    def apart_s(self) -> int:
        """Windows whose ends are less than so many seconds apart, about half a period, are one: nodes in different
        time zones mean the same."""

    @property
    def timezone(self) -> str:
        """The time zone, for people."""
        return str(self.zone)[:64]

    def end(self, now: int) -> int:
        """When the window of now ends: the first instant after it. It is the same for every instant of a window."""
        start, until, end = self._window
        if not start <= now < until:
            end = self._boundary(now)
            self._window = now, self.open_until(end), end
        return end

    def begin(self, end: int) -> int:
        """When the window begins that ends then; of sliding ones, the part that leaves then. 0: there is none."""
        if self._boundary(end - 1) != end:
            return 0
        before = end - 1
        while (begin := self._boundary(before)) == end:
            before -= self.apart_s
        while (later := self._boundary(begin)) < end:
            begin = later
        return begin

    def open_until(self, end: int) -> int:
        """Until when charges go to the window that ends then: as a rule, until it ends."""
        return end

    def lasting_until(self, now: int) -> int:
        """Until when a quota lasts that is given for a period, where no window ends it; 0: the window's end does."""
        return 0

    def notified_until(self, end: int) -> int:
        """Until when an account that was notified in the window that ends then is not notified of the same again."""
        return end

    def latest(self, now: int) -> int:
        """The end of the next window: the latest that a count of today may end at."""
        end = self.end(now)
        of, latest = self._next
        if of != end:
            latest = self._boundary(end)
            self._next = end, latest
        return latest

    def latest_part(self, now: int) -> int:
        """The latest that a part may leave which was counted while the limit's windows slid; those of as long a period
        may all leave by then."""
        return max(self.latest(now), now + 2 * self.overlap_s(now))

    def overlap_s(self, now: int) -> int:
        """Windows that both run are one, too, if their ends are less than so many seconds apart: the length of the next
        window. Windows of one time zone are never so near to each other."""
        return self.latest(now) - self.end(now)

    def common_end(self, row: int, count: int, now: int) -> int:
        """When the one window ends that the running windows of a row and of a count are, 0 if they are two.

        The later end holds; but if the count's is later by more than half a period, the row's does: for all that is
        known, nearly all of what the row has was used before the count's window began, and would be carried into it.
        """
        if now < min(row, count) and abs(row - count) < max(self.apart_s, self.overlap_s(now)):
            return row if count - row > self.apart_s else max(row, count)
        return 0

    def plausible(self, expiry: int, now: int) -> bool:
        """Whether a window that ends at `expiry` may be one of this period: over, the present one, or the next.

        One that ends later was begun under a clock that was ahead, or under a longer period: its count begins again.
        The next window is allowed for clocks that are put back: by less than a window they change nothing, so those
        of an hourly limit may be an hour behind, of a monthly one a month; an hour that a clock change repeats is a
        window of its own. By more than a window, and the counts of the window that had begun are lost.
        """
        return expiry <= self.latest(now)

    def describe(self, instant: int) -> str:
        """A boundary in local time, for people: `2026-11-23 00:00 +0100`, with seconds where there are some."""
        seconds = "" if instant % MINUTE_S == 0 else ":%S"
        try:
            return datetime.fromtimestamp(instant, self.zone).strftime(f"%Y-%m-%d %H:%M{seconds} %z")
        except (ValueError, OverflowError, OSError):
            return "after the year 9999" if instant > 0 else "before the year 1"


class Sliding(Period):
    """The last `length_s` seconds, at any moment: a sum of parts of `part_s` seconds, aligned to 1970.

    A part leaves `length_s` after its end, so what was counted leaves never early, and one part late at most. Time
    zones and changes to summer time mean nothing to it. What `end` says is when the part of now leaves.
    """

    def __init__(self, length_s: int, zone: tzinfo) -> None:
        super().__init__(f"sliding {in_words(length_s)}", zone)
        self.length_s = length_s
        self.part_s = max(1, length_s // PARTS)
        self._part = 0, 0  # the last answer of open_until

    @property
    def apart_s(self) -> int:
        """1: parts are exact, and the same on all nodes."""
        return 1

    def overlap_s(self, now: int) -> int:
        """1: two parts are never one."""
        return 1

    def _boundary(self, now: int) -> int:
        return (now // self.part_s + 1) * self.part_s + self.length_s

    def begin(self, end: int) -> int:
        """When the part begins that leaves then; 0: none does."""
        begin = end - self.length_s - self.part_s
        return 0 if begin % self.part_s else begin

    def lasting_until(self, now: int) -> int:
        """One period from now."""
        return now + self.length_s

    def notified_until(self, end: int) -> int:
        """The next multiple of the length, on every node: so it is once in a period, and twice at most."""
        return -(-end // self.length_s) * self.length_s

    def latest(self, now: int) -> int:
        """The latest that a part may leave: a period after that of now; clocks may be put back by so much."""
        return self.end(now) + self.length_s

    def open_until(self, end: int) -> int:
        """When the part ends that leaves then: one object for all accounts, for there may be a million."""
        leave, until = self._part
        if leave != end:
            until = end - self.length_s
            self._part = end, until
        return until


class Message(Period):
    """No window: the recipients of one SMTP transaction. Nothing of it is stored."""

    def __init__(self, zone: tzinfo) -> None:
        super().__init__("message", zone)

    @property
    def apart_s(self) -> int:
        """1: nothing is compared."""
        return 1

    def _boundary(self, now: int) -> int:
        return 0

    def end(self, now: int) -> int:
        """0: what is counted is in no window, and never stored."""
        return 0

    def begin(self, end: int) -> int:
        """0, as `end`."""
        return 0

    def latest(self, now: int) -> int:
        """0, as `end`."""
        return 0

    def describe(self, instant: int) -> str:
        """When one may send again."""
        return "the next message"
