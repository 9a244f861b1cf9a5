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

SOON = int(time.time()) + 86400
INFO, X = "Info@X.example", "info@x.example"
RENAME = [Rename("daily", INFO, X)]


def by_hand(backend: Backend, sender: str, quota: int = 50, persist: int = 1, limit_name: str = "daily") -> None:
    values = f"'{sender}', '{limit_name}', {quota}, {persist}"
    backend.sql(f"INSERT INTO ratelimit (sender, limit_name, quota, persist) VALUES ({values})")


async def test_a_row_in_another_case_of_letters_becomes_its_accounts(backend: Backend, store: Store) -> None:
    by_hand(backend, INFO)
    (adopted,) = await store.adopt(RENAME)
    assert (adopted.key, adopted.quota, adopted.persist) == (X, 50, True)
    assert backend.sql("SELECT sender FROM ratelimit") == [(X,)]
    assert [r.key for r in await store.adopt(RENAME)] == [X]


async def test_where_the_account_has_a_row_what_was_given_holds_and_uses_are_added(
    backend: Backend, store: Store
) -> None:
    await flush(store, [delta(X, 3, expiry=SOON), delta("bob", 1, expiry=SOON)])
    by_hand(backend, INFO)
    backend.sql(f"UPDATE ratelimit SET used = 4, expiry = {SOON} WHERE quota = 50")
    (adopted,) = await store.adopt(RENAME)
    assert adopted[2:7] == (50, 10, True, 7, SOON)
    assert backend.sql("SELECT sender FROM ratelimit ORDER BY sender") == [("bob",), (X,)]


async def test_a_row_that_a_daemon_wrote_gives_no_quota_away(backend: Backend, store: Store) -> None:
    """As of the time when keys kept their case."""
    await flush(store, [delta(X, 3, expiry=SOON), delta(INFO, 2, expiry=SOON, quota=99)])
    backend.sql(f"UPDATE ratelimit SET quota = 70, persist = 1 WHERE sender = '{X}'")
    (adopted,) = await store.adopt(RENAME)
    assert adopted[2:7] == (70, 10, True, 5, SOON)


async def test_the_survey_finds_what_counts_nobody(backend: Backend, store: Store) -> None:
    for sender in (INFO, "*@example.com", "example.com", "@example.com", "alice@example.com"):
        by_hand(backend, sender)
    by_hand(backend, "carol", limit_name="gone")
    by_hand(backend, "dave", limit_name="gone")
    await flush(store, [delta("john.doe", expiry=SOON)])
    survey = await store.survey()
    assert renames(survey.odd, [daily()]) == RENAME
    assert sorted(survey.remarks([daily()])) == [
        "2 rows of a limit that does not exist: gone, for example carol",
        "limit daily: the row of *@example.com: there are no patterns: @a.domain is for all accounts of a domain",
        "limit daily: the row of example.com: a domain is no login: @example.com is for all its accounts",
    ]


def test_not_all_of_many_rows_are_named() -> None:
    lines = list(Survey([], [Account("daily", f"*@{n}.example") for n in range(50)]).remarks([daily()]))
    assert len(lines) == 11
    assert lines[-1] == "40 more rows that can never match a key"


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
