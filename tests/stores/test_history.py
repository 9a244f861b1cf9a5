"""What every store keeps of windows that are over, and of the parts of sliding ones: one suite for all backends."""

import re
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
import trio

from ratelimitd.core.rows import MAX_USED, Account, Delta, Grant, Known
from ratelimitd.errors import StoreReplaced, StoreUnsuitable
from ratelimitd.stores import Names, Store, history_statements, schema
from ratelimitd.stores.dialect import SQLite
from ratelimitd.stores.history import LEFT_S, STEP, Kept
from ratelimitd.stores.looking import SQLiteLook
from ratelimitd.stores.mysql.store import MySQLLook, MySQLStore
from ratelimitd.stores.postgresql.store import PostgreSQLLook, PostgreSQLStore
from ratelimitd.stores.survey import Rename
from tests.stores.backends import Backend, closed_after, delta, flush, flush_in_turn, row

NOW = int(time.time()) // 60 * 60
"""The nodes' clock; the database's is its own."""
HOUR = 3600
PART = 60
DAY = 86_400
KEPT = Kept(0, {"hourly"})
ALL = Kept(30, {"hourly"})


def part(key: str, used: int, leave: int, *, now: int = NOW, quota: int = 10) -> Delta:
    """Recipients of a part that leaves `leave` seconds from NOW."""
    return Delta("hourly", key, NOW + leave, used, quota, quota, now + 2 * HOUR + PART, 1, 1, now, True)


