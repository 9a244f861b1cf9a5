"""What every store gives of its history to look at: one suite for all backends."""

import sqlite3
import time
from pathlib import Path

import pytest

from ratelimitd.core.rows import Account
from ratelimitd.stores import Names, Store, history_statements, schema
from ratelimitd.stores.dialect import MySQL, PostgreSQL, SQLite
from ratelimitd.stores.history import Kept, Values
from ratelimitd.stores.looking import SQLiteLook
from ratelimitd.stores.mysql.store import MySQLLook, MySQLStore
from ratelimitd.stores.past import PAGE, START
from ratelimitd.stores.postgresql.store import PostgreSQLLook, PostgreSQLStore
from tests.stores.backends import Backend, delta, flush

NOW = int(time.time())
DAY = 86_400


@pytest.fixture
def history(store: Store) -> Store:
    store.configure(10, Kept(30))
    return store


async def everything(store: Store, since: int = 0) -> list[list[Values]]:
    """All pages."""
    pages = []
    place = START
    while True:
        page = await store.past.page(place, since, NOW)
        pages.append(page.rows)
        if page.after is None:
            return pages
        place = page.after


async def test_an_empty_history_has_no_rows(history: Store) -> None:
    assert await history.past.windows("daily", "alice", 0, NOW) == ()
    assert await everything(history) == [[]]


async def test_the_windows_of_one_account_come_in_the_order_of_their_ends(history: Store) -> None:
    ends = [NOW + DAY, NOW - DAY, NOW, NOW - 3 * DAY]
    await flush(history, [delta("alice", n + 1, expiry=end) for n, end in enumerate(ends)])
    await flush(history, [delta("alicf", 9), delta("alice", 9, limit="weekly"), delta("alic", 9), delta("Alice", 9)])
    past = history.past
    assert await past.windows("daily", "alice", 0, NOW) == (
        (NOW - 3 * DAY, 4), (NOW - DAY, 2), (NOW, 3), (NOW + DAY, 1),
    )  # fmt: skip
    assert await past.windows("daily", "alice", NOW - DAY, NOW) == ((NOW, 3), (NOW + DAY, 1))


