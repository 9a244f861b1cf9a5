"""Calendar windows, across every kind of clock change."""

import itertools
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimitd.core.calendars import PERIODS, Calendar, Length
from ratelimitd.core.windows import PeriodName, Sliding, WeekStart

ZONES = [
    "UTC",
    "Europe/Zurich",
    "America/New_York",
    "Australia/Lord_Howe",  # half an hour of summer time
    "America/Sao_Paulo",  # changed at midnight until 2019
    "America/Caracas",  # half an hour, for good, in 2007 and 2016
    "Africa/Cairo",
    "Asia/Beirut",
    "America/Havana",
    "America/St_Johns",  # changed at 00:01 until 2011, and its offset ends in :30
    "Asia/Kathmandu",
    "Asia/Kolkata",
    "Pacific/Apia",  # left out 30 December 2011
    "Pacific/Kwajalein",  # left out 21 August 1993
    "Asia/Gaza",
    "Antarctica/Troll",  # two hours of summer time
    "Africa/Casablanca",
    "America/Scoresbysund",
    "Africa/Monrovia",  # an offset with seconds until 1972
]
WEEK_STARTS: list[WeekStart] = ["sunday", "monday"]
FIRST, LAST = 0, int(datetime(2037, 12, 1, tzinfo=UTC).timestamp())


def at(text: str, zone: tzinfo) -> int:
    """A local time as an instant; one that ends in * is the second of a repeated hour."""
    local = datetime.strptime(text.rstrip("*"), "%Y-%m-%d %H:%M:%S").replace(tzinfo=zone, fold=int(text.endswith("*")))
    assert datetime.fromtimestamp(local.timestamp(), zone).replace(tzinfo=None) == local.replace(tzinfo=None)
    return int(local.timestamp())


def check(name: PeriodName, zone: tzinfo, now: str, end: str, week_starts: WeekStart = "sunday") -> None:
    fresh = Calendar(name, zone, week_starts).end(at(now, zone))
    assert datetime.fromtimestamp(fresh, zone) == datetime.fromtimestamp(at(end, zone), zone)
    used = Calendar(name, zone, week_starts)
    for other in (at(now, zone) - 1, at(end, zone), at(now, zone)):
        used.end(other)
    assert used.end(at(now, zone)) == fresh


@pytest.mark.parametrize(
    ("name", "now", "end"),
    [
        ("hourly", "2026-11-22 11:00:00", "2026-11-22 12:00:00"),
        ("hourly", "2026-11-22 11:59:59", "2026-11-22 12:00:00"),
        ("hourly", "2026-12-31 23:30:00", "2027-01-01 00:00:00"),
        ("daily", "2026-11-22 00:00:00", "2026-11-23 00:00:00"),
        ("daily", "2026-11-22 23:59:59", "2026-11-23 00:00:00"),
        ("daily", "2026-12-31 23:59:59", "2027-01-01 00:00:00"),
        ("daily", "2028-02-28 12:00:00", "2028-02-29 00:00:00"),
        ("daily", "2028-02-29 12:00:00", "2028-03-01 00:00:00"),
        ("daily", "2027-02-28 12:00:00", "2027-03-01 00:00:00"),
        ("weekly", "2026-11-21 23:59:59", "2026-11-22 00:00:00"),  # a Saturday
        ("weekly", "2026-11-22 00:00:00", "2026-11-29 00:00:00"),
        ("weekly", "2026-12-31 00:00:00", "2027-01-03 00:00:00"),
        ("weekly", "2028-02-28 00:00:00", "2028-03-05 00:00:00"),
        ("monthly", "2026-11-01 00:00:00", "2026-12-01 00:00:00"),
        ("monthly", "2026-12-31 23:59:59", "2027-01-01 00:00:00"),
        ("monthly", "2028-02-29 23:59:59", "2028-03-01 00:00:00"),
        ("monthly", "2026-01-31 00:00:00", "2026-02-01 00:00:00"),
    ],
)
@pytest.mark.parametrize("zone", ["UTC", "Europe/Zurich", "Asia/Kathmandu", "America/St_Johns"])
def test_the_calendar(name: PeriodName, now: str, end: str, zone: str) -> None:
    check(name, ZoneInfo(zone), now, end)


@pytest.mark.parametrize(
    ("now", "end"),
    [
        ("2026-11-22 23:59:59", "2026-11-23 00:00:00"),  # a Sunday
        ("2026-11-23 00:00:00", "2026-11-30 00:00:00"),
        ("2026-12-31 12:00:00", "2027-01-04 00:00:00"),
    ],
)
def test_weeks_may_begin_on_monday(now: str, end: str) -> None:
    check("weekly", ZoneInfo("Europe/Zurich"), now, end, "monday")


