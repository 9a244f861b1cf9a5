"""A trigger or a constraint that refuses one account: whatever it says, the other accounts are stored."""

import pytest

from ratelimitd.core.rows import NO_SEGMENT, Account, Grant, Known
from ratelimitd.errors import NotStored, RecordRefused, StoreError, StoreReplaced, StoreUnsuitable, TableRefuses
from ratelimitd.stores import Store
from ratelimitd.stores.doubts import MANY, NOBODY
from ratelimitd.stores.history import Kept
from tests.stores.backends import Backend, delta, flush, row

NAMES = [f"a{number}" for number in range(20)] + ["bob"] + [f"c{number}" for number in range(20)]
_POSTGRESQL = {
    "another SQLSTATE": "RAISE EXCEPTION 'no bob' USING ERRCODE = '45000'",
    "letters": "RAISE EXCEPTION 'no bob' USING ERRCODE = 'MAIL1'",
    "no data": "PERFORM 1; RAISE no_data_found",
    "a missing table": "INSERT INTO audit VALUES (NEW.sender)",
    "a missing column": "NEW.nothing = 1",
    "a missing right": "RAISE insufficient_privilege",
    "a missing function": "PERFORM nothing()",
}
_MYSQL = {
    "another SQLSTATE": "SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 30001, MESSAGE_TEXT = 'no bob'",
    "letters": "SIGNAL SQLSTATE 'MAIL1' SET MYSQL_ERRNO = 30002",
    "no data": "SIGNAL SQLSTATE '02TRG'",
    "a missing table": "INSERT INTO audit VALUES (NEW.sender)",
    "a missing right": "SIGNAL SQLSTATE '42000' SET MYSQL_ERRNO = 1142",
    "a missing function": "CALL nothing()",
}
_SQLITE = {
    "another SQLSTATE": "SELECT RAISE(FAIL, 'no bob')",
    "a missing function": "SELECT json('no JSON')",
    "a missing right": "SELECT abs(-9223372036854775807 - 1)",
    "rolling all back": "SELECT RAISE(ROLLBACK, 'no bob')",
}


def refuse(
    backend: Backend,
    case: str,
    only: str = "bob",
    table: str = "ratelimit",
    column: str = "sender",
    *,
    after: str = "",
    when: str = "",
) -> None:
    """A trigger before each change of the rows that `only` is LIKE, or with "" of each row; or
    `after` (or `when`) one kind of change."""
    body = {"sqlite": _SQLITE, "postgresql": _POSTGRESQL}.get(backend.name, _MYSQL).get(case)
    if case == "leave out":
        body = LEAVE_OUT[backend.name]
    elif case.startswith("RAISE"):
        body = case
    if body is None:
        pytest.skip("this database has no such error")
    of = "OLD" if after == "DELETE" else "NEW"
    condition = f"{of}.{column} LIKE '{only}'" if only else "1 = 1"
    when = when or ("AFTER" if after else "BEFORE")
    if backend.name == "postgresql":
        backend.sql(
            f"CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN IF {condition} THEN {body}; END IF; "
            f"RETURN {of}; END$$; CREATE TRIGGER t {when} {after or 'INSERT OR UPDATE'} "
            f"ON {table} FOR EACH ROW EXECUTE FUNCTION f()"
        )
        return
    for event in [after] if after else ["INSERT", "UPDATE"]:
        if backend.name == "sqlite":
            backend.sql(f"CREATE TRIGGER t{event} {when} {event} ON {table} WHEN {condition} BEGIN {body}; END")
        else:
            backend.sql(
                f"DELIMITER //\nCREATE TRIGGER t{event} {when} {event} ON {table} FOR EACH ROW "
                f"BEGIN IF {condition} THEN {body}; END IF; END//"
            )


LEAVE_OUT = {
    "postgresql": "RETURN NULL",
    "sqlite": "SELECT RAISE(IGNORE)",
    "mariadb": "SIGNAL SQLSTATE '02TRG'",  # since 11.8
}


def need_to_leave_out(backend: Backend) -> None:
    """Skip the test where the database lets no trigger leave a row out."""
    if backend.name == "mariadb":
        ((version,),) = backend.sql("SELECT VERSION()")
        if tuple(map(int, version.split(".")[:2])) >= (11, 8):
            return
    elif backend.name in LEAVE_OUT:
        return
    pytest.skip("its triggers cannot")


CASES = [*_POSTGRESQL, "rolling all back"]


@pytest.mark.parametrize("case", CASES)
async def test_what_a_trigger_says_of_one_account_is_that_record_s_fault(
    backend: Backend, store: Store, case: str
) -> None:
    await flush(store, [delta("a1")])
    refuse(backend, case)
    flushed = await flush(store, [delta(name) for name in NAMES])
    assert [refused.key for refused, _ in flushed.rejected] == ["bob"]
    assert (await row(store, "a1")).used == 2
    assert (await row(store, "c19")).used == 1


