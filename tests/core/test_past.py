"""What an account used, window by window, of its rows in the history; and when windows begin."""

from collections.abc import Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimitd.core.calendars import Calendar, Length
from ratelimitd.core.past import Used, begin, begin_at, past, windows
from ratelimitd.core.policy import Rules
from ratelimitd.core.windows import DAY_S, HOUR_S, Message, Period, Sliding
from ratelimitd.ctl.replay.lines import Login
from ratelimitd.ctl.replay.mails import Mail
from ratelimitd.ctl.replay.trial import Trial
from ratelimitd.logins import LoginRules
from tests.core.build import MIDNIGHT, NOON, limit, make_period

ZURICH = ZoneInfo("Europe/Zurich")
ZONES = ["UTC", "Europe/Zurich", "America/Santiago", "Asia/Kolkata", "Pacific/Apia", "Africa/Cairo"]
INSTANTS = st.integers(1_200_000_000, 1_900_000_000)


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZURICH).timestamp())


# -- when windows begin ----------------------------------------------------------------------------------------------


def periods(zone: str) -> list[Period]:
    info = ZoneInfo(zone)
    calendars: list[Period] = [Calendar("hourly", info, "sunday"), Calendar("daily", info, "sunday"),
                               Calendar("weekly", info, "monday"), Calendar("monthly", info, "sunday")]  # fmt: skip
    return [*calendars, *[Length(seconds, info) for seconds in (1, 90, 600, 6 * HOUR_S, 7 * HOUR_S, 30 * DAY_S)]]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(ZONES), st.integers(0, 9), INSTANTS)
def test_a_window_begins_where_the_one_before_ends(zone: str, number: int, now: int) -> None:
    period = periods(zone)[number]
    end = period.end(now)
    first = period.begin(end)
    assert first <= now < end
    assert period.end(first) == end
    assert period.end(first - 1) == first


@pytest.mark.parametrize(("end", "hours"), [("2026-03-30", 23), ("2026-10-26", 25), ("2026-11-26", 24)])
def test_a_day_of_23_or_25_hours_begins_at_its_midnight(end: str, hours: int) -> None:
    assert Calendar("daily", ZURICH, "sunday").begin(at(end)) == at(end) - hours * HOUR_S


def test_where_no_window_ends_none_begins() -> None:
    daily = Calendar("daily", ZURICH, "sunday")
    assert daily.begin(at("2026-11-26 01:00")) == 0
    assert Sliding(600, ZURICH).begin(NOON + 605) == 0
    assert Message(ZURICH).begin(0) == 0


def test_the_begin_of_a_part_is_that_of_its_counting() -> None:
    period = Sliding(HOUR_S, ZURICH)
    assert period.begin(period.end(NOON + 59)) == NOON
    assert period.begin(period.end(NOON + 60)) == NOON + 60


# -- windows ---------------------------------------------------------------------------------------------------------


def of(period: Period, quota: int, rows: Sequence[tuple[int, int]], since: int = 0) -> list[Used]:
    return list(windows(past(period, quota, since), rows))


def test_a_row_of_a_fixed_limit_is_a_window() -> None:
    days = [at(f"2026-11-{day}") for day in (23, 24, 26)]
    found = of(Calendar("daily", ZURICH, "sunday"), 10, [(days[0], 3), (days[1], 0), (days[2], 14)])
    assert found == [
        Used(days[0], 3, 3),
        Used(days[2], 14, 14, beyond=4, first=days[2] - 1),
    ]
    assert [begin(Calendar("daily", ZURICH, "sunday"), used.end) for used in found] == [
        at("2026-11-22"), at("2026-11-25"),
    ]  # fmt: skip
    assert begin_at(Calendar("daily", ZURICH, "sunday"), found[1].first) == at("2026-11-25")


