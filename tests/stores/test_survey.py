"""Rows that no mail would find: those in another case of letters are found, the others are named."""

import time
from pathlib import Path

import pytest

from ratelimitd.core.limits import Limit
from ratelimitd.core.rows import Account
from ratelimitd.stores import Store
from ratelimitd.stores.survey import Rename, Survey, renames
from tests.core.build import limit, policy, store_sync
from tests.stores.backends import Backend, delta, flush, row

NOW = int(time.time())
SOON = NOW + 86400
INFO, X = "Info@X.example", "info@x.example"
RENAME = [Rename("daily", INFO, X, 10)]


def by_hand(backend: Backend, sender: str, quota: int = 50, persist: int = 1, limit_name: str = "daily") -> None:
    values = f"'{sender}', '{limit_name}', {quota}, {persist}"
    backend.sql(f"INSERT INTO ratelimit (sender, limit_name, quota, persist) VALUES ({values})")


async def test_a_row_in_another_case_of_letters_becomes_its_accounts(backend: Backend, store: Store) -> None:
    by_hand(backend, INFO)
    (adopted,) = await store.adopt(RENAME, NOW)
    assert (adopted.key, adopted.quota, adopted.persist) == (X, 50, True)
    assert backend.sql("SELECT sender FROM ratelimit") == [(X,)]
    assert [r.key for r in await store.adopt(RENAME, NOW)] == [X]


async def test_where_the_account_has_a_row_what_was_given_holds_and_uses_are_added(
    backend: Backend, store: Store
) -> None:
    await flush(store, [delta(X, 3, expiry=SOON), delta("bob", 1, expiry=SOON)])
    by_hand(backend, INFO)
    backend.sql(f"UPDATE ratelimit SET used = 4, expiry = {SOON} WHERE quota = 50")
    (adopted,) = await store.adopt(RENAME, NOW)
    assert adopted[2:7] == (50, 10, True, 7, SOON)
    assert backend.sql("SELECT sender FROM ratelimit ORDER BY sender") == [("bob",), (X,)]


async def test_a_quota_given_until_a_time_keeps_its_end(backend: Backend, store: Store) -> None:
    await flush(store, [delta(X, 3, expiry=SOON)])
    by_hand(backend, INFO, persist=0)
    backend.sql(f"UPDATE ratelimit SET until = {SOON} WHERE quota = 50")
    (adopted,) = await store.adopt(RENAME, NOW)
    assert (adopted.quota, adopted.until, adopted.used) == (50, SOON, 3)


async def test_a_row_that_a_daemon_wrote_gives_no_quota_away(backend: Backend, store: Store) -> None:
    """As of the time when keys kept their case."""
    await flush(store, [delta(X, 3, expiry=SOON), delta(INFO, 2, expiry=SOON, quota=99)])
    backend.sql(f"UPDATE ratelimit SET quota = 70, persist = 1 WHERE sender = '{X}'")
    (adopted,) = await store.adopt(RENAME, NOW)
    assert adopted[2:7] == (70, 10, True, 5, SOON)


def set_row(backend: Backend, sender: str, **values: object) -> None:
    """What stands in a row of either writing; only its time is new."""
    backend.sql(f"INSERT INTO ratelimit (sender, limit_name) VALUES ('{sender}', 'daily')")
    put = ", ".join(f"{name} = {value}" for name, value in values.items())
    backend.sql(f"UPDATE ratelimit SET {put} WHERE sender = '{sender}'")