@pytest.mark.parametrize(
    "case", ["a missing table", "a missing function", "a missing column", "another SQLSTATE", "rolling all back"]
)
async def test_nothing_is_set_aside_where_every_record_fails_for_want_of_something(
    backend: Backend, store: Store, case: str
) -> None:
    """Once somebody has repaired it, all is stored."""
    refuse(backend, case, only="")
    with pytest.raises(NotStored):
        await flush(store, [delta(name) for name in NAMES])
    for name in ("t",) if backend.name == "postgresql" else ("tINSERT", "tUPDATE"):
        backend.sql(f"DROP TRIGGER {name}{' ON ratelimit' if backend.name == 'postgresql' else ''}")
    assert (await flush(store, [delta(name) for name in NAMES])).rejected == []


@pytest.mark.parametrize("case", ["a missing table", "a missing function", "another SQLSTATE"])
async def test_a_lone_account_that_is_refused_is_set_aside_where_the_table_takes_others(
    backend: Backend, store: Store, case: str
) -> None:
    refuse(backend, case)
    for _ in range(2):  # the table has no account, and then one
        flushed = await flush(store, [delta("bob", 3)])
        assert [refused.key for refused, _ in flushed.rejected] == ["bob"]
        await flush(store, [delta("a1")])
    assert [found.key for found in await store.lookup([Account("daily", name) for name in ("a1", NOBODY)], 0)] == ["a1"]


async def test_more_refused_accounts_than_are_tried_do_not_stop_the_others(backend: Backend, store: Store) -> None:
    refuse(backend, "another SQLSTATE", only="b%")
    names = [f"b{number:03}" for number in range(MANY + 20)]
    flushed = await flush(store, [delta(name) for name in [*names, "c1"]])
    assert [refused.key for refused, _ in flushed.rejected] == names
    assert (await row(store, "c1")).used == 1


@pytest.mark.real
async def test_a_column_that_nobody_fills_is_no_record_s_fault(backend: Backend, store: Store) -> None:
    if backend.name == "sqlite":
        pytest.skip("it adds no such column")
    await flush(store, [delta("a1")])
    backend.sql("ALTER TABLE ratelimit ADD tenant BIGINT NOT NULL DEFAULT 1")
    backend.sql("ALTER TABLE ratelimit ALTER tenant DROP DEFAULT")
    with pytest.raises(TableRefuses, match="tenant") as caught:
        await flush(store, [delta(name) for name in NAMES], segment=2)
    assert isinstance(caught.value, StoreUnsuitable)  # the log says that somebody has to change something
    backend.sql("ALTER TABLE ratelimit DROP COLUMN tenant")
    await flush(store, [delta(name) for name in NAMES], segment=2)
    assert (await row(store, "a1")).used == 2


async def test_what_memory_knows_waits_for_a_table_that_takes_no_record(backend: Backend, store: Store) -> None:
    known = [Known(delta(name, 7), False) for name in NAMES]
    refuse(backend, "another SQLSTATE", only="")
    with pytest.raises(TableRefuses):
        await store.restore(known, 1000)
    for name in ("t",) if backend.name == "postgresql" else ("tINSERT", "tUPDATE"):
        backend.sql(f"DROP TRIGGER {name}{' ON ratelimit' if backend.name == 'postgresql' else ''}")
    await store.restore(known, 1000)
    assert (await row(store, "c19")).used == 7
    assert store.remarks.take() == []


@pytest.mark.parametrize("case", ["a missing table", "another SQLSTATE", "rolling all back"])
@pytest.mark.parametrize("only", ["bob", ""])
async def test_the_history_is_written_without_a_row_that_is_refused_and_not_at_all_without_all(
    backend: Backend, store: Store, case: str, only: str
) -> None:
    store.configure(10, Kept(30))
    refuse(backend, case, only, "ratelimit_history")
    if not only:
        with pytest.raises(NotStored):
            await flush(store, [delta(name) for name in NAMES])
        assert store.remarks.take() == []
        return
    for refused in range(2):
        assert (await flush(store, [delta(name) for name in (NAMES, ["bob"])[refused]])).rejected == []
    assert len(backend.sql("SELECT sender FROM ratelimit_history")) == len(NAMES) - 1
    (remark,) = store.remarks.take()
    assert "key bob" in remark.said
    assert (await row(store, "bob")).used == 2


