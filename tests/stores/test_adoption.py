"""Rows beside rows that make no sense, and changes that the database refuses: that row's fault alone, and one line."""

import time
from pathlib import Path

import pytest

from ratelimitd.core.rows import Account, Grant, Known
from ratelimitd.errors import RecordRefused
from ratelimitd.stores import Cursor, Store
from ratelimitd.stores.history import Kept
from ratelimitd.stores.survey import Rename
from tests.core.build import limit, policy, store_sync
from tests.stores.backends import Backend, delta, flush, row

NOW = int(time.time())
SOON = NOW + 86400
INFO, X, BOB, Y = "Info@X.example", "info@x.example", "Bob@X.example", "bob@x.example"
RENAMES = [Rename("daily", INFO, X, 10, latest=SOON + 86400), Rename("daily", BOB, Y, 10, latest=SOON + 86400)]
FIRST = Cursor("2026-01-01 00:00:00")
COLUMNS = ("quota", "configured", "seen", "until", "persist", "used", "in_parts", "expiry")


def loosen(backend: Backend) -> None:
    """Let every column hold any text, as SQLite's do from the start."""
    if backend.name != "sqlite":
        backend.alter(**dict.fromkeys(COLUMNS, "VARCHAR(60)"))


def refuse(backend: Backend, what: str) -> None:
    """Have the database refuse rows of which this is true."""
    if backend.name == "sqlite":
        for column in ("sender", "quota", "seen", "used"):
            what = what.replace(column, f"NEW.{column}")
        backend.sql(
            f"CREATE TRIGGER refusing BEFORE UPDATE ON ratelimit WHEN {what} BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
    else:
        backend.sql(f"ALTER TABLE ratelimit ADD CONSTRAINT refusing CHECK (NOT ({what}))")


def put(backend: Backend, sender: str, **values: object) -> None:
    backend.sql(f"INSERT INTO ratelimit (sender, limit_name) VALUES ('{sender}', 'daily')")
    backend.sql(f"UPDATE ratelimit SET {', '.join(f'{k} = {v}' for k, v in values.items())} WHERE sender = '{sender}'")


def said(store: Store) -> list[str]:
    return [remark.event for remark in store.remarks.take()]


@pytest.mark.parametrize("column", COLUMNS)
async def test_a_row_is_adopted_where_the_accounts_own_makes_no_sense(
    backend: Backend, store: Store, column: str
) -> None:
    loosen(backend)
    for nonsense in ("'abc'", "''", f"'{'9' * 30}'"):
        backend.sql("DELETE FROM ratelimit")
        store.remarks.unread.clear()
        await flush(store, [delta(X, 3, expiry=SOON)])
        put(backend, INFO, quota=50, persist=1)
        backend.sql(f"UPDATE ratelimit SET {column} = {nonsense} WHERE sender = '{X}'")
        for _ in range(2):
            (adopted,) = await store.adopt(RENAMES, NOW)
            assert (adopted.key, adopted.quota, adopted.persist) == (X, 50, True)
            assert adopted.used == (3 if column != "used" else 0)
        assert backend.sql("SELECT sender FROM ratelimit") == [(X,)]
        assert (Account("daily", X) in store.remarks.unread) == (column in ("used", "expiry"))
        assert set(said(store)) <= {"a row of the database makes no sense; its account counts as configured"}


@pytest.mark.parametrize("column", COLUMNS)
async def test_a_number_that_no_column_can_hold_is_adopted_as_the_largest(
    backend: Backend, store: Store, column: str
) -> None:
    loosen(backend)
    for large in ("9" * 18, "9" * 19, "4294967296"):
        backend.sql("DELETE FROM ratelimit")
        put(backend, X, quota=10)
        put(backend, INFO, quota=50, persist=1)
        number = f"CAST('{large}' AS BLOB)" if backend.name == "sqlite" else f"'{large}'"
        backend.sql(f"UPDATE ratelimit SET {column} = {number} WHERE sender = '{INFO}'")
        (adopted,) = await store.adopt(RENAMES, NOW)
        assert adopted.key == X
        assert all(number is None or number <= 4_294_967_295 for number in adopted[2:10] if number is not True)
        assert backend.sql("SELECT sender FROM ratelimit") == [(X,)]


@pytest.mark.parametrize("nonsense", ["used = 'abc'", "quota = 'many'", "in_parts = 'abc'", "expiry = 'never'"])
async def test_a_row_of_a_sliding_limit_keeps_what_its_parts_say(backend: Backend, store: Store, nonsense: str) -> None:
    loosen(backend)
    store.configure(1, Kept(sliding={"daily"}))
    parts = [delta(key, 2, expiry=SOON + n)._replace(sliding=True, now=NOW) for key in (X, INFO) for n in (0, 60)]
    await flush(store, parts)
    backend.sql(f"UPDATE ratelimit SET {nonsense} WHERE sender = '{X}'")
    (adopted,) = await store.adopt([one._replace(latest=SOON + 86400) for one in RENAMES], NOW)
    assert adopted.key == X
    assert adopted.used >= 4
    assert backend.sql("SELECT DISTINCT sender FROM ratelimit_history") == [(X,)]


async def test_a_refused_adoption_is_set_aside_and_all_others_are_done(backend: Backend, store: Store) -> None:
    put(backend, BOB, quota=50, persist=1)
    put(backend, INFO, quota=50, persist=1)
    refuse(backend, f"sender = '{Y}' AND quota = 50")
    for _ in range(2):
        assert [adopted.key for adopted in await store.adopt(RENAMES[::-1], NOW)] == [X]
    assert backend.sql("SELECT sender FROM ratelimit ORDER BY quota, sender") == [(BOB,), (X,)]
    assert said(store) == ["the database refuses to change a row; it stays as it is"]


async def test_a_refused_adoption_leaves_nothing_half_done(backend: Backend, store: Store) -> None:
    """The account's row is there already, and the other one is not deleted."""
    await flush(store, [delta(Y, 3, expiry=SOON)])
    put(backend, BOB, quota=50, persist=1)
    refuse(backend, f"sender = '{Y}' AND quota = 50")
    (found,) = await store.adopt(RENAMES, NOW)
    assert (found.quota, found.used) == (10, 3)
    assert backend.sql("SELECT sender FROM ratelimit ORDER BY sender") == [(BOB,), (Y,)]


@pytest.mark.parametrize("by", ["changes", "note_given"])
async def test_a_refused_note_is_set_aside_and_all_others_are_made(backend: Backend, store: Store, by: str) -> None:
    await flush(store, [delta(key, 1, expiry=SOON) for key in ("alice", "bob", "carol")])
    backend.sql("UPDATE ratelimit SET quota = 50")
    refuse(backend, "sender = 'bob' AND seen = 50")
    if by == "changes":
        first = FIRST if backend.name == "sqlite" else Cursor(NOW - 3600)
        assert [found.key for found in (await store.changes(first, NOW)).rows] == ["alice", "bob", "carol"]
    else:
        await store.note_given()
    assert [(await row(store, key)).seen for key in ("alice", "bob", "carol")] == [50, 10, 50]
    assert said(store) == ["the database refuses to change a row; it stays as it is"]


async def test_what_is_refused_of_a_restoration_is_set_aside(backend: Backend, store: Store) -> None:
    await flush(store, [delta(key, 1, expiry=SOON) for key in ("alice", "bob")])
    refuse(backend, "sender = 'bob' AND quota = 50")
    await store.restore([Known(delta(key, 4, expiry=SOON, quota=50), persist=True) for key in ("bob", "alice")], NOW)
    alice, bob = await row(store, "alice"), await row(store, "bob")
    assert (alice.quota, alice.used, bob.quota) == (50, 4, 10)
    assert said(store) == ["the database refuses to change a row; it stays as it is"]


async def test_a_refused_grant_is_no_outage(tmp_path: Path, backend: Backend, store: Store) -> None:
    sync = store_sync(store, policy(limit(10, name="daily")), tmp_path, clock=time.time)
    await sync.begin(0, [])
    await flush(store, [delta("bob", 1, expiry=SOON)])
    refuse(backend, "sender = 'bob' AND quota = 50")
    with pytest.raises(RecordRefused):
        await sync.edit(lambda there: there.grant(Grant("daily", "bob", 50, 10, True, SOON), NOW))
    assert sync.link.up
    await sync.finish(5)


@pytest.mark.parametrize("nonsense", ["used = 'abc'", "expiry = 'x'", "quota = 'many'", "until = 'x'"])
async def test_whatever_stands_beside_the_row_others_changes_are_taken_over_and_no_use_is_lost(
    tmp_path: Path, backend: Backend, store: Store, nonsense: str
) -> None:
    loosen(backend)
    asked = policy(limit(10, name="daily"))
    sync = store_sync(store, asked, tmp_path, clock=time.time)
    await sync.begin(0, [])
    await sync.refresh()
    (meter,) = asked.meters
    end = meter.limit.period.end(int(time.time()))
    await flush(store, [delta(X, 7, expiry=end), delta("carol@x.example", 1, expiry=end)])
    await sync.loader.look_up([Account("daily", X), Account("daily", "carol@x.example")])
    backend.sql(f"UPDATE ratelimit SET {nonsense} WHERE sender = '{X}'")
    put(backend, INFO, quota=50, persist=1)
    backend.sql("UPDATE ratelimit SET quota = 3, persist = 1 WHERE sender = 'carol@x.example'")
    await sync.refresh()
    assert sync.link.up
    assert meter.counters["carol@x.example"].quota == 3
    assert (meter.counters[X].quota, meter.counters[X].used) == (50, 7)
    assert (await row(store, X)).used == 7
    await sync.finish(5)
