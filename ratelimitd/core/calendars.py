"""Windows that a calendar cuts: hours, days, weeks, months, and lengths, in one time zone.

A boundary is the first instant whose local time is at or past the start of an hour or day, so a day of 23 or 25 hours
is exact, and an hour that a clock change repeats counts as two. No clock is read here.
"""

from collections.abc import Callable
from datetime import date, datetime, timedelta, tzinfo
from typing import get_args

from ratelimitd.core.windows import DAY_S, HOUR_S, Period, PeriodName, WeekStart, in_words

PERIODS: tuple[str, ...] = get_args(PeriodName)
_APART_S = {"hourly": HOUR_S // 2, "daily": DAY_S // 2, "weekly": 7 * DAY_S // 2, "monthly": 14 * DAY_S}


class _Days(Period):
    """What all windows need that begin at a local midnight."""

    def _first_instant(self, day: date) -> int:
        """The first instant of a local date; its 00:00 need not exist, nor be unique."""
        midnight = datetime(day.year, day.month, day.day, tzinfo=self.zone)
        before = int(midnight.timestamp())
        after = int(midnight.replace(fold=1).timestamp())
        if after >= before:
            return before
        return self._change(after, before)  # in a gap: the clocks jumped over midnight

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


class Calendar(_Days):
    """The hours, days, weeks or months of the calendar.

    `week_starts` is the first day of a weekly window; of the other periods it is not used.
    """

    def __init__(self, name: PeriodName, zone: tzinfo, week_starts: WeekStart) -> None:
        super().__init__(name, zone)
        self._period: PeriodName = name
        self._first_weekday = 6 if week_starts == "sunday" else 0
        self._next_date: Callable[[date], date] = {
            "hourly": _next_day,
            "daily": _next_day,
            "weekly": self._next_week,
            "monthly": _next_month,
        }[name]

    @property
    def timezone(self) -> str:
        """The time zone, for people; of weeks also their first day."""
        first = f", weeks from {'sunday' if self._first_weekday == 6 else 'monday'}" if self.name == "weekly" else ""
        return f"{self.zone}{first}"[:64]

    @property
    def apart_s(self) -> int:
        """About half a period."""
        return _APART_S[self._period]

    def _boundary(self, now: int) -> int:
        return self._hour_end(now) if self._period == "hourly" else self._date_end(now)

    def _date_end(self, now: int) -> int:
        day = datetime.fromtimestamp(now, self.zone).date()
        while True:
            day = self._next_date(day)
            boundary = self._first_instant(day)
            if boundary > now:  # else the clocks were put back over this midnight: that day has begun already
                return boundary

    def _next_week(self, day: date) -> date:
        return day + timedelta(days=(self._first_weekday - day.weekday() - 1) % 7 + 1)

    def _hour_end(self, now: int) -> int:
        offset = self._offset(now)
        end = now - (now + offset) % HOUR_S + HOUR_S
        later = self._offset(end)
        if later == offset:
            return end
        change = self._change(now, end)
        if (change + later) // HOUR_S > (change - 1 + offset) // HOUR_S:  # put forward, into or past the next hour
            return change
        return change + -(change + later) % HOUR_S  # the next full hour by the new offset


class Unknown(Calendar):
    """The windows of a limit that is configured no longer: as long as any, and any instant may be the end of one."""

    def __init__(self, zone: tzinfo) -> None:
        super().__init__("monthly", zone, "sunday")

    def is_end(self, instant: int) -> bool:
        """Yes, for all that is known."""
        return True


class Length(_Days):
    """Windows of one length, one after the other.

    If the length divides a day, the first one begins at local midnight, and the last one of a day ends with it, longer
    or shorter than the others only where the clocks are changed. If not, one began at 1970-01-01 00:00, and all have
    their exact length.
    """

    def __init__(self, length_s: int, zone: tzinfo) -> None:
        super().__init__(in_words(length_s), zone)
        self.length_s = length_s
        self._divides_a_day = DAY_S % length_s == 0
        self._first = self._first_instant(date(1970, 1, 1))

    @property
    def apart_s(self) -> int:
        """Half the length."""
        return max(1, self.length_s // 2)

    def _boundary(self, now: int) -> int:
        if not self._divides_a_day:
            return now + self.length_s - (now - self._first) % self.length_s
        day = datetime.fromtimestamp(now, self.zone).date()
        midnight = self._first_instant(day)
        if midnight > now:  # the clocks were put back over this midnight
            day -= timedelta(days=1)
            midnight = self._first_instant(day)
        while (next_midnight := self._first_instant(day := _next_day(day))) <= now:
            midnight = next_midnight
        return min(now + self.length_s - (now - midnight) % self.length_s, next_midnight)


def _next_day(day: date) -> date:
    return day + timedelta(days=1)


def _next_month(day: date) -> date:
    return date(day.year + day.month // 12, day.month % 12 + 1, 1)
