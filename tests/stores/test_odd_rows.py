"""What an administrator, a panel or another schema leaves in the table: one row's nonsense is that row's alone."""

import random
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ratelimitd.core.rows import NO_BOUND, NO_SEGMENT, Account, Delta, Grant, Known
from ratelimitd.errors import NotStored, StoreError
from ratelimitd.stores import Cursor, Names, Store, sqlite_changes
from tests.stores.backends import Backend, delta, flush, row, sqlite_backend

SOON, LATER = (int(time.time()) + days * 86400 for days in (1, 2))
AGO = int(time.time()) - 3600


def loosen(backend: Backend) -> None:
    """Let every column hold anything, as SQLite's do from the start."""
    if backend.name != "sqlite":
        binary = "TEXT" if backend.name == "postgresql" else "VARBINARY(20)"
        backend.alter(quota="VARCHAR(20)", used=binary, expiry="VARCHAR(20)", persist="VARCHAR(9)")


def put(backend: Backend, values: str, key: str = "alice") -> None:
    """A row as somebody writes it: `column = value, ...`, of a window that is running."""
    backend.sql(f"UPDATE ratelimit SET {values} WHERE sender = '{key}'")


@pytest.fixture
def sqlite(tmp_path: Path) -> Backend:
    """Where any column may hold anything."""
    return sqlite_backend(tmp_path)


@pytest.fixture
async def file_store(sqlite: Backend) -> AsyncIterator[Store]:
    """An open store on a fresh file."""
    store = sqlite.make()
    await store.open()
    yield store
    await store.close()


def remarks(store: Store) -> list[dict[str, object]]:
    return [dict(remark.fields) for remark in store.remarks.take()]


NONSENSE = [
    "used = 'abc'",
    "used = ''",
    "quota = 'unlimited'",
    "expiry = '2026-12-31'",
    "persist = 'yes'",
    "quota = '12 a day'",
]


@pytest.mark.parametrize("nonsense", NONSENSE)
async def test_a_row_that_makes_no_sense_is_left_out_and_named_once(
    backend: Backend, store: Store, nonsense: str
) -> None:
    loosen(backend)
    cursor = (await store.changes(None, 0)).cursor
    await flush(store, [delta("alice", 3, expiry=SOON), delta("bob", 4, expiry=SOON)])
    put(backend, nonsense)
    for _ in range(3):
        assert [r.key for r in await store.lookup([Account("daily", "alice"), Account("daily", "bob")], 0)] == ["bob"]
        assert [r.key for r in (await store.changes(cursor, 0)).rows] == ["bob"]
    (remark,) = remarks(store)
    assert (remark["limit"], remark["key"]) == ("daily", "alice")
    assert nonsense.split()[0] in str(remark["reason"])
    assert remarks(store) == []


@pytest.mark.parametrize(
    ("nonsense", "left"),
    [
        ("used = 'abc'", (10, False, 2, SOON)),  # what else stands in the row counts
        ("used = ''", (10, False, 2, SOON)),
        ("quota = 'unlimited', persist = 1", (10, False, 5, SOON)),
        ("expiry = '2026-12-31'", (10, False, 2, SOON)),
        ("persist = 'yes'", (10, False, 5, SOON)),
        ("used = 'abc', quota = 20, persist = 1", (20, True, 2, SOON)),
    ],
)
async def test_no_charge_is_lost_to_a_row_that_makes_no_sense(
    backend: Backend, store: Store, nonsense: str, left: tuple[int, bool, int, int]
) -> None:
    loosen(backend)
    await flush(store, [delta("alice", 3, expiry=SOON)])
    put(backend, nonsense)
    flushed = await flush(store, [delta("alice", 2, expiry=SOON), delta("bob", 1, expiry=SOON)])
    assert flushed.rejected == []
    found = {r.key: (r.quota, r.persist, r.used, r.expiry) for r in flushed.rows}
    assert found == {"alice": left, "bob": (10, False, 1, SOON)}


