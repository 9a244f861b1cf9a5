"""Quotas that are given until a time, in every store: they outlast windows, and end by themselves."""

import time

import pytest

from ratelimitd.core.rows import Delta, Grant, Known
from ratelimitd.stores import Store
from tests.stores.backends import Backend, delta, flush, row

NOW = int(time.time())
ENDED, SOON, LATER, MUCH_LATER = (NOW + seconds for seconds in (-60, 86_400, 2 * 86_400, 9 * 86_400))


def given(until: int, quota: int = 50) -> Grant:
    return Grant("daily", "alice", quota, 10, False, SOON, until=until)


async def holds(store: Store, now: int = NOW) -> int:
    return (await row(store, "alice")).quota_at(now, 10)


async def test_it_holds_over_the_ends_of_windows_and_is_no_other_account_s(store: Store) -> None:
    await flush(store, [delta("alice", 3, expiry=SOON), delta("bob", 3, expiry=SOON)])
    (granted,) = await store.grant(given(MUCH_LATER), NOW)
    assert (granted.quota, granted.until, granted.used, granted.persist) == (50, MUCH_LATER, 3, False)
    for end in (SOON, LATER, LATER + 86_400):
        await flush(store, [delta("alice", 1, expiry=end), delta("bob", 1, expiry=end)])
    stored = await row(store, "alice")
    assert (stored.quota, stored.until, stored.used) == (50, MUCH_LATER, 1)
    assert (stored.quota_at(MUCH_LATER - 1, 10), stored.quota_at(MUCH_LATER, 10)) == (50, 10)
    assert ((await row(store, "bob")).quota, (await row(store, "bob")).until) == (10, 0)


async def test_once_it_has_ended_the_next_charge_puts_the_configured_quota_in_its_place(
    backend: Backend, store: Store
) -> None:
    await flush(store, [delta("alice", 3, expiry=SOON)])
    await store.grant(given(MUCH_LATER), NOW)
    backend.sql(f"UPDATE ratelimit SET until = {ENDED}")
    assert await holds(store) == 10
    await flush(store, [delta("alice", 1, expiry=SOON)])
    stored = await row(store, "alice")
    assert (stored.quota, stored.until, stored.used) == (10, 0, 4)


async def test_one_that_equals_the_configured_quota_holds_when_that_is_changed(store: Store) -> None:
    await store.grant(given(MUCH_LATER, quota=10), NOW)
    await flush(store, [Delta("daily", "alice", SOON, 1, 99, 99)])
    stored = await row(store, "alice")
    assert (stored.quota, stored.quota_at(NOW, 99)) == (10, 10)


async def test_a_panel_may_give_it_in_a_row_of_its_own(backend: Backend, store: Store) -> None:
    values = f"('alice', 'daily', 50, {MUCH_LATER})"
    backend.sql(f"INSERT INTO ratelimit (sender, limit_name, quota, until) VALUES {values}")
    assert await holds(store) == 50
    await flush(store, [delta("alice", 1, expiry=SOON)])
    await flush(store, [delta("alice", 1, expiry=LATER)])
    assert ((await row(store, "alice")).quota, (await row(store, "alice")).until) == (50, MUCH_LATER)


@pytest.mark.parametrize("touched", ["used = 0", "quota = 50"])
async def test_who_touches_the_row_after_the_end_renews_nothing(backend: Backend, store: Store, touched: str) -> None:
    await flush(store, [delta("alice", 3, expiry=NOW - 30)])
    cursor = (await store.changes(None, 0)).cursor
    backend.sql(f"UPDATE ratelimit SET quota = 50, until = {MUCH_LATER}")
    await store.changes(cursor, 0)
    backend.sql(f"UPDATE ratelimit SET until = {ENDED}")
    backend.sql(f"UPDATE ratelimit SET {touched}")
    assert await holds(store) == 10
    await flush(store, [delta("alice", 1, expiry=SOON)])
    assert (await row(store, "alice")).quota == 10


async def test_a_quota_given_after_the_end_is_one_for_the_window(backend: Backend, store: Store) -> None:
    await flush(store, [delta("alice", 3, expiry=SOON)])
    await store.grant(given(MUCH_LATER), NOW)
    backend.sql(f"UPDATE ratelimit SET until = {ENDED}")
    backend.sql("UPDATE ratelimit SET quota = 70")
    assert await holds(store) == 70
    await flush(store, [delta("alice", 1, expiry=SOON)])
    assert ((await row(store, "alice")).quota, (await row(store, "alice")).until) == (70, 0)
    await flush(store, [delta("alice", 1, expiry=LATER)])
    assert (await row(store, "alice")).quota == 10


async def test_a_persistent_quota_stands_above_it(backend: Backend, store: Store) -> None:
    await flush(store, [delta("alice", 3, expiry=SOON)])
    backend.sql(f"UPDATE ratelimit SET quota = 70, persist = 1, until = {ENDED}")
    await flush(store, [delta("alice", 1, expiry=LATER)])
    assert await holds(store, MUCH_LATER) == 70


async def test_another_grant_ends_it(store: Store) -> None:
    await store.grant(given(MUCH_LATER), NOW)
    (plain,) = await store.grant(given(0, quota=60), NOW)
    assert (plain.quota, plain.until) == (60, 0)
    await flush(store, [delta("alice", 1, expiry=LATER)])
    assert (await row(store, "alice")).quota == 10


async def test_a_restored_database_gets_it_with_its_end(store: Store) -> None:
    known = Known(Delta("daily", "alice", SOON, 5, 50, 10), persist=False, until=MUCH_LATER)
    for _ in range(2):
        await store.restore([known], NOW)
        stored = await row(store, "alice")
        assert (stored.used, stored.quota, stored.until) == (5, 50, MUCH_LATER)
    await store.restore([known._replace(delta=known.delta._replace(quota=10), until=0)], NOW)
    assert (await holds(store), (await row(store, "alice")).until) == (10, 0)


async def test_an_end_that_makes_no_sense_costs_no_count(backend: Backend, store: Store) -> None:
    await flush(store, [delta("alice", 3, expiry=SOON)])
    if backend.name != "sqlite":
        backend.alter(until="VARCHAR(20)")
    backend.sql("UPDATE ratelimit SET until = 'friday'")
    assert await store.lookup([], 0) == []
    await flush(store, [delta("alice", 1, expiry=SOON)])
    assert ((await row(store, "alice")).used, (await row(store, "alice")).until) == (4, 0)