@pytest.mark.parametrize("case", ["a missing table", "another SQLSTATE", "rolling all back"])
async def test_a_change_that_is_refused_is_no_database_that_is_unavailable(
    backend: Backend, store: Store, case: str
) -> None:
    await flush(store, [delta("bob")])
    refuse(backend, case)
    with pytest.raises(RecordRefused):
        await store.grant(Grant("daily", "bob", 50, 10, True, 2000), 1000)
    with pytest.raises(RecordRefused):
        await store.reset([Account("daily", "bob")], 1000)
    assert (await row(store, "bob"))[2:6] == (10, 10, False, 1)


async def test_a_row_that_a_trigger_leaves_out_is_refused(backend: Backend, store: Store) -> None:
    need_to_leave_out(backend)
    store.configure(10, Kept(30))
    refuse(backend, "leave out")
    flushed = await flush(store, [delta(name) for name in NAMES])
    assert [(refused.key, reason[:9]) for refused, reason in flushed.rejected] == [("bob", "a trigger")]
    with pytest.raises(RecordRefused, match="leaves the row out"):
        await store.grant(Grant("daily", "bob", 50, 10, True, 2000), 1000)


@pytest.mark.parametrize(("table", "column"), [("ratelimit_node", "node"), ("ratelimit_history", "sender")])
async def test_nothing_is_stored_where_a_trigger_leaves_out_all_that_is_recorded(
    backend: Backend, store: Store, table: str, column: str
) -> None:
    need_to_leave_out(backend)
    store.configure(10, Kept(30))
    refuse(backend, "leave out", "", table, column)
    with pytest.raises(NotStored, match="leaves the row out"):
        await flush(store, [delta(name) for name in NAMES])
    assert backend.sql("SELECT sender FROM ratelimit") == []


@pytest.mark.real
@pytest.mark.parametrize("state", ["40001", "08006", "57P01"])
async def test_what_a_trigger_raises_is_no_conflict_and_no_lost_server(
    backend: Backend, store: Store, state: str
) -> None:
    if backend.name != "postgresql":
        pytest.skip("it does not say who raises an error")
    refuse(backend, f"RAISE EXCEPTION 'no bob' USING ERRCODE = '{state}'")
    flushed = await flush(store, [delta(name) for name in NAMES])
    assert [refused.key for refused, _ in flushed.rejected] == ["bob"]


@pytest.mark.parametrize("table", ["ratelimit", "ratelimit_node"])
async def test_a_table_of_ours_that_is_gone_is_a_database_that_was_replaced(
    backend: Backend, store: Store, table: str
) -> None:
    await flush(store, [delta("a1")])
    backend.sql(f"DROP TABLE {table} {'CASCADE' if backend.name == 'postgresql' else ''}")
    with pytest.raises(StoreReplaced):
        await flush(store, [delta(name) for name in NAMES], segment=NO_SEGMENT - 1)


@pytest.mark.real
async def test_a_statement_that_misses_what_is_not_ours_is_no_replaced_database(backend: Backend, store: Store) -> None:
    if backend.name == "sqlite":
        pytest.skip("it looks at its own tables alone")
    table = "ratelimit_node"
    if backend.name == "postgresql":
        backend.sql(
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS "
            "$$BEGIN INSERT INTO audit VALUES (NEW.node); RETURN NEW; END$$; "
            f"CREATE TRIGGER t BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION f()"
        )
    else:
        backend.sql(f"CREATE TRIGGER t BEFORE INSERT ON {table} FOR EACH ROW INSERT INTO audit VALUES (NEW.node)")
    with pytest.raises(StoreError, match="audit") as caught:
        await flush(store, [delta("a1")])
    assert not isinstance(caught.value, StoreReplaced)


@pytest.mark.real
async def test_a_constraint_that_is_looked_at_last_refuses_one_record(backend: Backend, store: Store) -> None:
    if backend.name != "postgresql":
        pytest.skip("it has no such constraints")
    backend.sql('CREATE TABLE people (a TEXT COLLATE "C" PRIMARY KEY)')
    backend.sql("INSERT INTO people SELECT 'a' || n FROM generate_series(0, 19) AS n")
    backend.sql("INSERT INTO people SELECT 'c' || n FROM generate_series(0, 19) AS n")
    backend.sql("ALTER TABLE ratelimit ADD FOREIGN KEY (sender) REFERENCES people DEFERRABLE INITIALLY DEFERRED")
    flushed = await flush(store, [delta(name) for name in NAMES])
    assert [refused.key for refused, _ in flushed.rejected] == ["bob"]
    assert (await row(store, "c19")).used == 1
    flushed = await flush(store, [delta("bob", limit="hourly")])  # it would take no account that it has not
    assert [refused.key for refused, _ in flushed.rejected] == ["bob"]