def parts(*pairs: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    return tuple((NOW + leave, used) for leave, used in pairs)


def written(backend: Backend, columns: str = "sender, limit_name, expiry, used") -> list[tuple[str, ...]]:
    """The history's rows, as an administrator reads them."""
    return sorted(backend.sql(f"SELECT {columns} FROM ratelimit_history"))


@pytest.fixture
def sliding(store: Store) -> Store:
    store.configure(10, KEPT)
    return store


@pytest.fixture
def history(store: Store) -> Store:
    store.configure(10, ALL)
    return store


async def other_node(backend: Backend, kept: Kept = KEPT) -> Store:
    made = backend.make()
    made.configure(10, kept)
    await made.open()
    return made


# -- fixed windows ---------------------------------------------------------------------------------------------------


async def test_without_history_and_sliding_limits_nothing_is_written_there(backend: Backend, store: Store) -> None:
    await flush(store, [delta("alice", 3), delta("bob", 4)])
    await store.restore([Known(delta("alice", 5), False)], 1000)
    assert written(backend) == []


async def test_each_window_of_an_account_has_its_row_and_they_add_up(backend: Backend, history: Store) -> None:
    await flush(history, [delta("alice", 3), delta("bob", 4)])
    await flush(history, [delta("alice", 2), delta("alice", 7, expiry=3000), delta("alice", 1, limit="weekly")])
    assert written(backend) == [
        ("alice", "daily", "2000", "5"),
        ("alice", "daily", "3000", "7"),
        ("alice", "weekly", "2000", "1"),
        ("bob", "daily", "2000", "4"),
    ]


async def test_a_delta_of_a_window_that_is_over_goes_to_its_own_row_and_is_never_dropped(
    backend: Backend, history: Store
) -> None:
    """The other node has begun the next window, and even one of years ago: the clock was wrong."""
    other = await other_node(backend, ALL)
    await flush(other, [delta("alice", 5, expiry=3000)], node="other")
    await flush(history, [delta("alice", 2, expiry=2000), delta("alice", 1, expiry=60)])
    await flush(other, [delta("alice", 4, expiry=2000)], node="other")
    assert (await row(history, "alice"))[5:7] == (5, 3000)
    assert written(backend, "expiry, used") == [("2000", "6"), ("3000", "5"), ("60", "1")]
    await other.close()


async def test_a_segment_that_is_recorded_is_not_added_to_the_history_again(backend: Backend, history: Store) -> None:
    for _ in range(3):
        await flush(history, [delta("alice", 3), part("alice", 4, HOUR)], segment=5)
    assert written(backend, "used") == [("3",), ("4",)]


async def test_nodes_that_flush_the_same_accounts_at_once_lose_nothing(backend: Backend, history: Store) -> None:
    """New rows and old ones, in both tables, of fixed and of sliding limits."""

    async def node(name: str, at: int) -> None:
        keys = [f"user{n:03}" for n in range(at, at + 60)]
        async with closed_after(await other_node(backend, ALL)) as own:
            for segment in range(1, 9):
                windows = [delta(key, 1, expiry=2000 + segment % 2) for key in keys]
                windows += [part(key, 1, HOUR + PART * (segment // 2)) for key in keys]
                await flush_in_turn(own, windows, name, segment)

    async with trio.open_nursery() as nursery:
        for number, name in enumerate(("a", "b", "c")):
            nursery.start_soon(node, name, 5 * number)
    total = backend.sql("SELECT limit_name, SUM(used) FROM ratelimit_history GROUP BY limit_name ORDER BY limit_name")
    assert total == [("daily", str(3 * 60 * 8)), ("hourly", str(3 * 60 * 8))]
    rows = await history.lookup([Account("hourly", f"user{n:03}") for n in range(70)], NOW)
    assert sum(found.used for found in rows) == 3 * 60 * 8
    assert all(found.used == sum(used for _, used in found.parts) for found in rows)


async def test_what_a_database_refuses_is_not_in_the_history_either(backend: Backend, history: Store) -> None:
    flushed = await flush(history, [delta("alice", 3), delta("bob\udcff", 4)])
    assert [refused.key for refused, _ in flushed.rejected] == ["bob\udcff"]
    assert written(backend, "sender, used") == [("alice", "3")]


async def test_a_row_that_the_history_refuses_is_said_once_and_the_account_counts(
    backend: Backend, history: Store
) -> None:
    await flush(history, [delta("alice", 3)])
    if backend.name == "sqlite":
        refuse = "WHEN NEW.sender = 'bob' BEGIN SELECT RAISE(ABORT, 'no'); END"
        backend.sql(f"CREATE TRIGGER refusing BEFORE INSERT ON ratelimit_history {refuse}")
    else:
        backend.sql("ALTER TABLE ratelimit_history ADD CONSTRAINT refusing CHECK (sender <> 'bob')")
    for _ in range(2):
        assert (await flush(history, [delta(key, 1) for key in ("alice", "bob", "carol")])).rejected == []
    assert written(backend, "sender, used") == [("alice", "5"), ("carol", "2")]
    assert (await row(history, "bob")).used == 2
    (remark,) = history.remarks.take()
    assert remark.event == "the database refuses a row of the history; it is left out"
    assert dict(remark.fields)["key"] == "bob"


async def test_a_count_in_the_history_stops_at_the_columns_width(backend: Backend, history: Store) -> None:
    for used in (MAX_USED - 1, 5):
        await flush(history, [delta("alice", used), part("alice", used, HOUR)])
    assert written(backend, "used") == [(str(MAX_USED),)] * 2
    assert (await row(history, "alice", "hourly", NOW)).used == MAX_USED


async def test_ten_thousand_accounts_of_both_kinds_are_stored_and_read_back(history: Store, backend: Backend) -> None:
    keys = [f"user{n:05}" for n in range(2500)]
    flushed = await flush(history, [delta(key, 2) for key in keys] + [part(key, 3, HOUR) for key in keys])
    assert len(flushed.rows) == 5000
    assert backend.sql("SELECT COUNT(*), SUM(used) FROM ratelimit_history") == [("5000", "12500")]


async def test_the_statements_of_the_page_about_the_tables_find_what_they_say(backend: Backend, history: Store) -> None:
    page = (Path(__file__).parents[2] / "sql" / "README.md").read_text(encoding="utf-8")
    section = page.partition("## The table `ratelimit_history`")[2].partition("\n## ")[0]
    one, most = re.search(r"```sql\n(.*?)```", section, re.DOTALL).group(1).strip().splitlines()  # type: ignore[union-attr]
    days = [delta("alice@example.com", used, expiry=NOW + DAY * used) for used in (3, 5, 4)]
    await flush(history, [*days, delta("bob@example.com", 7)])
    assert backend.sql(one) == [(str(NOW + DAY * used), str(used)) for used in (3, 4, 5)]
    assert backend.sql(most) == [("bob@example.com", "7"), ("alice@example.com", "5")]


# -- sliding windows -------------------------------------------------------------------------------------------------


async def test_a_row_of_a_sliding_limit_has_the_sum_of_its_parts_and_ends_with_the_last(sliding: Store) -> None:
    (first,) = (await flush(sliding, [part("alice", 3, HOUR - 120)])).rows
    assert (first.used, first.expiry, first.parts) == (3, NOW + HOUR - 120, parts((HOUR - 120, 3)))
    (second,) = (await flush(sliding, [part("alice", 4, HOUR), part("alice", 1, HOUR - 120)])).rows
    assert (second.used, second.expiry) == (8, NOW + HOUR)
    assert second.parts == parts((HOUR - 120, 4), (HOUR, 4))
    (found,) = await sliding.lookup([Account("hourly", "alice")], NOW)
    assert found._replace(updated=0) == second._replace(updated=0)
    assert (second.quota, second.configured, second.seen, second.persist) == (10, 10, 10, False)


async def test_parts_that_have_left_count_no_more_and_a_late_one_goes_to_its_own_row(
    backend: Backend, sliding: Store
) -> None:
    await flush(sliding, [part("alice", 3, 30), part("alice", 4, 300)])
    (found,) = (await flush(sliding, [part("alice", 2, 360, now=NOW + 60), part("alice", 1, 30, now=NOW + 60)])).rows
    assert (found.used, found.expiry, found.parts) == (6, NOW + 360, parts((300, 4), (360, 2)))
    assert written(backend, "expiry, used") == [(str(NOW + 30), "4"), (str(NOW + 300), "4"), (str(NOW + 360), "2")]


async def test_late_parts_alone_begin_nothing(sliding: Store) -> None:
    (found,) = (await flush(sliding, [part("alice", 3, -60)])).rows
    assert (found.expiry, found.parts) == (NOW - 60, ())


async def test_what_has_left_by_the_clock_of_one_node_still_counts_by_the_clock_of_another(
    backend: Backend, sliding: Store
) -> None:
    other = await other_node(backend)
    await flush(sliding, [part("alice", 3, 10)])
    (ahead,) = (await flush(other, [part("alice", 2, 20, now=NOW + 30)], node="other")).rows
    assert ahead.parts == ()
    (behind,) = (await flush(sliding, [part("alice", 1, 20)])).rows
    assert (behind.used, behind.parts) == (6, parts((10, 3), (20, 3)))
    await other.close()


async def test_parts_of_nodes_add_up_whoever_flushes_first(backend: Backend, sliding: Store) -> None:
    """Their clocks are half a minute apart."""
    other = await other_node(backend)
    await flush(sliding, [part("alice", 3, HOUR)])
    (seen,) = (await flush(other, [part("alice", 2, HOUR + PART, now=NOW + 30)], node="other")).rows
    assert seen.parts == parts((HOUR, 3), (HOUR + PART, 2))
    (seen,) = (await flush(sliding, [part("alice", 1, HOUR)])).rows
    assert (seen.used, seen.expiry, seen.parts) == (6, NOW + HOUR + PART, parts((HOUR, 4), (HOUR + PART, 2)))
    await other.close()


async def test_a_lookup_finds_all_parts_that_may_count_and_no_others(sliding: Store) -> None:
    many = [part("alice", n, PART * n) for n in range(1, 62)]
    await flush(sliding, [part("alice", 9, -PART), part("alice", 8, -HOUR), *many])
    found = await row(sliding, "alice", "hourly", NOW)
    assert found.parts == parts(*((PART * n, n) for n in range(1, 62)))
    assert found.used == sum(range(1, 62))


@pytest.mark.parametrize(
    ("column", "name"), [("sender", "key"), ("limit_name", "of"), ("expiry", "after"), ("used", "part")]
)
async def test_a_column_may_have_any_name_and_an_account_its_own_parts_alone(
    backend: Backend, column: str, name: str
) -> None:
    store = backend.make(Names("ratelimit", ((column, name),)).checked())
    store.configure(10, KEPT)
    await store.open()
    await flush(store, [part("alice", 3, HOUR), part("bob", 9, HOUR)])
    assert (await row(store, "alice", "hourly", NOW)).parts == parts((HOUR, 3))
    assert (await row(store, "bob", "hourly", NOW)).used == 9
    await store.close()


async def test_changes_have_the_parts(sliding: Store) -> None:
    cursor = (await sliding.changes(None, NOW)).cursor
    await flush(sliding, [part("alice", 3, HOUR), delta("bob", 2)])
    found = {changed.key: changed for changed in (await sliding.changes(cursor, NOW)).rows}
    assert found["alice"].parts == parts((HOUR, 3))
    assert found["bob"].parts == ()


async def test_a_grant_keeps_the_parts_and_the_quota_stays_while_something_counts(sliding: Store) -> None:
    await flush(sliding, [part("alice", 3, HOUR)])
    (granted,) = await sliding.grant(Grant("hourly", "alice", 50, 10, False, NOW + HOUR + PART), NOW)
    assert (granted.quota, granted.used, granted.parts) == (50, 3, parts((HOUR, 3)))
    (after,) = (await flush(sliding, [part("alice", 1, HOUR + PART)])).rows
    assert (after.quota, after.used) == (50, 4)
    (later,) = (await flush(sliding, [part("alice", 1, 3 * HOUR, now=NOW + 2 * HOUR)])).rows
    assert (later.quota_at(NOW + 2 * HOUR, 10), later.used) == (10, 1)


async def test_a_quota_that_a_panel_gives_is_not_overwritten_by_the_next_part(backend: Backend, sliding: Store) -> None:
    await flush(sliding, [part("alice", 3, HOUR)])
    backend.sql("UPDATE ratelimit SET quota = 50 WHERE sender = 'alice'")
    (after,) = (await flush(sliding, [part("alice", 1, HOUR + PART)])).rows
    assert (after.quota, after.used) == (50, 4)


async def test_a_reset_forgets_the_parts(backend: Backend, sliding: Store) -> None:
    await flush(sliding, [part("alice", 3, HOUR), part("bob", 5, HOUR)])
    (reset,) = await sliding.reset([Account("hourly", "alice")], NOW)
    assert (reset.used, reset.parts) == (0, ())
    assert (await row(sliding, "alice", "hourly", NOW)).parts == ()
    (after,) = (await flush(sliding, [part("alice", 1, HOUR + PART)])).rows
    assert (after.used, after.parts) == (1, parts((HOUR + PART, 1)))
    assert written(backend, "sender, used") == [("alice", "1"), ("bob", "5")]


@pytest.mark.parametrize("statement", ["UPDATE ratelimit SET used = 0", "DELETE FROM ratelimit"])
async def test_what_an_administrator_sets_to_0_or_deletes_is_forgotten(
    backend: Backend, sliding: Store, statement: str
) -> None:
    await flush(sliding, [part("alice", 3, HOUR), part("alice", 2, PART)])
    backend.sql(statement)
    found = await sliding.lookup([Account("hourly", "alice")], NOW)
    assert [(one.used, one.parts) for one in found] in ([], [(0, ())])
    (after,) = (await flush(sliding, [part("alice", 1, HOUR)])).rows
    assert (after.used, after.parts) == (1, parts((HOUR, 1)))


async def test_what_was_counted_in_a_fixed_window_counts_until_that_would_have_ended(
    backend: Backend, sliding: Store
) -> None:
    """The limit was a fixed one before, or the Perl daemon has written the row."""
    await flush(sliding, [Delta("hourly", "alice", NOW + 1234, 5, 10, 10)])
    (after,) = (await flush(sliding, [part("alice", 1, HOUR)])).rows
    assert (after.used, after.parts) == (6, parts((1234, 5), (HOUR, 1)))
    (again,) = (await flush(sliding, [part("alice", 1, HOUR)])).rows
    assert (again.used, again.parts) == (7, parts((1234, 5), (HOUR, 2)))


@pytest.mark.parametrize("there", [True, False])
async def test_the_parts_of_a_row_that_becomes_another_account_s_are_that_account_s(
    backend: Backend, sliding: Store, there: bool
) -> None:
    mine = [part("alice", 1, HOUR)] if there else []
    await flush(sliding, [part("Alice", 3, HOUR), part("Alice", 2, PART), part("Alice", 9, -PART), *mine])
    rename = Rename("hourly", "Alice", "alice", 10, 1, NOW + 3 * HOUR)
    (found,) = await sliding.adopt([rename], NOW)
    assert found.parts == parts((PART, 2), (HOUR, 4 if there else 3))
    (after,) = (await flush(sliding, [part("alice", 1, HOUR)])).rows
    assert (after.used, after.parts) == (7 if there else 6, parts((PART, 2), (HOUR, 5 if there else 4)))
    assert written(backend, "sender, used")[:1] == [("Alice", "9")]


# -- what memory knows -----------------------------------------------------------------------------------------------


async def test_parts_that_are_known_are_the_least_that_stand_there_afterwards(backend: Backend, sliding: Store) -> None:
    await flush(sliding, [part("less", 3, HOUR), part("less", 9, PART), part("more", 30, HOUR)])
    known = [Known(part(key, 20, HOUR)._replace(now=1 << 62), False) for key in ("less", "more", "none")]
    known.append(Known(part("none", 2, 2 * PART)._replace(now=1 << 62), False))
    for _ in range(2):
        await sliding.restore(known, NOW)
        found = {key: await row(sliding, key, "hourly", NOW) for key in ("less", "more", "none")}
        assert found["less"].parts == parts((PART, 9), (HOUR, 20))
        assert found["more"].parts == parts((HOUR, 30))
        assert found["none"].parts == parts((2 * PART, 2), (HOUR, 20))
        assert {key: one.used for key, one in found.items()} == {"less": 29, "more": 30, "none": 22}
    assert sum(int(used) for (used,) in backend.sql("SELECT used FROM ratelimit_history")) == 81


async def test_a_restored_quota_of_a_sliding_limit_is_the_one_that_is_known(sliding: Store) -> None:
    one = part("alice", 3, HOUR)._replace(quota=50, configured=10)
    for _ in range(2):
        await sliding.restore([Known(one, True), Known(one._replace(expiry=NOW + PART), True)], NOW)
    found = await row(sliding, "alice", "hourly", NOW)
    assert (found.quota, found.persist, found.used) == (50, True, 6)


async def test_a_restore_has_the_history_hold_at_least_what_is_known(backend: Backend, history: Store) -> None:
    await flush(history, [delta("less", 3), delta("more", 30)])
    for _ in range(2):
        await history.restore([Known(delta(key, 20), False) for key in ("less", "more", "none")], 1000)
    assert written(backend, "sender, used") == [("less", "20"), ("more", "30"), ("none", "20")]


# -- nonsense --------------------------------------------------------------------------------------------------------


@pytest.fixture
def loose(backend: Backend, store: Store) -> Backend:
    """The history's columns may hold anything."""
    if backend.name != "sqlite":
        kinds = {"used": "VARCHAR(20) DEFAULT NULL", "expiry": "VARCHAR(20) NOT NULL"}
        if backend.name == "postgresql":  # whose keys keep their types
            del kinds["expiry"]
        backend.alter_other("ratelimit_history", **kinds)
    return backend


@pytest.mark.parametrize("used", ["'many'", "-5", "'3;9 9'", "''"])
async def test_a_row_that_makes_no_sense_is_set_aside_with_one_line(loose: Backend, sliding: Store, used: str) -> None:
    await flush(sliding, [part("alice", 3, HOUR), part("alice", 2, PART)])
    loose.sql(f"UPDATE ratelimit_history SET used = {used} WHERE expiry = '{NOW + PART}'")
    for _ in range(2):
        assert (await row(sliding, "alice", "hourly", NOW)).parts[-1] == (NOW + HOUR, 3)
    (remark,) = sliding.remarks.take()
    assert remark.event == "a row of the history makes no sense; it is not counted"
    assert dict(remark.fields)["key"] == "alice"
    (after,) = (await flush(sliding, [part("alice", 4, PART), part("alice", 1, HOUR)])).rows
    assert (after.used, after.parts) == (8, parts((PART, 4), (HOUR, 4)))


async def test_NULL_counts_as_0_and_digits_as_a_number(loose: Backend, sliding: Store) -> None:
    await flush(sliding, [part("alice", 3, HOUR), part("alice", 2, PART)])
    if loose.name == "sqlite":
        loose.sql(f"UPDATE ratelimit_history SET used = '12' WHERE expiry = '{NOW + PART}'")
    else:
        loose.sql(f"UPDATE ratelimit_history SET used = NULL WHERE expiry = '{NOW + PART}'")
    expected = 12 if loose.name == "sqlite" else 0
    assert dict((await row(sliding, "alice", "hourly", NOW)).parts).get(NOW + PART, 0) == expected
    assert sliding.remarks.take() == []


async def test_a_part_that_leaves_in_years_counts_nothing_and_is_said_once(backend: Backend, sliding: Store) -> None:
    await flush(sliding, [part("alice", 3, HOUR)])
    far = NOW + 10 * 366 * 86_400 if backend.name == "sqlite" else 4_294_967_290
    backend.sql(
        f"INSERT INTO ratelimit_history (sender, limit_name, expiry, used) VALUES ('alice', 'hourly', {far}, 9)"
    )
    (after,) = (await flush(sliding, [part("alice", 1, HOUR)])).rows
    assert (after.used, after.parts) == (4, parts((HOUR, 4)))
    # A second may have begun between the two statements of a flush.
    assert (await row(sliding, "alice", "hourly", NOW))._replace(updated=0) == after._replace(updated=0)
    for _ in range(2):
        assert not await sliding.forget_history(NOW)
    (remark,) = sliding.remarks.take()
    assert dict(remark.fields) == {"limit": "hourly", "key": "alice", "expiry": str(far), "used": "9"}


@pytest.mark.parametrize("column", ["used", "expiry"])
async def test_a_row_of_ratelimit_that_makes_no_sense_keeps_its_parts(
    backend: Backend, sliding: Store, column: str
) -> None:
    await flush(sliding, [part("alice", 3, HOUR), part("alice", 2, PART)])
    if backend.name != "sqlite":
        backend.alter(**{column: "VARCHAR(20)"})
    backend.sql(f"UPDATE ratelimit SET {column} = 'much'")
    (after,) = (await flush(sliding, [part("alice", 1, HOUR)])).rows
    assert (after.used, after.expiry, after.parts) == (6, NOW + HOUR, parts((PART, 2), (HOUR, 4)))


# -- old rows --------------------------------------------------------------------------------------------------------


def insert(backend: Backend, ends: Iterable[int]) -> None:
    """Rows of an account that has sent for long."""
    rows = ", ".join(f"('alice', 'daily', {end}, 1)" for end in ends)
    backend.sql(f"INSERT INTO ratelimit_history (sender, limit_name, expiry, used) VALUES {rows}")


async def test_rows_that_are_kept_no_longer_go_a_bounded_number_at_a_time(backend: Backend, history: Store) -> None:
    old = NOW - 30 * DAY
    insert(backend, range(old - 2 * STEP - 4, old + 6))
    left = []
    while await history.forget_history(NOW):
        left.append(len(written(backend)))
    assert left == [STEP + 10, 10]
    assert written(backend, "expiry") == [(str(end),) for end in range(old + 1, old + 6)]


async def test_a_clock_that_is_ahead_forgets_nothing(backend: Backend, history: Store) -> None:
    insert(backend, [NOW - DAY])
    await history.forget_history(NOW + 400 * DAY)
    assert len(written(backend)) == 1


async def test_parts_alone_go_an_hour_after_they_have_left(backend: Backend, sliding: Store) -> None:
    insert(backend, [NOW - LEFT_S, NOW - LEFT_S + 60])
    await sliding.forget_history(NOW)
    assert written(backend, "expiry") == [(str(NOW - LEFT_S + 60),)]


async def test_where_nothing_is_kept_any_more_what_was_goes_and_then_nothing_is_asked(
    backend: Backend, store: Store
) -> None:
    insert(backend, [NOW - DAY])
    assert not await store.forget_history(NOW)
    assert written(backend) == []
    insert(backend, [NOW - DAY])
    assert not await store.forget_history(NOW)
    assert len(written(backend)) == 1
    store.configure(10, ALL)
    store.configure(10, Kept())
    assert not await store.forget_history(NOW)
    assert written(backend) == []


# -- tables that were copied -----------------------------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.parametrize(
    ("table", "key"), [("ratelimit_node", "(node)"), ("ratelimit_history", "(sender, limit_name, expiry)")]
)
async def test_a_table_beside_without_its_key_is_refused_with_the_statement(
    backend: Backend, history: Store, table: str, key: str
) -> None:
    if backend.name == "sqlite":
        pytest.skip("nobody copies a table there")
    backend.sql(f"CREATE TABLE copy AS SELECT * FROM {table}")
    backend.sql(f"DROP TABLE {table}")
    backend.sql(f"ALTER TABLE copy RENAME TO {table}")
    with pytest.raises(StoreUnsuitable, match=f"no unique index on {re.escape(key)}: .*ADD PRIMARY KEY") as caught:
        await history.open()
    backend.sql(str(caught.value).partition("must run: ")[2])
    await history.open()


@pytest.mark.real
async def test_a_history_that_lacks_a_column_is_refused(backend: Backend, history: Store) -> None:
    if backend.name == "sqlite":
        pytest.skip("it looks at its tables itself")
    backend.sql("ALTER TABLE ratelimit_history DROP COLUMN used")
    with pytest.raises(StoreUnsuitable, match=r"ratelimit_history cannot be used: .*used"):
        await history.open()


@pytest.mark.real
async def test_a_table_that_cannot_be_rolled_back_is_refused(backend: Backend, store: Store) -> None:
    if backend.name not in ("mariadb", "mysql9"):
        pytest.skip("it has no such tables")
    backend.sql("ALTER TABLE ratelimit_node ENGINE = MyISAM")
    with pytest.raises(StoreUnsuitable, match="ratelimit_node cannot be used: its engine is MyISAM"):
        await store.open()


# -- tables of the version before ------------------------------------------------------------------------------------


async def test_a_table_that_is_missing_is_created_at_the_start(backend: Backend, store: Store) -> None:
    await store.close()
    backend.sql("DROP TABLE ratelimit_history")
    again = await other_node(backend)
    (found,) = (await flush(again, [part("alice", 3, HOUR)])).rows
    assert found.used == 3
    await again.close()


async def test_a_table_that_is_dropped_under_a_running_daemon_is_noticed_and_created_again(
    backend: Backend, history: Store
) -> None:
    await flush(history, [part("alice", 3, HOUR)])
    backend.sql("DROP TABLE ratelimit_history")
    noticing = history.check() if backend.name == "sqlite" else flush(history, [part("alice", 1, HOUR)])
    with pytest.raises(StoreReplaced):
        await noticing
    await history.close()
    await history.open()
    await history.restore([Known(part("alice", 3, HOUR), False)], NOW)
    (found,) = (await flush(history, [part("alice", 1, HOUR)])).rows
    assert (found.used, found.parts) == (4, parts((HOUR, 4)))


async def test_a_file_without_the_table_can_be_looked_at(tmp_path: Path, backend: Backend, store: Store) -> None:
    await flush(store, [delta("alice", 3)])
    await store.close()
    backend.sql("DROP TABLE ratelimit_history")
    look: Store = SQLiteLook(tmp_path / "ratelimit.sqlite3")
    if isinstance(store, PostgreSQLStore):
        look = PostgreSQLLook(store.access, timeout_s=10)
    elif backend.name != "sqlite":
        assert isinstance(store, MySQLStore)
        look = MySQLLook(store.access, timeout_s=10)
    look.configure(10, Kept(30, {"daily"}))
    await look.open()
    assert (await row(look, "alice")).used == 3
    await look.close()


def test_no_statement_of_SQLite_reads_the_whole_history() -> None:
    connection = sqlite3.connect(":memory:")
    connection.executescript(schema("sqlite"))
    d = SQLite()
    read = {history_statements.PARTS: 4, history_statements.forget(d): 1, history_statements.far(d): 1}
    for statement, arguments in {**read, history_statements.DELETE: 3}.items():
        plan = connection.execute(f"EXPLAIN QUERY PLAN {d.sql(Names(), statement)}", [0] * arguments).fetchall()
        assert not [step for *_, step in plan if step.startswith("SCAN ratelimit")], statement
    connection.close()