@pytest.mark.parametrize(
    ("zone", "name", "now", "end", "length_s"),
    [
        # Zurich: 2026-03-29 02:00 -> 03:00, 2026-10-25 03:00 -> 02:00
        ("Europe/Zurich", "daily", "2026-03-29 00:00:00", "2026-03-30 00:00:00", 23 * 3600),
        ("Europe/Zurich", "daily", "2026-10-25 00:00:00", "2026-10-26 00:00:00", 25 * 3600),
        ("Europe/Zurich", "weekly", "2026-03-29 00:00:00", "2026-04-05 00:00:00", 7 * 86400 - 3600),
        ("Europe/Zurich", "monthly", "2026-10-01 00:00:00", "2026-11-01 00:00:00", 31 * 86400 + 3600),
        ("Europe/Zurich", "hourly", "2026-03-29 01:00:00", "2026-03-29 03:00:00", 3600),
        ("Europe/Zurich", "hourly", "2026-10-25 02:00:00", "2026-10-25 02:00:00*", 3600),
        ("Europe/Zurich", "hourly", "2026-10-25 02:00:00*", "2026-10-25 03:00:00", 3600),
        # New York: 2026-03-08 02:00 -> 03:00, 2026-11-01 02:00 -> 01:00
        ("America/New_York", "daily", "2026-03-08 00:00:00", "2026-03-09 00:00:00", 23 * 3600),
        ("America/New_York", "daily", "2026-11-01 00:00:00", "2026-11-02 00:00:00", 25 * 3600),
        ("America/New_York", "hourly", "2026-11-01 01:30:00", "2026-11-01 01:00:00*", 1800),
        # Lord Howe: 2026-04-05 02:00 -> 01:30, 2026-10-04 02:00 -> 02:30
        ("Australia/Lord_Howe", "daily", "2026-04-05 00:00:00", "2026-04-06 00:00:00", 24 * 3600 + 1800),
        ("Australia/Lord_Howe", "daily", "2026-10-04 00:00:00", "2026-10-05 00:00:00", 24 * 3600 - 1800),
        ("Australia/Lord_Howe", "hourly", "2026-10-04 01:00:00", "2026-10-04 02:30:00", 3600),
        ("Australia/Lord_Howe", "hourly", "2026-10-04 02:30:00", "2026-10-04 03:00:00", 1800),
        ("Australia/Lord_Howe", "hourly", "2026-04-05 01:00:00", "2026-04-05 02:00:00", 5400),
        # Sao Paulo: 2018-11-04 00:00 -> 01:00 (no midnight), 2019-02-17 00:00 -> 2019-02-16 23:00
        ("America/Sao_Paulo", "daily", "2018-11-03 00:00:00", "2018-11-04 01:00:00", 24 * 3600),
        ("America/Sao_Paulo", "daily", "2018-11-04 01:00:00", "2018-11-05 00:00:00", 23 * 3600),
        ("America/Sao_Paulo", "weekly", "2018-10-28 00:00:00", "2018-11-04 01:00:00", 7 * 86400),
        ("America/Sao_Paulo", "hourly", "2018-11-03 23:00:00", "2018-11-04 01:00:00", 3600),
        ("America/Sao_Paulo", "daily", "2019-02-16 00:00:00", "2019-02-17 00:00:00", 25 * 3600),
        ("America/Sao_Paulo", "hourly", "2019-02-16 23:00:00", "2019-02-16 23:00:00*", 3600),
        # Caracas: 2016-05-01 02:30 -> 03:00, 2007-12-09 03:00 -> 02:30
        ("America/Caracas", "daily", "2016-05-01 00:00:00", "2016-05-02 00:00:00", 24 * 3600 - 1800),
        ("America/Caracas", "monthly", "2016-05-01 00:00:00", "2016-06-01 00:00:00", 31 * 86400 - 1800),
        ("America/Caracas", "hourly", "2016-05-01 02:00:00", "2016-05-01 03:00:00", 1800),
        ("America/Caracas", "hourly", "2007-12-09 02:00:00", "2007-12-09 03:00:00", 5400),
        # Cairo: 2023-04-28 00:00 -> 01:00, 2023-10-27 00:00 -> 2023-10-26 23:00
        ("Africa/Cairo", "daily", "2023-04-27 00:00:00", "2023-04-28 01:00:00", 24 * 3600),
        ("Africa/Cairo", "daily", "2023-10-26 00:00:00", "2023-10-27 00:00:00", 25 * 3600),
        # Beirut: 2026-03-29 00:00 -> 01:00, 2026-10-25 00:00 -> 2026-10-24 23:00
        ("Asia/Beirut", "daily", "2026-03-28 00:00:00", "2026-03-29 01:00:00", 24 * 3600),
        ("Asia/Beirut", "weekly", "2026-03-29 01:00:00", "2026-04-05 00:00:00", 7 * 86400 - 3600),
        ("Asia/Beirut", "daily", "2026-10-24 00:00:00", "2026-10-25 00:00:00", 25 * 3600),
        # Havana: 2025-03-09 00:00 -> 01:00, 2025-11-02 01:00 -> 00:00 (two midnights)
        ("America/Havana", "daily", "2025-03-08 00:00:00", "2025-03-09 01:00:00", 24 * 3600),
        ("America/Havana", "daily", "2025-11-01 00:00:00", "2025-11-02 00:00:00", 24 * 3600),
        ("America/Havana", "daily", "2025-11-02 00:00:00", "2025-11-03 00:00:00", 25 * 3600),
        ("America/Havana", "daily", "2025-11-02 00:30:00*", "2025-11-03 00:00:00", 24 * 3600 - 1800),
        ("America/Havana", "monthly", "2025-11-02 00:30:00*", "2025-12-01 00:00:00", 29 * 86400 - 1800),
        # St John's: 2010-11-07 00:01 -> 2010-11-06 23:01: the 7th begins, and goes on an hour later
        ("America/St_Johns", "daily", "2010-11-06 12:00:00", "2010-11-07 00:00:00", 12 * 3600),
        ("America/St_Johns", "daily", "2010-11-06 23:30:00*", "2010-11-08 00:00:00", 24 * 3600 + 1800),
        ("America/St_Johns", "weekly", "2010-11-06 23:30:00*", "2010-11-14 00:00:00", 7 * 86400 + 1800),
        # Apia: after 2011-12-29 comes 2011-12-31
        ("Pacific/Apia", "daily", "2011-12-29 00:00:00", "2011-12-31 00:00:00", 24 * 3600),
        ("Pacific/Apia", "daily", "2011-12-31 00:00:00", "2012-01-01 00:00:00", 24 * 3600),
        # Chatham: 2026-04-05 03:45 -> 02:45, in the middle of an hour, at a quarter
        ("Pacific/Chatham", "hourly", "2026-04-05 03:30:00", "2026-04-05 03:00:00*", 1800),
        ("Pacific/Chatham", "hourly", "2026-04-05 02:50:00*", "2026-04-05 03:00:00*", 600),
        ("Asia/Kolkata", "hourly", "2026-11-22 11:15:00", "2026-11-22 12:00:00", 2700),
        ("Asia/Kathmandu", "hourly", "2026-11-22 11:15:00", "2026-11-22 12:00:00", 2700),
    ],
)
def test_clock_changes(zone: str, name: PeriodName, now: str, end: str, length_s: int) -> None:
    where = ZoneInfo(zone)
    assert at(end, where) - at(now, where) == length_s
    check(name, where, now, end)