@pytest.mark.parametrize(
    ("its", "other", "left"),
    [
        ((3, SOON), (4, SOON), (7, SOON)),
        ((3, SOON), (4, SOON + 20), (7, SOON + 20)),  # of a node in another time zone
        ((3, SOON + 20), (4, SOON), (7, SOON + 20)),
        ((3, SOON), (4, SOON + 30), (4, SOON + 30)),
        ((3, SOON), (4, SOON - 30), (3, SOON)),
        ((9, 0), (4, SOON), (4, SOON)),
        ((3, SOON), (9, NOW - 9), (3, SOON)),
        ((3, SOON), (9, 4_200_000_000), (3, SOON)),  # a window that is none
        ((9, 4_200_000_000), (3, SOON), (3, SOON)),
        ((4_294_967_290, SOON), (9, SOON), (4_294_967_295, SOON)),
    ],
)
async def test_of_two_windows_the_later_one_holds_and_uses_of_one_window_add_up(
    backend: Backend, store: Store, its: tuple[int, int], other: tuple[int, int], left: tuple[int, int]
) -> None:
    for sender, (used, expiry) in ((X, its), (INFO, other)):
        set_row(backend, sender, used=used, expiry=expiry, quota=10, configured=10, seen=10)
    await store.adopt([RENAME[0]._replace(apart_s=30, latest=SOON + 86400)], NOW)
    assert (await row(store, X))[5:7] == left
    assert backend.sql("SELECT sender FROM ratelimit") == [(X,)]


ENDED = {"quota": 50, "configured": 20, "seen": 50, "expiry": NOW - 9}
RUNS = {"quota": 60, "configured": 20, "seen": 60, "expiry": SOON}
SINCE = {"quota": 70, "configured": 20, "seen": 20, "expiry": NOW - 9}
FOR_GOOD = {"quota": 80, "configured": 20, "seen": 20, "expiry": NOW - 9, "persist": 1}
NONE_IN_WINDOW = {"quota": 20, "configured": 20, "seen": 20, "expiry": SOON}
NONE = {"quota": 20, "configured": 20, "seen": 20, "expiry": NOW - 9}


@pytest.mark.parametrize(
    ("its", "other", "now", "afterwards"),
    [
        (NONE, RUNS, 60, 10),
        (RUNS, NONE, 60, 10),
        (NONE_IN_WINDOW, ENDED, 10, 10),  # what has ended is not given again by the other row's window
        (ENDED, NONE_IN_WINDOW, 10, 10),
        (ENDED, ENDED, 10, 10),
        (RUNS, ENDED, 60, 10),
        (SINCE, NONE, 70, 70),  # its window begins with the next mail
        (NONE, SINCE, 70, 70),
        (NONE_IN_WINDOW, SINCE, 70, 10),
        (RUNS, FOR_GOOD, 80, 80),
        (FOR_GOOD, RUNS, 80, 80),
    ],
)
async def test_only_a_quota_that_is_in_force_is_given_and_it_ends_when_it_would(
    backend: Backend, store: Store, its: dict[str, int], other: dict[str, int], now: int, afterwards: int
) -> None:
    set_row(backend, X, **its)
    set_row(backend, INFO, **other)
    await store.adopt(RENAME, NOW)
    adopted = await row(store, X)
    assert (adopted.quota_at(NOW, 10), adopted.configured) == (now, 10)
    assert adopted._replace(updated=SOON + 9).quota_at(SOON + 9, 10) == afterwards


async def test_the_survey_finds_what_counts_nobody(backend: Backend, store: Store) -> None:
    for sender in (INFO, "*@example.com", "example.com", "@example.com", "alice@example.com"):
        by_hand(backend, sender)
    by_hand(backend, "carol", limit_name="gone")
    by_hand(backend, "dave", limit_name="gone")
    await flush(store, [delta("john.doe", expiry=SOON)])
    survey = await store.survey()
    period = daily().period
    assert renames(survey.odd, [daily()], NOW) == [
        rename._replace(apart_s=period.apart_s, latest=period.latest(NOW)) for rename in RENAME
    ]
    assert sorted(survey.remarks([daily()])) == [
        "2 rows of a limit that does not exist: gone, for example carol",
        "limit daily: the row of *@example.com: there are no patterns: @a.domain is for all accounts of a domain",
        "limit daily: the row of example.com: a domain is no login: @example.com is for all its accounts",
    ]


def test_not_all_of_many_rows_are_named() -> None:
    lines = list(Survey([], [Account("daily", f"*@{n}.example") for n in range(50)]).remarks([daily()]))
    assert len(lines) == 11
    assert lines[-1] == "40 rows more that can never match a key"


def daily() -> Limit:
    return limit(10, name="daily")


