"""Days are those of the configured time zone, also where a day has 23 or 25 hours and where a log is out of order."""

from datetime import datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from ratelimitd.ctl.buckets import histogram
from ratelimitd.ctl.replay.days import Days

BERLIN = ZoneInfo("Europe/Berlin")
OCTOBER = int(datetime(2026, 10, 20, tzinfo=BERLIN).timestamp())


@given(st.lists(st.integers(0, 12 * 86_400)))
def test_each_instant_is_of_its_day(instants: list[int]) -> None:
    days = Days(BERLIN)
    wanted: dict[str, int] = {}
    for after in instants:
        days.of(OCTOBER + after).recipients += 1
        date = datetime.fromtimestamp(OCTOBER + after, BERLIN).date().isoformat()
        wanted[date] = wanted.get(date, 0) + 1
    assert {date: totals.recipients for date, totals in days.totals.items()} == wanted


@given(
    st.dictionaries(st.integers(1, 10**9), st.integers(1, 50)),
    st.dictionaries(st.integers(1, 10**9), st.integers(1, 5)),
)
def test_every_use_is_in_one_bucket_and_these_are_few(windows: dict[int, int], accounts: dict[int, int]) -> None:
    buckets = histogram(windows, accounts)
    assert len(buckets) <= 10 * 10
    for bucket in buckets:
        inside = range(bucket.from_, bucket.to + 1)
        assert bucket.windows == sum(count for used, count in windows.items() if used in inside)
        assert bucket.accounts == sum(count for used, count in accounts.items() if used in inside)
        assert bucket.windows or bucket.accounts
    assert sum(bucket.windows for bucket in buckets) == sum(windows.values())
    assert sum(bucket.accounts for bucket in buckets) == sum(accounts.values())
    assert all(a.to < b.from_ for a, b in pairwise(buckets))