def test_a_fixed_offset_will_do_as_a_zone() -> None:
    zone = timezone(timedelta(hours=5, minutes=45))
    check("hourly", zone, "2026-11-22 11:15:00", "2026-11-22 12:00:00")
    check("monthly", zone, "2026-11-22 11:15:00", "2026-12-01 00:00:00")


def test_a_boundary_is_described_in_local_time_with_its_offset() -> None:
    zone = ZoneInfo("Europe/Zurich")
    period = Calendar("daily", zone, "sunday")
    assert period.describe(at("2026-11-23 00:00:00", zone)) == "2026-11-23 00:00 +0100"
    assert period.describe(at("2026-07-01 00:00:00", zone)) == "2026-07-01 00:00 +0200"


@pytest.mark.parametrize("instant", [253_402_300_800, 1_795_709_030_000, 1 << 62, 1 << 70, -(1 << 62)])
@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "America/Adak"])
def test_an_instant_that_no_calendar_has_is_described_too(instant: int, zone: str) -> None:
    assert Calendar("daily", ZoneInfo(zone), "sunday").describe(instant) == (
        "after the year 9999" if instant > 0 else "before the year 1"
    )


def changes(name: str) -> list[int]:
    """The first instants of all offsets of a zone, found by halving."""
    zone, found = ZoneInfo(name), []
    low = FIRST
    for high in range(FIRST, LAST, 5 * 86400):
        if datetime.fromtimestamp(high, zone).utcoffset() != datetime.fromtimestamp(low, zone).utcoffset():
            a, b = low, high
            while b - a > 1:
                middle = (a + b) // 2
                same = datetime.fromtimestamp(middle, zone).utcoffset() == datetime.fromtimestamp(a, zone).utcoffset()
                a, b = (middle, b) if same else (a, middle)
            found.append(b)
        low = high
    return found


