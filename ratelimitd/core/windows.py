"""Calendar periods: when the hour, day, week or month of an instant ends; and the period of one message.

Instants are whole seconds since 1970 (UTC). A boundary is the first instant whose local time is at or past the
start of an hour or day, so a day of 23 or 25 hours is exact, and an hour that a clock change repeats counts as two.
No clock is read here.
"""

from collections.abc import Callable
from datetime import date, datetime, timedelta, tzinfo
from typing import Literal, get_args

PeriodName = Literal["hourly", "daily", "weekly", "monthly"]
WeekStart = Literal["sunday", "monday"]
PERIODS: tuple[str, ...] = get_args(PeriodName)

_HOUR_S = 3600
_DAY_S = 24 * _HOUR_S
_APART_S = {"hourly": _HOUR_S // 2, "daily": _DAY_S // 2, "weekly": 7 * _DAY_S // 2, "monthly": 14 * _DAY_S}


class Period:
    """The windows of one period in one time zone; `end(now)` is the same for every instant of a window.

    `week_starts` is the first day of a weekly window; of the other periods it is not used.
    """

    def __init__(self, name: PeriodName, zone: tzinfo, week_starts: WeekStart) -> None:
        self.name: str = name
        self.zone = zone
        self._first_weekday = 6 if week_starts == "sunday" else 0
        self._next_date: Callable[[date], date] = {
            "hourly": _next_day,
            "daily": _next_day,
            "weekly": self._next_week,
            "monthly": _next_month,
        }[name]
        # Each replaced in one step: a flush asks in a thread of its own.
        self._window = 0, 0  # of the last answer
        self._next = -1, -1  # the ends of a window and of the next one

    @property
    def timezone(self) -> str:
        """The time zone, for people; of weeks also their first day."""
        first = f", weeks from {'sunday' if self._first_weekday == 6 else 'monday'}" if self.name == "weekly" else ""
        return f"{self.zone}{first}"[:64]

    @property
    def apart_s(self) -> int:
        """Windows whose ends are less than so many seconds apart, about half a period, are one: nodes in different
        time zones mean the same."""
        return _APART_S[self.name]

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

    def end(self, now: int) -> int:
        """The first boundary after now."""
        start, end = self._window
        if not start <= now < end:
            end = self._boundary(now)
            self._window = now, end
        return end

    def latest(self, now: int) -> int:
        """The end of the next window: the latest that a count of today may end at."""
        end = self.end(now)
        of, latest = self._next
        if of != end:
            latest = self._boundary(end)
            self._next = end, latest
        return latest

    def plausible(self, expiry: int, now: int) -> bool:
        """Whether a window that ends at `expiry` may be one of this period: over, the present one, or the next.

        One that ends later was begun under a clock that was ahead, or under a longer period: its count begins again.
        The next window is allowed for clocks that are put back: by less than a window they change nothing, so those
        of an hourly limit may be an hour behind, of a monthly one a month; an hour that a clock change repeats is a
        window of its own. By more than a window, and the counts of the window that had begun are lost.
        """
        return expiry <= self.latest(now)

    def _boundary(self, now: int) -> int:
        return self._hour_end(now) if self.name == "hourly" else self._date_end(now)

    def describe(self, instant: int) -> str:
        """A boundary in local time, for people: `2026-11-23 00:00 +0100`."""
        return datetime.fromtimestamp(instant, self.zone).strftime("%Y-%m-%d %H:%M %z")

    def _date_end(self, now: int) -> int:
        day = datetime.fromtimestamp(now, self.zone).date()
        while True:
            day = self._next_date(day)
            boundary = self._first_instant(day)
            if boundary > now:  # else the clocks were put back over this midnight: that day has begun already
                return boundary

    def _next_week(self, day: date) -> date:
        return day + timedelta(days=(self._first_weekday - day.weekday() - 1) % 7 + 1)

    def _first_instant(self, day: date) -> int:
        """The first instant of a local date; its 00:00 need not exist, nor be unique."""
        midnight = datetime(day.year, day.month, day.day, tzinfo=self.zone)
        before = int(midnight.timestamp())
        after = int(midnight.replace(fold=1).timestamp())
        if after >= before:
            return before
        return self._change(after, before)  # in a gap: the clocks jumped over midnight

    def _hour_end(self, now: int) -> int:
        offset = self._offset(now)
        end = now - (now + offset) % _HOUR_S + _HOUR_S
        later = self._offset(end)
        if later == offset:
            return end
        change = self._change(now, end)
        if (change + later) // _HOUR_S > (change - 1 + offset) // _HOUR_S:  # put forward, into or past the next hour
            return change
        return change + -(change + later) % _HOUR_S  # the next full hour by the new offset

    def _change(self, low: int, high: int) -> int:
        """The instant in (low, high] at which the offset changes to that of high."""
        wanted = self._offset(high)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._offset(middle) == wanted else (middle, high)
        return high

    def _offset(self, instant: int) -> int:
        offset = datetime.fromtimestamp(instant, self.zone).utcoffset()
        return round(offset.total_seconds()) if offset else 0


def _next_day(day: date) -> date:
    return day + timedelta(days=1)


def _next_month(day: date) -> date:
    return date(day.year + day.month // 12, day.month % 12 + 1, 1)


class Message(Period):
    """No window: the recipients of one SMTP transaction. Nothing of it is stored."""

    def __init__(self, zone: tzinfo) -> None:
        super().__init__("daily", zone, "sunday")  # of a calendar nobody asks for
        self.name = "message"

    def end(self, now: int) -> int:
        """0: what is counted is in no window, and never stored."""
        return 0

    def latest(self, now: int) -> int:
        """0, as `end`."""
        return 0

    def describe(self, instant: int) -> str:
        """When one may send again."""
        return "the next message"