@pytest.mark.parametrize("nonsense", NONSENSE)
async def test_a_quota_is_given_whatever_stands_in_the_row(backend: Backend, store: Store, nonsense: str) -> None:
    loosen(backend)
    await flush(store, [delta("alice", 3, expiry=SOON)])
    put(backend, nonsense)
    await store.reset([Account("daily", "alice")], 0)
    (granted,) = await store.grant(Grant("daily", "alice", 50, 10, True, SOON), AGO)
    assert (granted.quota, granted.persist, granted.expiry) == (50, True, SOON)


async def test_what_has_a_plain_meaning_gets_it(backend: Backend, store: Store) -> None:
    if backend.name == "sqlite":
        backend.sql("DROP TABLE ratelimit")
        backend.sql(
            "CREATE TABLE ratelimit (id INTEGER PRIMARY KEY, sender TEXT, limit_name TEXT, persist, quota, configured,"
            " seen, until, used, in_parts, updated TEXT DEFAULT CURRENT_TIMESTAMP, expiry, UNIQUE (sender, limit_name))"
        )
    else:
        binary = "TEXT" if backend.name == "postgresql" else "VARBINARY(20)"
        backend.alter(quota="VARCHAR(20)", used=binary, expiry="BIGINT", persist="INT")
    columns = "INSERT INTO ratelimit (sender, limit_name, quota, persist, used, expiry) VALUES"
    backend.sql(f"{columns} ('null', 'daily', NULL, NULL, NULL, NULL)")
    backend.sql(f"{columns} ('text', 'daily', '12', 1, '7', {SOON})")
    backend.sql(f"{columns} ('negative', 'daily', '-1', 1, '7', {SOON})")
    assert {key: (await row(store, key))[2:7] for key in ("null", "text", "negative")} == {
        "null": (0, None, False, 0, 0),
        "text": (12, None, True, 7, SOON),
        "negative": (0, None, True, 7, SOON),
    }
    await flush(store, [delta(key, 2, expiry=SOON) for key in ("null", "text", "negative")])
    assert {key: (await row(store, key))[2:7] for key in ("null", "text", "negative")} == {
        "null": (0, 10, False, 2, SOON),
        "text": (12, 10, True, 9, SOON),
        "negative": (0, 10, True, 9, SOON),
    }
    assert remarks(store) == []


@pytest.mark.parametrize("kind", ["DECIMAL(12,2)", "DOUBLE", "VARCHAR(20)"])
async def test_a_whole_number_in_a_column_of_decimals_floats_or_texts_is_one(
    backend: Backend, store: Store, kind: str
) -> None:
    zeros = ".00" if kind == "VARCHAR(20)" else ""
    columns = ("quota", "configured", "seen", "until", "used", "in_parts", "expiry", "persist")
    if backend.name == "sqlite":
        backend.sql("DROP TABLE ratelimit")
        free = ", ".join(f"{name} {'REAL' if kind == 'DOUBLE' else ''}" for name in columns)
        backend.sql(
            "CREATE TABLE ratelimit (id INTEGER PRIMARY KEY, sender TEXT, limit_name TEXT,"
            f" {free}, updated TEXT DEFAULT CURRENT_TIMESTAMP, UNIQUE (sender, limit_name))"
        )
    else:
        backend.alter(**dict.fromkeys(columns, kind))
    await flush(store, [delta("alice", 3, expiry=SOON), delta("bob", 4, expiry=SOON), delta("carol", expiry=SOON)])
    put(backend, f"quota = '20{zeros}', persist = '1{zeros}', used = '5{zeros}', expiry = '{SOON}{zeros}'")
    put(backend, f"quota = '-1{zeros}'", "bob")
    flushed = await flush(store, [delta(key, 2, expiry=SOON) for key in ("alice", "bob", "carol")])
    assert flushed.rejected == []
    assert {r.key: (r.quota, r.persist, r.used, r.expiry) for r in flushed.rows} == {
        "alice": (20, True, 7, SOON),
        "bob": (0, False, 6, SOON),
        "carol": (10, False, 3, SOON),
    }
    assert remarks(store) == []


