"""The time that a line of a log begins with: what instant it is, and where it ends.

    Nov 26 10:00:00                     syslog: local time, without a year
    2026-11-26T10:00:00.123456+01:00    ISO 8601, with or without an offset; after `<22>1 `: RFC 5424
    Thu 2026-11-26 10:00:00 CET         journalctl -o short-full
    Thu Nov 26 10:00:00 2026            ctime(3): the log file of the Perl daemon and of ratelimitd
    {"time": "2026-11-26T10:00:00.123+00:00", ...       the same with `format = "json"`

A date without a year is placed by the file's order. The first one is in the latest year that is not after the file's
end; each other one is the first such date that is not more than a week before the latest: lines may be a little out of
order, and after December comes January. Local time is that of the configured time zone.
"""

import re
from calendar import isleap
from collections.abc import Callable
from datetime import datetime, timedelta, tzinfo

from ratelimitd.core.windows import DAY_S, MINUTE_S

_MONTHS = {name: i for i, name in enumerate(b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1)}
_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_YEARS = range(1971, 2200)
_LEAP_DAY = b"Feb 29"
_DISORDER_S = 7 * DAY_S
_REPEATED_S = 1800
"""An hour that seems to begin again is the second one of a change from summer time."""

_MINUTE = rb"([A-Z][a-z]{2} [ 0-3][0-9] [012][0-9]:[0-5][0-9])"
_SECOND = rb":([0-6][0-9])"
_SECONDS = {b"%02d" % second: second for second in range(70)}
_SYSLOG = re.compile(rb"(?:<[0-9]{1,3}>)?" + _MINUTE + _SECOND + rb"(?:\.[0-9]{1,9})?() ")
_ISO_MINUTE = rb"([0-9]{4}-[0-9]{2}-[0-9]{2}[T ][012][0-9]:[0-5][0-9])"
_ISO_TIME = _ISO_MINUTE + _SECOND + rb"(?:[.,][0-9]{1,9})?+(Z|[+-][0-9]{2}:?[0-9]{2}|)"
_ISO = re.compile(rb"(?:<[0-9]{1,3}>)?(?:1 )?" + _ISO_TIME + b" ")
_FULL = re.compile(
    rb"[A-Z][a-z]{2} " + _ISO_MINUTE + _SECOND + rb"(?:\.[0-9]{1,9})? (?:(UTC|[+-][0-9]{2}(?:[0-9]{2})?)|[A-Z]{2,5}) "
)
_JSON = re.compile(rb'(?=\{"time": "' + _ISO_TIME + b'")')  # it is a field of what follows
_CTIME = re.compile(rb"[A-Z][a-z]{2} " + _MINUTE + _SECOND + rb" ([0-9]{4}) ")


class Stamps:
    """Reads the times of one file's lines, in their order.

    `modified`: when the file was written last. `first` and `latest` are the earliest and the latest instant so far;
    0: none was read.
    """

    def __init__(self, zone: tzinfo, modified: int) -> None:
        self.first = self.latest = 0
        self._zone = zone
        self._end = modified + DAY_S  # its clock may be another one
        self._forms: list[tuple[re.Pattern[bytes], Callable[[bytes, bytes], int | None]]]
        self._forms = [(_SYSLOG, self._syslog), (_ISO, self._iso), (_JSON, self._iso), (_CTIME, self._ctime)]
        self._forms.append((_FULL, self._full))
        self._pattern, self._hour_of = self._forms[0]  # of the form that was read last
        self._hour = self._minute = self._more = b""  # as they were written last
        self._hour_began: int | None = None
        self._minute_began: int | None = None
        self._again_s = 0  # how much later the hour may begin once more

    def read(self, line: bytes) -> tuple[int, int] | None:
        """The instant of a line, and where its time ends; None where it begins with none."""
        found = self._pattern.match(line) or self._in_another_form(line)
        if found is None:
            return None
        minute, second, more = found.groups()
        if minute != self._minute or more != self._more:
            self._minute_began = self._begin(minute, more)
        if self._minute_began is None:
            return None
        instant = self._minute_began + _SECONDS[second]
        if instant > self.latest:
            self.latest = instant
            if not self.first:
                self.first = instant
        elif instant < self.first:
            self.first = instant
        return instant, found.end()

    def _in_another_form(self, line: bytes) -> re.Match[bytes] | None:
        for pattern, hour_of in self._forms:
            found = pattern.match(line)
            if found is not None:
                self._pattern, self._hour_of = pattern, hour_of
                self._hour = self._minute = b""
                return found
        return None

    def _begin(self, minute: bytes, more: bytes) -> int | None:
        """When a minute began."""
        hour = minute[:-3]
        if hour != self._hour or more != self._more:
            self._again_s = 0
            self._hour_began = self._hour_of(hour, more)
        self._hour, self._minute, self._more = hour, minute, more
        if self._hour_began is None:
            return None
        began = self._hour_began + MINUTE_S * int(minute[-2:])
        if self._again_s and began + MINUTE_S < self.latest - _REPEATED_S:
            self._hour_began += self._again_s
            began += self._again_s
            self._again_s = 0
        return began

    def _syslog(self, hour: bytes, _: bytes) -> int | None:
        last = datetime.fromtimestamp(self._end, self._zone).year
        years = [year for year in range(last - 8, last + 1) if isleap(year)] if hour.startswith(_LEAP_DAY) else []
        if self.latest or not years:
            years = [last - 2, last - 1, last]
        places = [place for year in years if (place := self._dated(hour, year)) is not None]
        if not places:
            return None
        past = [place for place in places if place <= self._end] or places[:1]
        if not self.latest:
            return past[-1]
        return next((place for place in past if place >= self.latest - _DISORDER_S), past[-1])

    def _ctime(self, hour: bytes, year: bytes) -> int | None:
        return self._dated(hour, int(year))

    def _dated(self, hour: bytes, year: int) -> int | None:
        """When the hour "Nov 26 10" of a year began. February 29 is read in every year: the year may be a guess."""
        month, day = _MONTHS.get(hour[:3]), int(hour[4:6])
        if month is None or not 1 <= day <= _DAYS[month - 1] or year not in _YEARS:
            return None
        return self._local(datetime(year, month, 1, tzinfo=self._zone) + timedelta(days=day - 1), int(hour[7:9]))

    def _full(self, hour: bytes, zone: bytes | None) -> int | None:
        return self._iso(hour, b"Z" if zone == b"UTC" else zone or b"")  # another name is that of the local time

    def _iso(self, hour: bytes, offset: bytes) -> int | None:
        text = hour.decode()
        try:
            day = datetime(int(text[:4]), int(text[5:7]), int(text[8:10]), tzinfo=self._zone)
            if not offset:
                return self._local(day, int(text[11:])) if day.year in _YEARS else None
            exact = datetime.fromisoformat(f"{text[:10]}T{text[11:]}:00:00{offset.decode()}")
        except ValueError:
            return None
        return int(exact.timestamp()) if exact.year in _YEARS else None

    def _local(self, day: datetime, hour: int) -> int | None:
        if hour > 23:
            return None
        local = day.replace(hour=hour)
        began = int(local.timestamp())
        self._again_s = max(0, int(local.replace(fold=1).timestamp()) - began)
        return began
