"""What accounts used is added up as a plain list of all rows says, whichever database gives them."""

import random
import time
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimitd.core.limits import Limit
from ratelimitd.core.quotas import Held, Source
from ratelimitd.core.rows import MAX_USED, Account, Grant
from ratelimitd.core.windows import DAY_S
from ratelimitd.ctl.answers import Report
from ratelimitd.ctl.report import totals as of_totals
from ratelimitd.ctl.report.gather import gather
from ratelimitd.ctl.report.largest import Largest
from ratelimitd.ctl.report.report import answer
from ratelimitd.ctl.report.totals import Totals
from ratelimitd.settings import LimitSettings
from ratelimitd.stores import Store
from ratelimitd.stores.history import Kept, parts_of
from ratelimitd.stores.past import PAGE, page_of
from ratelimitd.stores.remarks import Remarks
from tests.core.build import limit
from tests.stores.backends import delta, flush

TODAY = int(time.time()) // DAY_S * DAY_S
NOW = TODAY + 3600
DAYS = 10
MIDNIGHTS = [TODAY + n * DAY_S for n in range(1 - DAYS, 2)]
Row = tuple[str, int, int]
"""Whose, how many days ago, how much."""


def day(ago: int) -> int:
    """The end of the window of a day."""
    return TODAY + DAY_S - ago * DAY_S


def added(of: Limit, rows: Sequence[Row], held: dict[str, Held] | None = None) -> Totals:
    """The totals of rows of days."""
    totals = Totals(of, MIDNIGHTS)
    for key in sorted({key for key, *_ in rows}):
        base = Held(of.configured_quota(key), Source.CONFIGURED)
        reading = totals.begin(key, (held or {}).get(key, base))
        for end, used in sorted((day(ago), used) for of_key, ago, used in rows if of_key == key):
            reading.add(end, used)
        reading.finish()
    return totals


def reported(*totals: Totals) -> Report:
    each = [LimitSettings(name=one.limit.name, quota=one.limit.quota) for one in totals]
    return answer(totals, each, NOW, [])


def iso(ago: int) -> str:
    return time.strftime("%Y-%m-%dT00:00:00+00:00", time.gmtime(TODAY - ago * DAY_S))


# -- known numbers ---------------------------------------------------------------------------------------------------


def test_a_known_history_gives_these_numbers() -> None:
    rows = [("alice", ago, 10) for ago in range(10)] + [("bob", 1, 150), ("bob", 0, 120), ("carol", 0, 99)]
    report = reported(added(limit(100, name="daily"), rows))
    assert (report.counted_by, report.recipients, report.accounts) == ("daily", 469, 3)
    assert (report.from_, report.to[:13]) == (iso(9), iso(0)[:11] + "01")
    assert [(one.recipients, one.accounts, one.refused_recipients) for one in report.days] == [
        *[(10, 1, 0)] * 8, (160, 2, 50), (229, 3, 20),
    ]  # fmt: skip
    assert [one.day for one in report.days] == [iso(ago)[:10] for ago in range(9, -1, -1)]
    (daily,) = report.limits
    assert (daily.accounts, daily.recipients, daily.refused_accounts, daily.refused_recipients) == (3, 469, 1, 70)
    assert [(one.key, one.refused, one.first, one.worst) for one in daily.refused] == [("bob", 70, iso(1), 150)]
    assert daily.quantiles == {"50": 10, "90": 120, "99": 150, "100": 150}
    assert daily.quota_for == {"1%": 150, "0.1%": 150, "0": 150}
    assert sum(bucket.windows for bucket in daily.histogram) == 13
    assert sum(bucket.accounts for bucket in daily.histogram) == 3
    assert [(one.key, one.recipients, one.windows, one.worst) for one in report.most] == [
        ("bob", 270, 2, 150), ("alice", 100, 10, 10), ("carol", 99, 1, 99),
    ]  # fmt: skip
    (over,) = report.over
    assert (over.key, over.quota, over.worst, over.over, over.windows) == ("bob", 100, 150, 50, 2)
    assert (over.first, over.last) == (iso(1), iso(0))
    assert report.unused_quotas == []


def test_who_was_new_and_sent_more_than_nearly_all_windows_have() -> None:
    rows = [(f"u{n:03}", ago, 5) for n in range(100) for ago in range(10)]
    rows += [("at-first", 9, 500), ("little", 2, 5), ("hacked", 2, 400), ("hacked", 1, 300), ("later", 3, 4)]
    rows += [("later", 1, 900)]
    (new,) = reported(added(limit(1000), rows)).new
    assert (new.key, new.first, new.at_once, new.recipients, new.worst) == ("hacked", iso(2), 400, 700, 400)