async def test_a_number_that_no_column_of_ours_could_hold_is_as_large_as_one_can_be(
    backend: Backend, store: Store
) -> None:
    if backend.name != "sqlite":
        backend.alter(quota="BIGINT", used="BIGINT", expiry="BIGINT")
    await flush(store, [delta("alice", 3, expiry=SOON)])
    put(backend, f"quota = {2**62}, persist = 1, used = {2**62}")
    assert (await row(store, "alice"))[2:7] == (4294967295, 10, True, 4294967295, SOON)
    await flush(store, [delta("alice", 3, expiry=SOON)])
    assert (await row(store, "alice"))[2:7] == (4294967295, 10, True, 4294967295, SOON)


@pytest.mark.parametrize("name", ["sender", "limit_name"])
async def test_in_sqlite_a_blob_is_no_name(sqlite: Backend, file_store: Store, name: str) -> None:
    cursor = (await file_store.changes(None, 0)).cursor
    await flush(file_store, [delta("alice", expiry=SOON), delta("bob", expiry=SOON)])
    put(sqlite, f"{name} = CAST({name} AS BLOB)")
    assert [r.key for r in (await file_store.changes(cursor, 0)).rows] == ["bob"]
    (remark,) = remarks(file_store)
    assert remark["reason"] == f"{name} is no text"
    await flush(file_store, [delta("alice", 5, expiry=SOON)])
    assert (await row(file_store, "alice")).used == 5


@pytest.mark.parametrize("column", ["sender", "limit_name", "updated"])
async def test_in_sqlite_a_text_that_is_not_utf_8_is_its_row_s_fault(
    sqlite: Backend, file_store: Store, column: str
) -> None:
    cursor = (await file_store.changes(None, 0)).cursor
    await flush(file_store, [delta("alice", expiry=SOON), delta("bob", expiry=SOON)])
    put(sqlite, f"{column} = CAST(X'61ff62' AS TEXT)")
    assert "bob" in [r.key for r in (await file_store.changes(cursor, 0)).rows]
    assert [r.key for r in await file_store.lookup([Account("daily", "bob")], 0)] == ["bob"]
    await flush(file_store, [delta("alice", 5, expiry=SOON)])
    assert (await row(file_store, "alice")).used == (6 if column == "updated" else 5)


@pytest.mark.parametrize("updated", ["yesterday", "", "9999|7|x", "2026-12-31|1"])
async def test_in_sqlite_a_time_that_is_none_breaks_no_cursor(sqlite: Backend, file_store: Store, updated: str) -> None:
    cursor = (await file_store.changes(None, 0)).cursor
    await flush(file_store, [delta("alice", expiry=SOON), delta("bob", expiry=SOON)])
    put(sqlite, f"updated = '{updated}'")
    for _ in range(3):
        changes = await file_store.changes(cursor, 0)
        assert "bob" in [r.key for r in changes.rows]
    assert (await row(file_store, "alice")).used == 1


@pytest.mark.parametrize("number", ["'abc'", "''", "-1", "'1.5'", "NULL"])
async def test_a_segment_that_is_no_number_is_above_all_others_until_the_next_flush(
    backend: Backend, store: Store, number: str
) -> None:
    """Were it taken for none, what is stored would be stored again."""
    await flush(store, [delta("alice", expiry=SOON)])
    if backend.name != "sqlite":
        backend.alter_other("ratelimit_node", segment="VARCHAR(20)")
    elif number == "NULL":
        backend.sql("DROP TABLE ratelimit_node")
        backend.sql("CREATE TABLE ratelimit_node (node PRIMARY KEY, segment, updated)")
        backend.sql("INSERT INTO ratelimit_node VALUES ('node', 1, CURRENT_TIMESTAMP)")
    backend.sql(f"UPDATE ratelimit_node SET segment = {number}")
    assert await store.recorded("node") == NO_SEGMENT
    await flush(store, [delta("alice", expiry=SOON)], segment=2)
    assert await store.recorded("node") == 2
    assert (await row(store, "alice")).used == 1