def test_a_window_that_is_none_as_configured_now_has_no_begin() -> None:
    end = at("2026-11-23 01:00")
    daily = Calendar("daily", ZURICH, "sunday")
    assert of(daily, 2, [(end, 3)]) == [Used(end, 3, 3, 1, end - 1)]
    assert begin(daily, end) == 0


def test_windows_that_ended_before_are_left_out() -> None:
    day = MIDNIGHT
    assert [used.end for used in of(make_period("daily"), 0, [(day, 1), (day + DAY_S, 1)], since=day)] == [day + DAY_S]


def test_an_unlimited_quota_is_never_exceeded() -> None:
    assert of(make_period("daily"), 0, [(MIDNIGHT, 9)])[0].beyond == 0
    assert of(make_period("1h", "sliding"), 0, [(NOON + HOUR_S + 60, 9)])[0].beyond == 0


def test_parts_are_stretches_of_the_period_each_with_the_most_at_once() -> None:
    """8 between 12:50 and 13:00, 5 at 13:10 while these count, 4 at 13:59 when none does."""
    period = Sliding(HOUR_S, ZURICH)
    counted = [(NOON + 50 * 60, 6), (NOON + 55 * 60, 2), (NOON + 70 * 60, 5), (NOON + 119 * 60, 4)]
    rows = [(period.end(when), used) for when, used in counted]
    assert of(period, 10, rows) == [
        Used(NOON + HOUR_S, 8, 8),
        Used(NOON + 2 * HOUR_S, 9, 13, beyond=3, first=NOON + 70 * 60),
    ]
    assert begin(period, NOON + HOUR_S) == NOON
    assert begin_at(period, NOON + 70 * 60) == NOON + 70 * 60


def test_parts_before_the_first_stretch_count_in_it_where_they_had_not_left() -> None:
    period = Sliding(HOUR_S, ZURICH)
    rows = [(period.end(NOON - 600), 6), (period.end(NOON + 60), 5)]
    assert of(period, 10, rows, since=NOON) == [Used(NOON + HOUR_S, 5, 11, 1, NOON + 60)]


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([("1h", "sliding"), ("10m", "sliding"), ("90s", "sliding"), ("hourly", "fixed"), ("6h", "fixed")]),
    st.integers(0, 25),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(1, 9)), min_size=1, max_size=40),
)
def test_windows_are_those_that_replay_finds(
    of_limit: tuple[str, str], quota: int, mails: list[tuple[int, int]]
) -> None:
    """The same mails, decided on by the core itself: what is tried, and what is refused, and when first."""
    asked = limit(quota, period=of_limit[0], window=of_limit[1])  # type: ignore[arg-type]
    trial = Trial([asked], Rules(b"action=DUNNO\n\n", 0.0), LoginRules())
    rows: dict[int, int] = {}
    now = NOON
    for number, (after, recipients) in enumerate(mails):
        now += after
        login = Login(b"mx1 %d" % number, b"laptop", b"192.0.2.7", b"PLAIN", b"alice")
        trial.take(Mail(begun=now, login=login, instance=b"%d" % number, recipients=recipients, named=[]))
        end = asked.period.end(now)
        rows[end] = rows.get(end, 0) + recipients
    found = of(asked.period, quota, sorted(rows.items()))
    (uses,), (refused,) = trial.uses, trial.refused
    distribution = uses.distribution()
    assert sum(used.used for used in found) == uses.recipients
    assert max(used.most for used in found) == uses.most["alice"]
    assert sorted(used.most for used in found) == sorted(
        use for use, number in distribution.windows.items() for _ in range(number)
    )
    # A row does not say when in its window, or part, something was refused, but how much.
    assert sum(used.beyond for used in found) == (refused["alice"].recipients if refused else 0)
    first = next((used.first for used in found if used.beyond), 0)
    if refused:
        period = asked.period
        first = begin_at(period, first)
        part_s = period.part_s if isinstance(period, Sliding) else period.end(first) - first
        assert first <= refused["alice"].first < first + part_s
    else:
        assert first == 0