CHANGES = {name: changes(name) or [FIRST] for name in ZONES}


@st.composite
def moments(draw: st.DrawFn) -> tuple[ZoneInfo, int]:
    """A zone and an instant, more often than not near one of its clock changes."""
    name = draw(st.sampled_from(ZONES))
    anywhere = st.integers(FIRST, LAST)
    near = st.builds(int.__add__, st.sampled_from(CHANGES[name]), st.integers(-2 * 86400, 2 * 86400))
    at_it = st.builds(int.__add__, st.sampled_from(CHANGES[name]), st.sampled_from([-3600, -1800, -1, 0, 1, 60, 3600]))
    return ZoneInfo(name), max(FIRST, draw(st.one_of(anywhere, near, at_it)))


names = st.sampled_from(PERIODS)
starts = st.sampled_from(WEEK_STARTS)


@given(moments(), names, starts, st.data())
def test_an_end_is_after_now_and_the_same_for_the_whole_window(
    moment: tuple[ZoneInfo, int], name: PeriodName, week_starts: WeekStart, data: st.DataObject
) -> None:
    zone, now = moment
    end = Calendar(name, zone, week_starts).end(now)
    assert end > now
    later = data.draw(st.one_of(st.integers(now, end - 1), st.integers(max(now, end - 7200), end - 1)))
    assert Calendar(name, zone, week_starts).end(later) == end
    assert Calendar(name, zone, week_starts).end(end) > end


@given(moments(), names, starts)
def test_windows_tile_time_however_they_are_walked(
    moment: tuple[ZoneInfo, int], name: PeriodName, week_starts: WeekStart
) -> None:
    zone, now = moment
    walking = Calendar(name, zone, week_starts)
    ends = [now]
    for _ in range(6):
        ends.append(walking.end(ends[-1]))
        assert Calendar(name, zone, week_starts).end(ends[-1] - 1) == ends[-1]
    longest = {"hourly": 3 * 3600, "daily": 26 * 3600, "weekly": 8 * 86400, "monthly": 32 * 86400}[name]
    assert all(0 < b - a <= longest for a, b in itertools.pairwise(ends))
    for back in reversed(ends[:-1]):  # a clock that is put back
        assert walking.end(back) == Calendar(name, zone, week_starts).end(back)


@given(moments(), names, starts)
def test_an_end_is_the_first_instant_of_its_local_date_or_hour(
    moment: tuple[ZoneInfo, int], name: PeriodName, week_starts: WeekStart
) -> None:
    zone, now = moment
    end = Calendar(name, zone, week_starts).end(now)
    local = datetime.fromtimestamp(end, zone)
    before = datetime.fromtimestamp(end - 1, zone)
    gap = local.utcoffset() != before.utcoffset()
    if name == "hourly":
        assert gap or (local.minute, local.second) == (0, 0)
        return
    assert local.date() > before.date()
    assert gap or (local.hour, local.minute, local.second) == (0, 0, 0)
    passed = {before.date() + timedelta(days=n) for n in range(1, (local.date() - before.date()).days + 1)}
    if name == "weekly":
        assert (6 if week_starts == "sunday" else 0) in {day.weekday() for day in passed}
    elif name == "monthly":
        assert 1 in {day.day for day in passed}


@given(moments(), st.integers(1, 400))
@settings(max_examples=50)
def test_every_midnight_is_a_boundary(moment: tuple[ZoneInfo, int], days: int) -> None:
    """No day is longer than one: counted in dates, `days` windows end `days` dates later, but for dates left out."""
    zone, now = moment
    period, instant = Calendar("daily", zone, "sunday"), Calendar("daily", zone, "sunday").end(now)
    first = datetime.fromtimestamp(instant, zone).date()
    for _ in range(days):
        instant = period.end(instant)
    passed = (datetime.fromtimestamp(instant, zone).date() - first).days
    assert passed - days in ((0, 1) if str(zone) in ("Pacific/Apia", "Pacific/Kwajalein") else (0,))