@pytest.mark.parametrize("number", ["'7'", "7"])
async def test_a_segment_in_digits_is_a_number(backend: Backend, store: Store, number: str) -> None:
    await flush(store, [delta("alice", expiry=SOON)])
    if backend.name != "sqlite":
        backend.alter_other("ratelimit_node", segment="VARCHAR(20)")
    backend.sql(f"UPDATE ratelimit_node SET segment = {number}")
    assert await store.recorded("node") == 7


ODD_USES = ["used = 'abc'", "used = ''", "expiry = '2026-12-31'", "used = '-5'", "expiry = '-1'"]


@pytest.mark.parametrize("nonsense", ODD_USES)
async def test_a_flush_says_whose_use_it_could_not_read(backend: Backend, store: Store, nonsense: str) -> None:
    loosen(backend)
    await flush(store, [delta(key, 3, expiry=SOON) for key in ("alice", "bob", "carol", "dave")])
    put(backend, nonsense)
    put(backend, "used = '12'", "carol")
    put(backend, "quota = 'many'", "dave")
    await flush(store, [delta(key, 2, expiry=SOON) for key in ("alice", "bob", "carol", "dave", "new")])
    assert list(store.remarks.unread) == [Account("daily", "alice")]


@pytest.mark.parametrize("nonsense", ODD_USES)
async def test_a_row_that_is_read_says_whose_use_it_is_not(backend: Backend, store: Store, nonsense: str) -> None:
    loosen(backend)
    await flush(store, [delta(key, 3, expiry=SOON) for key in ("alice", "bob", "dave")])
    put(backend, nonsense)
    put(backend, "quota = 'many'", "dave")
    await store.lookup([Account("daily", key) for key in ("alice", "bob", "dave")], 0)
    assert list(store.remarks.unread) == [Account("daily", "alice")]


async def test_a_flush_says_whose_use_was_below_0(backend: Backend, store: Store) -> None:
    if backend.name != "sqlite":
        backend.alter(used="BIGINT")
    await flush(store, [delta(key, 3, expiry=SOON) for key in ("alice", "bob")])
    put(backend, "used = -3")
    await flush(store, [delta(key, 2, expiry=SOON) for key in ("alice", "bob")])
    assert list(store.remarks.unread) == [Account("daily", "alice")]


@pytest.mark.parametrize("nonsense", NONSENSE)
async def test_what_is_known_replaces_a_row_that_makes_no_sense(backend: Backend, store: Store, nonsense: str) -> None:
    loosen(backend)
    await flush(store, [delta("alice", 3, expiry=SOON)])
    put(backend, nonsense)
    for _ in range(2):
        await store.restore([Known(delta("alice", 30, expiry=SOON, quota=10), False)], AGO)
    found = await row(store, "alice")
    assert (found.used, found.expiry, found.quota, found.persist) == (30, SOON, 10, False)


async def test_a_store_with_rows_of_nonsense_opens(backend: Backend, store: Store) -> None:
    loosen(backend)
    await flush(store, [delta("alice", 3, expiry=SOON), delta("bob", 3, expiry=SOON)])
    put(backend, "used = 'abc', quota = '', expiry = '2026-12-31', persist = 'x'")
    again = backend.make()
    await again.open()
    assert [r.key for r in await again.lookup([Account("daily", key) for key in ("alice", "bob")], 0)] == ["bob"]
    await again.close()


# -- windows that are none ---------------------------------------------------------------------------------------------


