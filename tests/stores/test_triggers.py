"""A trigger or a constraint that refuses one account: whatever it says, the other accounts are stored."""

import pytest

from ratelimitd.core.rows import NO_SEGMENT
from ratelimitd.errors import NotStored, StoreError, StoreReplaced
from ratelimitd.stores import Store
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
}


def refuse(backend: Backend, case: str, only: str = "bob") -> None:
    """A trigger before each change of `only`'s row, or with "" of each row."""
    body = {"sqlite": _SQLITE, "postgresql": _POSTGRESQL}.get(backend.name, _MYSQL).get(case)
    if body is None:
        pytest.skip("this database has no such error")
    if backend.name == "postgresql":
        condition = f"NEW.sender = '{only}'" if only else "TRUE"
        backend.sql(
            f"CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN IF {condition} THEN {body}; END IF; "
            "RETURN NEW; END$$; CREATE TRIGGER t BEFORE INSERT OR UPDATE ON ratelimit FOR EACH ROW EXECUTE FUNCTION f()"
        )
        return
    for event in ("INSERT", "UPDATE"):
        if backend.name == "sqlite":
            when = f"WHEN NEW.sender = '{only}'" if only else ""
            backend.sql(f"CREATE TRIGGER t{event} BEFORE {event} ON ratelimit {when} BEGIN {body}; END")
        else:
            condition = f"NEW.sender = '{only}'" if only else "TRUE"
            backend.sql(
                f"DELIMITER //\nCREATE TRIGGER t{event} BEFORE {event} ON ratelimit FOR EACH ROW "
                f"BEGIN IF {condition} THEN {body}; END IF; END//"
            )


CASES = list(_POSTGRESQL)


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


@pytest.mark.parametrize("case", ["a missing table", "a missing function", "a missing column"])
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