def test_exceptions_that_can_never_match_are_named() -> None:
    made = limit(10, name="daily", quotas={"*@example.com": 1, "example.com": 2, "@example.com": 3, "a@b.example": 4})
    assert list(Survey([], []).remarks([made])) == [
        'limit daily: quotas."*@example.com": there are no patterns: @a.domain is for all accounts of a domain',
        'limit daily: quotas."example.com": a domain is no login: @example.com is for all its accounts',
    ]


@pytest.mark.parametrize("inserted", ["before the start", "while it runs"])
async def test_a_panels_row_in_any_case_of_letters_holds_before_the_first_mail(
    tmp_path: Path, backend: Backend, store: Store, inserted: str
) -> None:
    asked = policy(daily())
    sync = store_sync(store, asked, tmp_path, clock=time.time)
    if inserted == "before the start":
        by_hand(backend, INFO)
    await sync.begin(0, [])
    if inserted == "while it runs":
        await sync.refresh()
        by_hand(backend, INFO)
    await sync.refresh()
    await sync.loader.look_up([Account("daily", X)])
    counter = asked.meters[0].find(X, int(time.time()))
    assert counter is not None
    assert counter.quota == 50
    assert (await row(store, X)).quota == 50
    await sync.finish(5)


# -- what was given while no daemon ran --------------------------------------------------------------------------------


def shift(backend: Backend, expiry: int) -> None:
    """Let the window of every row end at another time, as a machine that waits for it would; nothing else changes."""
    kept = "" if backend.name == "sqlite" else ", updated = updated"
    if backend.name == "sqlite":
        backend.sql("DROP TRIGGER ratelimit_touched")
    backend.sql(f"UPDATE ratelimit SET expiry = {expiry}{kept}")


async def survey(store: Store, folder: Path) -> None:
    """What a daemon does once after its start."""
    sync = store_sync(store, policy(daily()), folder, clock=time.time)
    await sync.begin(0, [])
    await sync.refresh()
    await sync.finish(5)


@pytest.mark.parametrize("wrote", ["the daemon", "a panel"])
async def test_a_quota_that_was_given_while_no_daemon_ran_ends_with_its_window(
    tmp_path: Path, backend: Backend, store: Store, wrote: str
) -> None:
    """Whatever a cron job writes to the row afterwards."""
    await flush(store, [delta("alice", 3, expiry=SOON)])
    configured = "" if wrote == "the daemon" else ", configured = NULL, seen = NULL"
    backend.sql(f"UPDATE ratelimit SET quota = 50, updated = '2026-01-01 00:00:00'{configured}")
    await survey(store, tmp_path)
    again = backend.make()
    await again.open()
    assert (await row(again, "alice")).quota_at(SOON - 1, 10) == 50
    ended = int(time.time()) - 60
    shift(backend, ended)
    backend.sql("UPDATE ratelimit SET used = 0, updated = CURRENT_TIMESTAMP WHERE expiry < 4000000000")
    stored = await row(again, "alice")
    assert stored.updated >= ended
    assert stored.quota_at(ended + 60, 10) == 10
    await again.close()


async def test_what_was_given_for_good_or_after_the_window_is_not_noted(backend: Backend, store: Store) -> None:
    now = int(time.time())
    await flush(store, [delta("alice", 3, expiry=SOON), delta("bob", 3, expiry=now - 60)])
    backend.sql("UPDATE ratelimit SET quota = 50, persist = 1 WHERE sender = 'alice'")
    backend.sql("UPDATE ratelimit SET quota = 60 WHERE sender = 'bob'")
    await store.note_given()
    assert ((await row(store, "alice")).quota_at(SOON + 1, 10), (await row(store, "alice")).seen) == (50, 10)
    assert (await row(store, "bob")).quota_at(now, 10) == 60


async def test_many_quotas_are_noted_in_steps_and_none_of_them_counts_as_a_change(
    backend: Backend, store: Store
) -> None:
    await flush(store, [delta(f"user{n}", 1, expiry=SOON) for n in range(600)])
    backend.sql("UPDATE ratelimit SET quota = 50, updated = '2026-01-01 00:00:00'")
    await store.note_given()
    assert backend.sql("SELECT count(*) FROM ratelimit WHERE seen = 50 AND updated < '2026-01-02'") == [("600",)]