def test_quotas_that_nobody_comes_near_are_named_by_whose_they_are() -> None:
    quotas = {"alice@example.com": 40, "@big.example": 600, "never@example.com": 70, "free@example.com": 0}
    held = {
        "own@example.com": Held(50, Source.PERSISTENT),
        "near@example.com": Held(50, Source.PERSISTENT),
        "anna@dom.example": Held(80, Source.DOMAIN),
        "beat@dom.example": Held(80, Source.DOMAIN),
        "free@example.com": Held(0, Source.CONFIGURED),
    }
    rows = [("alice@example.com", 0, 20), ("x@big.example", 0, 100), ("y@big.example", 1, 299), ("plain", 0, 49),
            ("own@example.com", 0, 24), ("near@example.com", 0, 25), ("anna@dom.example", 0, 1),
            ("beat@dom.example", 0, 39), ("free@example.com", 0, 1)]  # fmt: skip
    found = reported(added(limit(100, quotas=quotas), rows, held)).unused_quotas
    assert [(one.of, one.source, one.quota, one.accounts, one.worst) for one in found] == [
        ("@big.example", "configuration", 600, 2, 299),
        (None, "configuration", 100, 1, 49),
        ("@dom.example", "database", 80, 2, 39),
        ("never@example.com", "configuration", 70, 0, 0),
        ("own@example.com", "database", 50, 1, 24),
    ]


def test_what_a_limit_refused_is_not_known_where_it_does_not_count_that() -> None:
    report = reported(added(limit(100, count_rejected=False), [("alice", 0, 130), ("bob", 0, 7)]))
    (one,) = report.limits
    assert (one.refused_recipients, one.refused_accounts, one.refused) == (None, None, [])
    assert {each.refused_recipients for each in report.days} == {None}
    assert [(each.key, each.over) for each in report.over] == [("alice", 30)]
    unenforced = reported(added(limit(100, count_rejected=False, enforce=False), [("alice", 0, 130)]))
    assert unenforced.limits[0].refused_recipients == 30


def test_nothing_was_sent() -> None:
    report = reported(added(limit(100, name="daily"), []))
    assert (report.counted_by, report.recipients, report.accounts, report.most) == (None, 0, 0, [])
    assert [len(some) for some in (report.days, report.over, report.new)] == [0, 0, 0]
    assert report.limits[0].quantiles == {"50": 0, "90": 0, "99": 0, "100": 0}


def test_a_report_begins_where_the_history_does() -> None:
    report = reported(added(limit(100), [("alice", 3, 1), ("bob", 1, 1)]))
    assert (report.from_, len(report.days)) == (iso(3), 4)


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([{"name": "domain", "key": "domain"}], "first"),
        ([{"name": "messages", "by_message": True}], "first"),
        ([{"name": "weekly", "period": "weekly"}], "first"),
        ([{"name": "sliding month", "period": "30d", "window": "sliding"}], "first"),
    ],
)
def test_days_are_counted_by_a_limit_that_says_most(others: list[dict[str, Any]], expected: str) -> None:
    more = [added(limit(100, **other), [("a", 0, 1), ("b", 0, 1)]) for other in others]
    first = added(limit(100, name="first"), [("alice", 0, 1), ("bob", 0, 1), ("carol", 0, 1)])
    assert reported(*more, first).counted_by == expected
    assert reported(first, *more).counted_by == expected


def test_the_limit_with_most_accounts_counts_the_days_and_a_week_alone_has_none() -> None:
    one, two = (added(limit(100, name=name), [(key, 0, 1) for key in keys]) for name, keys in (("a", "x"), ("b", "xy")))
    assert reported(one, two).counted_by == "b"
    weekly = reported(added(limit(100, name="weekly", period="weekly"), [("alice", 0, 5)]))
    assert (weekly.counted_by, weekly.days) == ("weekly", [])