@pytest.mark.parametrize("name", PERIODS)
@given(st.sampled_from(ZONES), st.integers(FIRST, LAST))
def test_the_present_window_and_the_next_are_plausible_and_no_later_one(name: PeriodName, zone: str, now: int) -> None:
    period, other = (Calendar(name, ZoneInfo(zone), "sunday") for _ in range(2))
    end = other.end(now)
    assert period.plausible(end, now)
    assert period.plausible(other.end(end), now)
    assert not period.plausible(other.end(other.end(end)), now)
    assert period.end(now) == end
    assert all(period.plausible(expiry, now) for expiry in (0, now))


@pytest.mark.parametrize("name", PERIODS)
@given(st.sampled_from(ZONES), st.integers(FIRST, LAST), st.data())
def test_a_clock_put_back_by_less_than_a_window_makes_no_window_implausible(
    name: PeriodName, zone: str, now: int, data: st.DataObject
) -> None:
    """By less than the window that came before, which a clock change may make as short as half an hour."""
    now += 100 * 86400
    period = Calendar(name, ZoneInfo(zone), "sunday")
    before = now - data.draw(st.integers(0, 40 * 86400))
    end = period.end(now)
    if period.end(period.end(before)) >= end:
        assert period.plausible(end, before)
    else:
        assert not period.plausible(end, before)


# -- lengths -----------------------------------------------------------------------------------------------------------

DIVIDE_A_DAY = [1, 90, 600, 3600, 6 * 3600, 86_400]
OTHERS = [7, 100 * 60, 5 * 3600, 2 * 86_400, 7 * 86_400, 366 * 86_400]


@given(moments(), st.sampled_from([*DIVIDE_A_DAY, *OTHERS]))
def test_windows_of_a_length_tile_time(moment: tuple[ZoneInfo, int], length_s: int) -> None:
    zone, now = moment
    walking, ends = Length(length_s, zone), [now]
    for _ in range(5):
        ends.append(walking.end(ends[-1]))
        assert Length(length_s, zone).end(ends[-1] - 1) == ends[-1]
    assert all(0 < later - end <= length_s or length_s == 86_400 for end, later in itertools.pairwise(ends))
    assert walking.latest(now) == ends[2]


@given(moments(), st.sampled_from(DIVIDE_A_DAY))
def test_windows_of_a_length_that_divides_a_day_begin_at_midnight(moment: tuple[ZoneInfo, int], length_s: int) -> None:
    zone, now = moment
    midnight = Calendar("daily", zone, "sunday").end(now)
    period = Length(length_s, zone)
    assert period.end(midnight - 1) == midnight
    if length_s < 3600:
        assert period.end(midnight) == midnight + length_s


@given(moments(), st.sampled_from(OTHERS))
def test_other_windows_of_a_length_begin_at_1970_and_have_that_length(
    moment: tuple[ZoneInfo, int], length_s: int
) -> None:
    zone, now = moment
    period = Length(length_s, zone)
    end = period.end(now)
    assert period.latest(now) == end + length_s
    local = datetime(1970, 1, 1, tzinfo=zone).timestamp()
    assert (end - int(local)) % length_s == 0


@pytest.mark.parametrize(
    ("length_s", "now", "ends"),
    [
        (6 * 3600, "2026-03-29 00:30:00", ["07:00", "13:00", "19:00", "00:00"]),
        (6 * 3600, "2026-10-25 00:30:00", ["05:00", "11:00", "17:00", "23:00", "00:00", "06:00"]),
        (86_400, "2026-03-29 00:30:00", ["00:00", "00:00"]),
    ],
)
def test_on_a_day_of_a_clock_change_the_last_window_ends_with_the_day(length_s: int, now: str, ends: list[str]) -> None:
    zone = ZoneInfo("Europe/Zurich")
    period, instant, found = Length(length_s, zone), at(now, zone), []
    for _ in ends:
        instant = period.end(instant)
        found.append(datetime.fromtimestamp(instant, zone).strftime("%H:%M"))
    assert found == ends


@given(moments(), st.sampled_from([1, 20, 90, 1000, 3600, 86_400, 30 * 86_400]), st.data())
def test_what_a_part_has_leaves_never_early_and_one_part_late_at_most(
    moment: tuple[ZoneInfo, int], length_s: int, data: st.DataObject
) -> None:
    zone, now = moment
    period = Sliding(length_s, zone)
    leave = period.end(now)
    assert now + length_s < leave <= now + length_s + period.part_s
    assert period.part_s <= max(1, length_s / 60)
    assert Sliding(length_s, ZoneInfo("UTC")).end(now) == leave
    until = period.open_until(leave)
    assert until - period.part_s <= now < until
    later = data.draw(st.integers(now, until - 1))
    assert (period.end(later), period.end(until) > leave) == (leave, True)