async def test_pages_have_each_row_once_and_keep_an_account_together(history: Store) -> None:
    """Also where a page ends in the middle of an account, and keys that sort in another way in other languages."""
    keys = ["a", "A", "a b", "ä@example.com", "é", "z", "~", "日本", "x" * 200, "o'neill", 'q"q', "back\\slash", "a%s"]
    deltas = [delta(key, n + 1, expiry=NOW - n * 60, limit=limit)
              for key in keys for limit in ("daily", "hourly") for n in range(PAGE // 10 + 7)]  # fmt: skip
    await flush(history, deltas)
    pages = await everything(history)
    assert [len(page) for page in pages[:-1]] == [PAGE] * (len(deltas) // PAGE)
    rows = [row for page in pages for row in page]
    assert sorted(rows) == sorted((one.limit, one.key, one.expiry, one.used) for one in deltas)
    accounts = [(key, limit) for limit, key, *_ in rows]
    assert len([at for at in range(1, len(rows)) if accounts[at] != accounts[at - 1]]) == 2 * len(keys) - 1
    for at in range(1, len(rows)):
        assert accounts[at] != accounts[at - 1] or rows[at][2] > rows[at - 1][2]


async def test_a_page_that_is_full_and_the_last_one_is_followed_by_an_empty_one(history: Store) -> None:
    await flush(history, [delta("alice", 1, expiry=NOW - n) for n in range(PAGE)])
    assert [len(page) for page in await everything(history)] == [PAGE, 0]


async def test_windows_that_ended_before_are_left_out(history: Store) -> None:
    await flush(history, [delta(key, 1, expiry=NOW - day * DAY) for key in ("alice", "bob") for day in range(5)])
    assert [row[1:3] for row in (await everything(history, NOW - 2 * DAY))[0]] == [
        ("alice", NOW - DAY), ("alice", NOW), ("bob", NOW - DAY), ("bob", NOW),
    ]  # fmt: skip


async def test_an_account_with_more_windows_than_a_page_is_read_in_pages(history: Store) -> None:
    await flush(history, [delta("alice", 1, expiry=NOW - n) for n in range(PAGE + 3)])
    some = await history.past.windows("daily", "alice", 0, NOW)
    rest = await history.past.windows("daily", "alice", some[-1][0], NOW)
    assert [end for end, _ in (*some, *rest)] == list(range(NOW - PAGE - 2, NOW + 1))


async def test_rows_that_make_no_sense_are_set_aside_and_end_nothing(backend: Backend, history: Store) -> None:
    await flush(history, [delta(key, 1, expiry=NOW) for key in ("alice", "bob", "carol")])
    if backend.name == "sqlite":
        backend.sql("UPDATE ratelimit_history SET sender = CAST(x'626fff' AS TEXT) WHERE sender = 'bob'")
        backend.sql("INSERT INTO ratelimit_history VALUES (x'ff', 'daily', 2000, 1), ('dave', 'daily', 'soon', 1)")
        backend.sql("UPDATE ratelimit_history SET used = 'many' WHERE sender = 'carol'")
    else:
        backend.alter_other("ratelimit_history", used="VARCHAR(20) DEFAULT NULL")
        backend.sql("UPDATE ratelimit_history SET used = 'many' WHERE sender = 'carol'")
    (page,) = await everything(history)
    assert ("daily", "alice", NOW, 1) in page
    assert len(page) == 3
    assert ("daily", "carol", NOW, 0) in page
    (remark,) = history.remarks.take()
    assert dict(remark.fields)["key"] == "carol"
    place = START
    for row in page:  # also from a place whose name is no UTF-8
        after = await history.past.page(place._replace(key=row[1], limit="daily", end=NOW), 0, NOW)
        place = place._replace(key=row[1])
        assert len(after.rows) == len(page) - page.index(row) - 1


async def test_a_window_that_ends_in_years_is_none(backend: Backend, history: Store) -> None:
    await flush(history, [delta("alice", 1, expiry=NOW)])
    far = NOW + 10 * 366 * DAY if backend.name == "sqlite" else 4_294_967_290
    backend.sql(f"INSERT INTO ratelimit_history (sender, limit_name, expiry, used) VALUES ('alice', 'daily', {far}, 9)")
    assert await history.past.windows("daily", "alice", 0, NOW) == ((NOW, 1),)
    assert await everything(history) == [[("daily", "alice", NOW, 1)]]


async def test_a_database_without_the_table_has_no_rows_where_it_is_only_looked_at(
    tmp_path: Path, backend: Backend, store: Store
) -> None:
    await flush(store, [delta("alice", 3)])
    await store.close()
    backend.sql("DROP TABLE ratelimit_history")
    look: Store = SQLiteLook(tmp_path / "ratelimit.sqlite3")
    if isinstance(store, PostgreSQLStore):
        look = PostgreSQLLook(store.access, timeout_s=10)
    elif isinstance(store, MySQLStore):
        look = MySQLLook(store.access, timeout_s=10)
    await look.open()
    assert await everything(look) == [[]]
    assert await look.past.windows("daily", "alice", 0, NOW) == ()
    assert len(await look.lookup([Account("daily", "alice")], NOW)) == 1
    await look.close()


async def test_other_names_of_the_table_and_its_columns_hold(backend: Backend) -> None:
    made = backend.make(Names("quota", (("sender", "who"), ("used", "sent"))))
    made.configure(10, Kept(30))
    await made.open()
    await flush(made, [delta("alice", 3, expiry=NOW)])
    assert await everything(made) == [[("daily", "alice", NOW, 3)]]
    assert await made.past.windows("daily", "alice", 0, NOW) == ((NOW, 3),)
    await made.close()


async def test_no_server_sorts_the_table_for_a_page(backend: Backend, history: Store) -> None:
    if backend.name == "sqlite":
        return
    await flush(history, [delta(f"u{n:03}", 1, expiry=NOW - day * DAY) for n in range(500) for day in range(40)])
    backend.sql("ANALYZE" + " TABLE" * (backend.name != "postgresql") + " ratelimit_history")
    dialect = PostgreSQL() if backend.name == "postgresql" else MySQL()
    statement = dialect.sql(Names(), history_statements.page(dialect))
    values = [repr(value) for value in (*dialect.spot("u250", "daily", NOW - 9 * DAY), NOW - 30 * DAY)]
    for place, value in reversed(list(enumerate(values, 1))):
        statement = statement.replace(f"${place}", value)
    asked = statement % tuple(values) if "%s" in statement else statement
    plan = str(backend.sql(f"EXPLAIN {asked}"))
    assert "sort" not in plan.lower()
    assert "ratelimit_history_pkey" in plan or "PRIMARY" in plan


def test_SQLite_reads_each_page_by_the_primary_key_from_its_place_on() -> None:
    connection = sqlite3.connect(":memory:")
    connection.executescript(schema("sqlite"))
    d = SQLite()
    by_key = "SEARCH ratelimit_history USING PRIMARY KEY"
    wanted = {
        history_statements.page(d): (4, f"{by_key} ((sender,limit_name,expiry)>(?,?,?))"),
        history_statements.WINDOWS: (4, f"{by_key} (sender=? AND limit_name=? AND expiry>? AND expiry<?)"),
    }
    for statement, (arguments, plan) in wanted.items():
        steps = connection.execute(f"EXPLAIN QUERY PLAN {d.sql(Names(), statement)}", [0] * arguments).fetchall()
        assert [step for *_, step in steps] == [plan]
    connection.close()