async def test_a_window_beyond_the_next_one_begins_again_with_the_next_charge(backend: Backend, store: Store) -> None:
    end, far = SOON, SOON + 400 * 86400
    await flush(store, [Delta("daily", "alice", far, 500, 10, 10)])
    flushed = await flush(store, [Delta("daily", "alice", end, 3, 10, 10, LATER), delta("bob", expiry=end)])
    assert {r.key: (r.used, r.expiry) for r in flushed.rows} == {"alice": (3, end), "bob": (1, end)}


async def test_the_next_window_is_one(store: Store) -> None:
    await flush(store, [Delta("daily", "alice", LATER, 5, 10, 10, LATER)])
    await flush(store, [Delta("daily", "alice", SOON, 3, 10, 10, LATER)])
    assert (await row(store, "alice"))[5:7] == (5, LATER)


async def test_a_persistent_quota_outlasts_a_window_that_is_none(backend: Backend, store: Store) -> None:
    await flush(store, [Delta("daily", "alice", NO_BOUND // 2**31, 5, 10, 10)])
    put(backend, "quota = 70, persist = 1")
    await flush(store, [Delta("daily", "alice", SOON, 3, 10, 10, LATER)])
    assert (await row(store, "alice"))[2:7] == (70, 10, True, 3, SOON)


async def test_a_grant_in_a_window_that_is_none_begins_the_present_one(store: Store) -> None:
    await flush(store, [Delta("daily", "alice", SOON + 400 * 86400, 5, 10, 10)])
    (granted,) = await store.grant(Grant("daily", "alice", 50, 10, False, SOON, LATER), AGO)
    assert granted[2:7] == (50, 10, False, 0, SOON)


# -- grants ------------------------------------------------------------------------------------------------------------


def touch(backend: Backend) -> None:
    """What a cron job does every night."""
    backend.sql(f"UPDATE ratelimit SET used = 0 WHERE expiry < {int(time.time())}")


def end_window(backend: Backend, when: int = AGO) -> None:
    """Let the window be over since an hour, with everything in the row written before its end."""
    backend.sql(f"UPDATE ratelimit SET expiry = {when}, updated = {backend.at(when - 60)}")


async def test_a_cron_job_that_touches_rows_renews_no_grant(backend: Backend, store: Store) -> None:
    await flush(store, [delta("alice", 3, expiry=SOON)])
    backend.sql("UPDATE ratelimit SET quota = 50")
    await flush(store, [delta("alice", 3, expiry=SOON)])
    end_window(backend)
    touch(backend)
    assert (await row(store, "alice")).quota_at(int(time.time()), 10) == 10
    await flush(store, [delta("alice", 1, expiry=SOON)])
    assert (await row(store, "alice")).quota == 10


async def test_nor_one_that_no_flush_has_seen(backend: Backend, store: Store) -> None:
    """Made by SQL after the last mail of a window: whoever looks for changes has seen it."""
    cursor = (await store.changes(None, 0)).cursor
    await flush(store, [delta("alice", 3, expiry=SOON)])
    backend.sql("UPDATE ratelimit SET quota = 50")
    (changed,) = (await store.changes(cursor, 0)).rows
    assert changed.quota_at(int(time.time()), 10) == 50
    end_window(backend)
    touch(backend)
    assert (await row(store, "alice")).quota_at(int(time.time()), 10) == 10


async def test_noting_a_grant_is_no_change(backend: Backend, store: Store) -> None:
    await flush(store, [delta("alice", 3, expiry=SOON)])
    backend.sql(f"UPDATE ratelimit SET quota = 50, updated = {backend.at(1767323045)}")
    await store.changes(Cursor("2026-01-01 00:00:00" if backend.name == "sqlite" else 1767225600), 0)
    unchanged = backend.sql(f"SELECT seen, updated = {backend.at(1767323045)} FROM ratelimit")
    assert unchanged in ([("50", "1")], [("50", "t")])


async def test_a_grant_by_ratelimitctl_ends_with_its_window_though_the_row_is_touched(
    backend: Backend, store: Store
) -> None:
    await store.grant(Grant("daily", "alice", 50, 10, False, SOON, LATER), AGO)
    end_window(backend)
    touch(backend)
    assert (await row(store, "alice")).quota_at(int(time.time()), 10) == 10


async def test_a_grant_made_after_the_window_s_end_is_for_the_next(backend: Backend, store: Store) -> None:
    await flush(store, [delta("alice", 3, expiry=SOON)])
    end_window(backend)
    backend.sql("UPDATE ratelimit SET quota = 50")
    assert (await row(store, "alice")).quota_at(int(time.time()), 10) == 50


async def test_a_grant_between_the_first_mail_of_a_window_and_its_flush_is_not_overwritten(
    backend: Backend, store: Store
) -> None:
    await flush(store, [delta("alice", 3, expiry=SOON)])
    end_window(backend)
    backend.sql("UPDATE ratelimit SET quota = 50")
    await flush(store, [delta("alice", 1, expiry=SOON)])
    assert (await row(store, "alice"))[2:7] == (50, 10, False, 1, SOON)
    await flush(store, [delta("alice", 1, expiry=LATER)])
    assert (await row(store, "alice")).quota == 10


@pytest.mark.parametrize("lacking", [("seen",), ("until",), ("in_parts",), ("seen", "until", "in_parts")])
async def test_a_table_of_an_earlier_version_is_completed(backend: Backend, lacking: tuple[str, ...]) -> None:
    store = backend.make()
    await store.open()
    await flush(store, [delta("alice", 3, expiry=SOON)])
    await store.close()
    if backend.name == "sqlite":
        backend.sql("DROP VIEW view_ratelimit")
        backend.sql("DROP TRIGGER ratelimit_touched")
        backend.sql(
            "CREATE TRIGGER ratelimit_touched AFTER UPDATE OF quota, persist, used, expiry ON ratelimit WHEN"
            " NEW.updated = OLD.updated BEGIN UPDATE ratelimit SET updated = CURRENT_TIMESTAMP WHERE id = NEW.id; END"
        )
    if backend.name == "postgresql":
        backend.sql("DROP VIEW view_ratelimit; DROP TRIGGER ratelimit_touched ON ratelimit")
    for column in lacking:
        backend.sql(f"ALTER TABLE ratelimit DROP COLUMN {column}")
    again = backend.make()
    await again.open()
    await flush(again, [delta("alice", 1, expiry=SOON)])
    assert (await row(again, "alice")).used == 4
    backend.sql("UPDATE ratelimit SET updated = '2020-01-01 00:00:00'")
    cursor = (await again.changes(None, 0)).cursor
    backend.sql(f"UPDATE ratelimit SET until = {SOON}")
    assert [(changed.key, changed.until) for changed in (await again.changes(cursor, 0)).rows] == [("alice", SOON)]
    assert remarks(again) == []
    await again.close()


# -- rows that name no limit -------------------------------------------------------------------------------------------


async def test_a_row_that_names_no_limit_is_the_first_one_s(backend: Backend) -> None:
    store = backend.make(Names(limit="daily"))
    await store.open()
    backend.sql("INSERT INTO ratelimit (sender, quota, persist) VALUES ('alice', 50, 1)")
    assert (await row(store, "alice")).quota == 50
    await store.close()


async def test_and_after_a_start_with_another_first_limit_that_one_s(backend: Backend) -> None:
    for limit in ("default", "daily", "per-hour"):
        store = backend.make(Names(limit=limit))
        await store.open()
        await store.settle_default(change=True)
        backend.sql(f"INSERT INTO ratelimit (sender, quota, persist) VALUES ('{limit}', 50, 1)")
        assert (await row(store, limit, limit)).quota == 50
        assert remarks(store) == []
        await store.close()
        if backend.name != "sqlite":
            backend.sql("DELETE FROM ratelimit")


async def test_where_rows_are_of_the_limit_that_others_count_by_a_start_with_another_one_changes_nothing(
    backend: Backend,
) -> None:
    if backend.name == "sqlite":  # nobody else's daemon uses the file
        return
    store = backend.make(Names(limit="daily"))
    await store.open()
    await flush(store, [delta("alice")])
    trial = backend.make(Names(limit="default"))
    await trial.open()
    await trial.settle_default(change=True)
    backend.sql("INSERT INTO ratelimit (sender, quota, persist) VALUES ('bob', 50, 1)")
    assert (await row(store, "bob")).quota == 50
    (remark,) = trial.remarks.take()
    assert dict(remark.fields)["limit"] == "daily"
    backend.sql(str(dict(remark.fields)["statement"]))
    backend.sql("INSERT INTO ratelimit (sender, quota, persist) VALUES ('carol', 60, 1)")
    assert (await row(store, "carol", "default")).quota == 60
    await trial.settle_default(change=True)
    assert trial.remarks.take() == []
    await store.close()
    await trial.close()


@pytest.mark.parametrize("counted", [True, False])
async def test_a_look_or_a_check_with_another_first_limit_changes_nothing(backend: Backend, counted: bool) -> None:
    store = backend.make(Names(limit="daily"))
    await store.open()
    if counted:
        await flush(store, [delta("alice")])
    trial = backend.make(Names(limit="default"))
    await trial.open()
    await trial.settle_default(change=False)
    await trial.close()
    backend.sql("INSERT INTO ratelimit (sender, quota, persist) VALUES ('bob', 50, 1)")
    assert (await row(store, "bob")).quota == 50
    await store.close()


PIECES = [
    "0",
    "7",
    "12",
    "-1",
    "9" * 19,
    "9" * 20,
    "1e3",
    "1.5",
    "abc",
    "",
    " ",
    "\t5",
    "0x10",
    "+3",
    "é",
    "4000000000",
]


async def test_whatever_stands_in_a_row_the_next_charge_is_stored(backend: Backend, store: Store) -> None:
    """A short run of the fuzz target row-in-sqlite, on every server."""
    if backend.name != "sqlite":
        numbers = ("quota", "configured", "seen", "until", "persist", "used", "expiry")
        backend.alter(**dict.fromkeys(numbers, "VARCHAR(60)"))
    chosen = random.Random(14)
    keys = [f"user{number:03}" for number in range(120)]
    await flush(store, [delta(key, 5, expiry=SOON) for key in keys])
    for key in keys:
        columns = ["quota", "configured", "seen", "until", "persist", "used", "expiry"]
        names = chosen.sample(columns, chosen.randint(1, 2))
        put(
            backend,
            ", ".join(f"{name} = '{''.join(chosen.sample(PIECES, chosen.choice([1, 1, 1, 2])))}'" for name in names),
            key,
        )
    accounts = [Account("daily", key) for key in keys]
    before = {r.key: r for r in await store.lookup(accounts, 0)}
    assert 10 < len(before) < 110
    flushed = await flush(store, [Delta("daily", key, SOON, 5, 10, 10, LATER) for key in keys])
    assert flushed.rejected == []
    after = {r.key: r for r in await store.lookup(accounts, 0)}
    assert set(after) == set(keys)
    for key, row_then in before.items():
        if row_then.expiry == SOON:
            assert after[key].used == min(row_then.used + 5, 4_294_967_295)
    assert all(after[key].used >= 5 for key in keys if key not in before)


# -- what is read of rows is bounded, whatever the columns have become ---------------------------------------------


async def test_a_quota_that_no_column_of_ours_could_hold_costs_no_charge_and_is_noted(
    backend: Backend, store: Store
) -> None:
    if backend.name != "sqlite":
        backend.alter(quota="BIGINT")
    await flush(store, [delta("alice", 3, expiry=SOON), delta("bob", 3, expiry=SOON)])
    put(backend, f"quota = {2**62}")
    put(backend, "quota = 50", "bob")
    start = Cursor("2026-01-01 00:00:00" if backend.name == "sqlite" else AGO)
    assert [(r.key, r.quota) for r in (await store.changes(start, 0)).rows] == [("alice", 4294967295), ("bob", 50)]
    await store.note_given()
    assert (await row(store, "bob")).seen == 50
    flushed = await flush(store, [delta("alice", 2, expiry=SOON)])
    assert flushed.rejected == []
    assert (await row(store, "alice")).used == 5


async def test_a_time_of_change_with_a_fraction_is_one(backend: Backend, store: Store) -> None:
    time = "'2026-01-02 03:04:05.5'"
    if backend.name == "postgresql":
        backend.sql("DROP VIEW view_ratelimit; DROP TRIGGER ratelimit_touched ON ratelimit")
        backend.sql("ALTER TABLE ratelimit ALTER updated TYPE TIMESTAMP(6) WITH TIME ZONE")
        time = "to_timestamp(1767323045.5)"
    elif backend.name != "sqlite":
        backend.sql(f"ALTER TABLE ratelimit MODIFY updated TIMESTAMP(6) NOT NULL DEFAULT {time}")
    await flush(store, [delta("alice", 3, expiry=SOON)])
    backend.sql(f"UPDATE ratelimit SET updated = {time}")
    assert (await row(store, "alice")).updated == 1767323045
    assert remarks(store) == []


@pytest.mark.parametrize("behind", ["char(0) || '|x'", "char(0) || CAST(X'ff' AS TEXT)", "'|x'"])
async def test_in_sqlite_what_stands_behind_a_nul_breaks_no_cursor(
    sqlite: Backend, file_store: Store, behind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_changes, "PAGE", 2)
    cursor = (await file_store.changes(None, 0)).cursor
    await flush(file_store, [delta(key, expiry=SOON) for key in ("alice", "bob", "carol", "dave", "zoe")])
    sqlite.sql(f"UPDATE ratelimit SET updated = '2030-01-01 00:00:00' || {behind} WHERE sender <> 'zoe'")
    found, more = [], True
    while more:
        changes = await file_store.changes(cursor, 0)
        found += [r.key for r in changes.rows]
        cursor, more = changes.cursor, changes.more
    assert found == ["zoe"]


async def test_in_sqlite_what_no_database_can_hold_is_a_store_error(file_store: Store) -> None:
    with pytest.raises(StoreError):
        await file_store.changes(Cursor("2026-01-01", 1 << 70), 0)
    with pytest.raises(NotStored):
        await flush(file_store, [], segment=1 << 70)
    with pytest.raises(StoreError):
        await file_store.recorded("a\udcff")


async def test_in_sqlite_a_run_whose_name_is_none_is_left_alone(sqlite: Backend, file_store: Store) -> None:
    for node in ("CAST(X'ff' AS TEXT)", "X'ff'", "'long ago'"):
        sqlite.sql(f"INSERT INTO ratelimit_node (node, segment, updated) VALUES ({node}, 1, '2020-01-01 00:00:00')")
    await file_store.forget([], int(time.time()))
    assert len(sqlite.sql("SELECT 1 FROM ratelimit_node")) == 1


async def test_an_account_with_a_long_name_gets_back_what_memory_knows(backend: Backend, store: Store) -> None:
    loosen(backend)
    key = "a" * 150 + "@example.com"
    await flush(store, [delta(key, 3, expiry=SOON)])
    put(backend, "used = 'abc'", key)
    assert await store.lookup([Account("daily", key)], 0) == []
    assert list(store.remarks.unread) == [Account("daily", key)]


async def test_a_negative_use_in_parts_is_no_use_in_parts(backend: Backend, store: Store) -> None:
    if backend.name != "sqlite":
        backend.alter(in_parts="BIGINT")
    now = int(time.time())
    await flush(store, [delta("alice", 3, expiry=SOON)._replace(now=now)])
    put(backend, "in_parts = -5")
    await flush(store, [delta("alice", 2, expiry=SOON)._replace(now=now)])
    assert (await row(store, "alice")).used == 5