# -- against a plain list ----------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 30),
    st.dictionaries(
        st.tuples(st.sampled_from("abcdefgh"), st.integers(0, DAYS - 1)), st.integers(1, 40), min_size=1, max_size=60
    ),
)
def test_the_numbers_are_those_of_a_plain_list(quota: int, rows: dict[tuple[str, int], int]) -> None:
    made = added(limit(quota), [(key, ago, used) for (key, ago), used in rows.items()])
    report = reported(made)
    keys = {key for key, _ in rows}
    beyond = {place: used - quota for place, used in rows.items() if quota and used > quota}
    most = {key: max(used for (of, _), used in rows.items() if of == key) for key in keys}
    (one,) = report.limits
    assert (report.recipients, report.accounts) == (sum(rows.values()), len(keys))
    assert (one.refused_recipients, one.refused_accounts) == (sum(beyond.values()), len({key for key, _ in beyond}))
    assert {each.key: each.refused for each in one.refused} == {
        key: sum(by for (of, _), by in beyond.items() if of == key) for key, _ in beyond
    }
    for ago, each in zip(range(len(report.days) - 1, -1, -1), report.days, strict=True):
        here = [used for (_, of), used in rows.items() if of == ago]
        assert (each.recipients, each.accounts) == (sum(here), len(here))
        assert each.refused_recipients == sum(by for (_, of), by in beyond.items() if of == ago)
    assert [each.recipients for each in report.most] == sorted(
        (sum(used for (of, _), used in rows.items() if of == key) for key in keys), reverse=True
    )
    assert {each.key: (each.worst, each.windows) for each in report.over} == {
        key: (most[key], len([1 for of, _ in beyond if of == key])) for key, _ in beyond
    }
    uses = sorted(rows.values())
    assert one.quantiles == {str(p): uses[-(-len(uses) * p // 100) - 1] for p in (50, 90, 99, 100)}
    assert one.quota_for["0"] == max(most.values())


@given(st.lists(st.integers(0, 50), max_size=80), st.integers(1, 10))
def test_the_largest_are_kept_and_of_equal_ones_the_first(numbers: list[int], count: int) -> None:
    kept: Largest[int] = Largest(count)
    for place, number in enumerate(numbers):
        kept.add(number, place)
    assert kept.items() == sorted(range(len(numbers)), key=lambda place: (-numbers[place], place))[:count]


def test_no_list_grows_with_the_accounts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_totals, "LISTED", 5)
    monkeypatch.setattr(of_totals, "LISTED_NEW", 2)
    made = added(limit(10), [(f"u{n:03}", n % 3, 20 + n) for n in range(100)])
    report = reported(made)
    assert [len(report.most), len(report.over), len(report.limits[0].refused)] == [5, 5, 5]
    assert report.limits[0].refused_accounts == 100
    assert [each.key for each in report.most] == ["u099", "u098", "u097", "u096", "u095"]


# -- from a store ------------------------------------------------------------------------------------------------------


async def test_every_store_gives_the_same_report(store: Store) -> None:
    """Two limits, accounts that go on in the next page, rows of a limit that is gone, quotas of all sources."""
    store.configure(10, Kept(30, {"burst"}))
    daily = limit(50, name="daily", quotas={"exception@example.com": 500, "@other.example": 60})
    burst = limit(20, name="burst", period="1h", window="sliding")
    rng = random.Random(5)
    rows = {(f"user{n:03}@{rng.choice(['example.com', 'other.example', 'dom.example'])}", ago): rng.randint(1, 100)
            for n in range(90) for ago in range(DAYS)}  # fmt: skip
    rows |= {("exception@example.com", ago): 400 for ago in range(3)}
    parts = {("user001", burst.period.end(NOW - n * 60)): rng.randint(1, 3) for n in range(PAGE + 200)}
    await flush(store, [delta(key, used, expiry=day(ago), quota=50) for (key, ago), used in rows.items()])
    await flush(store, [delta(key, used, expiry=end, limit="burst") for (key, end), used in parts.items()])
    await flush(store, [delta("user001", 7, expiry=day(0), limit="gone"), delta("user001", 7, expiry=day(DAYS))])
    own = next(key for key, _ in rows if key.startswith("user002"))
    await store.grant(Grant("daily", own, 90, 50, True, 0), NOW)
    await store.grant(Grant("daily", "@dom.example", 70, 50, True, 0), NOW)

    def quota(key: str) -> int:
        if key == own:
            return 90
        of_domain = {"other.example": 60, "dom.example": 70}.get(key.partition("@")[2], 50)
        return 500 if key == "exception@example.com" else of_domain

    told: list[tuple[int, str]] = []
    (found, sliding), others = await gather(store, [daily, burst], MIDNIGHTS, NOW, lambda *far: told.append(far))
    assert others == ["gone"]
    assert (told[-1][0], told[-1][1]) == (len(rows) + len(parts) + 1, max(key for key, _ in [*rows, *parts]))
    assert told == sorted(told)
    assert found.accounts == len({key for key, _ in rows})
    assert found.recipients == sum(rows.values())
    beyond = {place: used - quota(place[0]) for place, used in rows.items() if used > quota(place[0])}
    assert (found.beyond, found.accounts_over) == (sum(beyond.values()), len({key for key, _ in beyond}))
    assert {account.key: account.quota for account in found.most.items()} == {key: quota(key) for key, _ in rows}
    by_day = [sum(used for (_, ago), used in rows.items() if ago == DAYS - 1 - number) for number in range(DAYS)]
    assert [one.recipients for one in found.days] == by_day
    (user,) = sliding.most.items()
    assert (user.key, user.recipients) == ("user001", sum(parts.values()))
    stored = {row.key: row for row in await store.lookup([Account("daily", "@dom.example")], NOW)}
    assert stored["@dom.example"].persist


def test_a_row_is_read_as_it_is_of_one_account_however_much_it_says() -> None:
    """Nobody uses so much; the numbers of the others stay readable."""
    for used in (MAX_USED, MAX_USED + 1, 2**63 - 1):
        (row,) = page_of([("alice", "daily", NOW, used)], NOW, Remarks()).rows
        assert row[2:] == parts_of("daily", "alice", [(NOW, used)], Remarks())[0] == (NOW, MAX_USED)
