"""Times of lines: every form, years that are not written, hours that come twice, and what is no time."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimitd.ctl.replay.times import Stamps
from tests.replay.logs import classic, ctime, iso

NOVEMBER = int(datetime(2026, 11, 26, 10, 0, 5, tzinfo=UTC).timestamp())
ZURICH = ZoneInfo("Europe/Zurich")
DAY_S = 86_400


def at(*local: int, zone: object = UTC) -> int:
    return int(datetime(*local, tzinfo=zone).timestamp())  # type: ignore[arg-type, misc]


def instants(stamps: Stamps, *lines: str) -> list[int | None]:
    read = [stamps.read(line.encode()) for line in lines]
    return [stamp and stamp[0] for stamp in read]


@pytest.mark.parametrize(
    "time",
    [
        "Nov 26 10:00:05 ",
        "<22>Nov 26 10:00:05 ",
        "<22>2026-11-26T10:00:05.123456Z ",
        "<22>1 2026-11-26T11:00:05.123456+01:00 ",
        "1 2026-11-26T10:00:05Z ",
        "Thu 2026-11-26 10:00:05 UTC ",
        "Thu 2026-11-26 10:00:05.123456 GMT ",
        "Nov 26 10:00:05.123456 ",
        "2026-11-26T10:00:05Z ",
        "2026-11-26T11:00:05.123456+01:00 ",
        "2026-11-26T05:00:05-0500 ",
        "2026-11-26 10:00:05 ",
        "2026-11-26 10:00:05,123 ",
        "Thu Nov 26 10:00:05 2026 ",
    ],
)
def test_every_form_is_read_to_its_end(time: str) -> None:
    assert Stamps(UTC, NOVEMBER).read(f"{time}mx1 postfix".encode()) == (NOVEMBER, len(time))


@pytest.mark.parametrize(
    "line",
    ["", "x", "Nov 31 10:00:05 mx", "Nov 26 24:00:05 mx", "Nov 26 10:60:05 mx", "Nov 00 10:00:05 mx",
     "Nvo 26 10:00:05 ",
     "2026-13-01T00:00:00Z mx", "2026-11-26T10:00:05Zmx", "9999-12-31T23:00:00Z mx", "0001-01-01T00:00:00 mx",
     "2026-11-26T10:00:05+99:99 mx", "Thu Nov 26 10:00:05 0000 mx"],
)  # fmt: skip
def test_what_is_no_time_is_none(line: str) -> None:
    assert instants(Stamps(UTC, NOVEMBER), line) == [None]


def test_the_first_date_is_in_the_latest_year_that_is_not_after_the_file() -> None:
    written = at(2026, 1, 3)
    assert instants(Stamps(UTC, written), "Dec 28 00:00:00 mx") == [at(2025, 12, 28)]
    assert instants(Stamps(UTC, written), "Jan  2 00:00:00 mx") == [at(2026, 1, 2)]


def test_after_december_comes_january() -> None:
    stamps = Stamps(UTC, at(2026, 1, 3))
    lines = ["Dec 31 23:59:59 mx", "Jan  1 00:00:00 mx", "Dec 31 23:59:58 mx", "Jan  2 10:00:00 mx"]
    assert instants(stamps, *lines) == [
        at(2025, 12, 31, 23, 59, 59), at(2026, 1, 1), at(2025, 12, 31, 23, 59, 58), at(2026, 1, 2, 10)
    ]  # fmt: skip


def test_a_log_of_a_whole_year_is_in_order() -> None:
    begin, written = at(2025, 2, 1), at(2026, 1, 20)
    days = range(begin, written, DAY_S)
    assert instants(Stamps(UTC, written), *[f"{classic(day)} mx" for day in days]) == [*days]


def test_dates_never_run_ahead_of_the_file() -> None:
    stamps = Stamps(UTC, NOVEMBER)
    placed = instants(stamps, *["Jan  1 00:00:00 mx", "Jul  1 00:00:00 mx"] * 50)
    assert all(place is not None and place <= NOVEMBER + DAY_S for place in placed)


def test_february_29_of_a_year_that_is_guessed_is_read() -> None:
    assert instants(Stamps(UTC, at(2026, 3, 5)), "Feb 28 00:00:00 mx", "Feb 29 00:00:00 mx") == [
        at(2026, 2, 28),
        at(2026, 3, 1),
    ]


def test_a_file_that_begins_on_february_29_is_of_a_leap_year() -> None:
    lines = ["Feb 29 23:00:00 mx", "Mar  1 00:00:00 mx"]
    assert instants(Stamps(UTC, at(2026, 3, 5)), *lines) == [at(2024, 2, 29, 23), at(2024, 3, 1)]
    assert instants(Stamps(UTC, at(2024, 2, 29, 23)), *lines[:1]) == [at(2024, 2, 29, 23)]


def test_local_times_are_those_of_the_zone() -> None:
    assert instants(Stamps(ZURICH, NOVEMBER), "Nov 26 11:00:05 mx", "2026-07-01T12:00:00 mx") == [
        NOVEMBER,
        at(2026, 7, 1, 10),
    ]


def test_the_hour_that_a_clock_change_repeats_comes_twice() -> None:
    begin = at(2026, 10, 25, 0, 10)
    moments = [begin + 600 * i for i in range(12)]  # 02:10 +0200 to 03:00 +0100
    assert instants(Stamps(ZURICH, NOVEMBER), *[f"{classic(m, ZURICH)} mx" for m in moments]) == moments


@given(st.integers(at(1971, 6, 1), at(2199, 1, 1)), st.sampled_from([iso, ctime]))
def test_what_is_written_is_read(moment: int, form: object) -> None:
    assert callable(form)
    assert instants(Stamps(UTC, NOVEMBER), f"{form(moment)} mx") == [moment]


CLASSIC = rb"[A-Z][a-z]{2} [ 0-3][0-9] [0-2][0-9]:[0-5][0-9]:[0-9]{2} x"
ISO = rb"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}[+-][0-9]{4} x"


@given(st.lists(st.one_of(st.binary(max_size=60), st.from_regex(CLASSIC), st.from_regex(ISO))))
def test_no_line_is_an_error(lines: list[bytes]) -> None:
    stamps = Stamps(ZURICH, NOVEMBER)
    for line in lines:
        found = stamps.read(line)
        assert found is None or 0 < found[0] < 1 << 33
