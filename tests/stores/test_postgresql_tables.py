"""PostgreSQL's tables: created by one daemon of several, completed, and refused where they cannot be used."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest
import trio

from ratelimitd.errors import StoreError, StoreUnsuitable
from ratelimitd.stores import Names, schema
from ratelimitd.stores.history import Kept
from ratelimitd.stores.postgresql import session as session_module
from ratelimitd.stores.postgresql.access import Access
from ratelimitd.stores.postgresql.session import connect
from ratelimitd.stores.postgresql.store import PostgreSQLStore
from tests.instances.postgresql import PostgreSQL
from tests.instances.sqlclient import SQLError
from tests.stores.backends import delta, flush, postgresql_access, row

pytestmark = pytest.mark.real
_numbers = itertools.count(1)


@pytest.fixture
def fresh(postgresql: PostgreSQL) -> Iterator[str]:
    """A fresh database, and an account of the same name whose own it is."""
    name = f"tables{next(_numbers)}"
    postgresql.add_user(name, "secret", database=name)
    yield name
    postgresql.sql(f"DROP DATABASE {name} WITH (FORCE)")


def over_tcp(server: PostgreSQL, name: str) -> Access:
    return Access((("127.0.0.1", server.port),), name, "secret", name)


async def opened(server: PostgreSQL, database: str, names: Names | None = None) -> PostgreSQLStore:
    store = PostgreSQLStore(postgresql_access(server, database), names, timeout_s=20)
    await store.open()
    return store


async def test_daemons_that_start_at_once_make_one_set_of_tables(postgresql: PostgreSQL, fresh: str) -> None:
    async def start() -> None:
        store = PostgreSQLStore(over_tcp(postgresql, fresh), timeout_s=20)
        await store.open()
        await flush(store, [delta("alice")], node=store.name + str(next(_numbers)))
        assert store.remarks.take() == []
        await store.close()

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(start)
    assert postgresql.sql("SELECT used FROM ratelimit", fresh) == [("5",)]
    indexes = postgresql.sql("SELECT COUNT(*) FROM pg_indexes WHERE tablename LIKE 'ratelimit%'", fresh)
    assert indexes == [("7",)]


@pytest.mark.parametrize("column", ["used", "in_parts", "quota", "until"])
async def test_a_column_that_is_gone_is_created_again(postgresql: PostgreSQL, fresh: str, column: str) -> None:
    store = await opened(postgresql, fresh)
    await flush(store, [delta("alice", 3)])
    await store.close()
    postgresql.sql(f"ALTER TABLE ratelimit DROP COLUMN {column} CASCADE", fresh)
    store = await opened(postgresql, fresh)
    await flush(store, [delta("alice", 2)])
    assert (await row(store, "alice")).used == (2 if column == "used" else 5)
    assert (await row(store, "alice")).quota == 10
    shown = postgresql.sql(f"SELECT {column} IS NULL, expirytime IS NULL FROM view_ratelimit", fresh)
    assert shown == [("t" if column in ("in_parts", "until") else "f", "f")]
    checks = "SELECT COUNT(*) FROM pg_constraint WHERE conrelid = 'ratelimit'::regclass AND contype = 'c'"
    assert postgresql.sql(checks, fresh) == [("2",)]
    await store.close()


async def test_what_follows_changes_is_created_again(postgresql: PostgreSQL, fresh: str) -> None:
    await (await opened(postgresql, fresh)).close()
    postgresql.sql("DROP TRIGGER ratelimit_touched ON ratelimit; DROP INDEX ratelimit_updated_idx", fresh)
    store = await opened(postgresql, fresh)
    await flush(store, [delta("alice", 3)])
    postgresql.sql("UPDATE ratelimit SET updated = '2020-01-01'", fresh)
    cursor = (await store.changes(None, 0)).cursor
    postgresql.sql("UPDATE ratelimit SET quota = 7", fresh)
    assert [found.key for found in (await store.changes(cursor, 0)).rows] == ["alice"]
    assert store.remarks.take() == []
    await store.close()


async def test_a_table_that_was_renamed_is_no_longer_ours(postgresql: PostgreSQL, fresh: str) -> None:
    store = await opened(postgresql, fresh)
    await flush(store, [delta("alice", 3)])
    await store.close()
    postgresql.sql("DROP VIEW view_ratelimit; ALTER TABLE ratelimit RENAME TO old", fresh)
    store = await opened(postgresql, fresh)
    await flush(store, [delta("alice", 1)])
    assert (await row(store, "alice")).used == 1
    assert postgresql.sql("SELECT used FROM old", fresh) == [("3",)]
    await store.close()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("ALTER COLUMN id TYPE INTEGER", "its id is integer, not bigint"),
        ("ALTER COLUMN configured TYPE REAL", "its column configured is real, not bigint"),
        ("ALTER COLUMN sender TYPE CHAR(255)", "its column sender compares otherwise than by bytes"),
        ("DROP CONSTRAINT ratelimit_sender_limit_name_key", "no unique index on \\(sender, limit_name\\)"),
        ("ALTER COLUMN sender TYPE VARCHAR(5)", r"its column sender is character varying\(5\), too short"),
        ("ALTER COLUMN limit_name TYPE VARCHAR(5)", "its column limit_name is .*, too short for 64 characters"),
        ("ALTER COLUMN seen TYPE NUMERIC(6)", r"its column seen is numeric\(6,0\), not bigint"),
        ("ALTER COLUMN seen TYPE NUMERIC(12,4)", "its column seen is numeric"),
        ("ALTER COLUMN configured TYPE VARCHAR(9)", "its column configured is character varying"),
        ("ADD COLUMN panel INT NOT NULL", "its column panel must not be NULL, and has no default"),
        *(
            (f"DROP CONSTRAINT ratelimit_sender_limit_name_key, ADD {index}", "no unique index on")
            for index in ("UNIQUE (sender, limit_name) DEFERRABLE", "UNIQUE (sender, limit_name, quota)")
        ),
        (
            "DROP CONSTRAINT ratelimit_sender_limit_name_key, ADD UNIQUE (sender) INCLUDE (limit_name)",
            "no unique index on",
        ),
        ("ALTER COLUMN id DROP IDENTITY", "its column id must not be NULL, and has no default"),
        ("ALTER COLUMN persist DROP DEFAULT", "its column persist must not be NULL, and has no default"),
        ("ADD UNIQUE (sender)", "leaves no room for a second limit"),
        ("DROP COLUMN sender CASCADE", "it lacks the column sender"),
    ],
)
async def test_a_table_that_cannot_be_used_is_refused_and_says_why(
    postgresql: PostgreSQL, fresh: str, change: str, fault: str
) -> None:
    await (await opened(postgresql, fresh)).close()
    postgresql.sql(f"DROP VIEW view_ratelimit; ALTER TABLE ratelimit {change}", fresh)
    with pytest.raises(StoreUnsuitable, match=f"the table ratelimit cannot be used: .*{fault}"):
        await opened(postgresql, fresh)


@pytest.mark.parametrize(
    "change",
    [
        "ALTER COLUMN sender TYPE TEXT",
        "ALTER COLUMN seen TYPE NUMERIC",
        "ALTER COLUMN seen TYPE NUMERIC(12,2)",
        "ALTER COLUMN configured TYPE VARCHAR(10)",
        "ADD COLUMN panel INT NOT NULL DEFAULT 1",
        "DROP CONSTRAINT ratelimit_sender_limit_name_key, ADD UNIQUE (limit_name, sender)",
        "DROP CONSTRAINT ratelimit_sender_limit_name_key, ADD UNIQUE (sender, limit_name) INCLUDE (quota)",
        "ADD COLUMN panel INT NOT NULL GENERATED BY DEFAULT AS IDENTITY",
        "ADD COLUMN panel INT",
    ],
)
async def test_a_table_with_room_is_used(postgresql: PostgreSQL, fresh: str, change: str) -> None:
    await (await opened(postgresql, fresh)).close()
    postgresql.sql(f"DROP VIEW view_ratelimit; ALTER TABLE ratelimit {change}", fresh)
    store = await opened(postgresql, fresh)
    assert (await flush(store, [delta("a" * 255, quota=4_294_967_295)])).rejected == []
    await store.close()


async def test_a_column_that_a_trigger_fills_needs_no_default(postgresql: PostgreSQL, fresh: str) -> None:
    await (await opened(postgresql, fresh)).close()
    postgresql.sql(
        "ALTER TABLE ratelimit ADD panel INT NOT NULL; CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS "
        "$$BEGIN NEW.panel = 1; RETURN NEW; END$$; "
        "CREATE TRIGGER t BEFORE INSERT ON ratelimit FOR EACH ROW EXECUTE FUNCTION f()",
        fresh,
    )
    store = await opened(postgresql, fresh)
    assert (await flush(store, [delta("alice")])).rejected == []
    await store.close()


@pytest.mark.parametrize("column", ["configured", "quota"])
async def test_a_narrow_number_is_widened_behind_the_view_and_the_trigger(
    postgresql: PostgreSQL, fresh: str, column: str
) -> None:
    await (await opened(postgresql, fresh)).close()
    view, trigger = (
        postgresql.sql(f"SELECT {of}", fresh)[0][0]
        for of in (
            "pg_get_viewdef('view_ratelimit'::regclass)",
            "pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = 'ratelimit_touched'",
        )
    )
    postgresql.sql("DROP VIEW view_ratelimit; DROP TRIGGER ratelimit_touched ON ratelimit", fresh)
    postgresql.sql(f"ALTER TABLE ratelimit ALTER COLUMN {column} TYPE INTEGER", fresh)
    postgresql.sql(f"CREATE VIEW view_ratelimit AS {view}; {trigger}", fresh)
    store = await opened(postgresql, fresh)
    assert (await flush(store, [delta("alice", quota=4_294_967_295)])).rejected == []
    assert (await row(store, "alice")).configured == 4_294_967_295
    await store.close()


async def test_an_account_that_may_not_create_says_so(postgresql: PostgreSQL, fresh: str) -> None:
    user = f"guest_{fresh}"
    postgresql.add_user(user, "secret")
    store = PostgreSQLStore(replace(over_tcp(postgresql, user), database=fresh), timeout_s=20)
    with pytest.raises(StoreUnsuitable, match=r"ratelimit cannot be created: permission denied.*sql/postgresql\.sql"):
        await store.open()


def script() -> str:
    return schema("postgresql").replace("'default'", "'daily'")


async def test_the_script_may_be_run_again_and_creates_what_is_missing(postgresql: PostgreSQL, fresh: str) -> None:
    for _ in range(2):
        postgresql.sql(f"BEGIN; {script()} COMMIT", fresh)
    postgresql.sql("DROP TABLE ratelimit_history; DROP TRIGGER ratelimit_touched ON ratelimit", fresh)
    postgresql.sql(f"BEGIN; {script()} COMMIT", fresh)
    store = await opened(postgresql, fresh, Names(limit="daily"))
    await flush(store, [delta("alice", 3)])
    assert store.remarks.take() == []
    await store.close()


def grants_of_the_script() -> str:
    """What stands at its end for the administrator."""
    return "; ".join(line[3:] for line in script().splitlines() if line.startswith("-- GRANT"))


@pytest.mark.parametrize("lost", ["until", "used"])
async def test_after_an_upgrade_by_hand_there_is_the_view_and_who_could_read_it_can(
    postgresql: PostgreSQL, fresh: str, lost: str
) -> None:
    user = f"hand_{fresh}"
    postgresql.add_user(user, "secret")
    postgresql.sql(script(), fresh)
    postgresql.sql(grants_of_the_script().replace("policyd", user), fresh)
    panel = f"panel_{fresh}"
    postgresql.sql(f"CREATE ROLE {panel}", fresh)
    # A table of an earlier version: without the column, and with all else.
    postgresql.sql(f"DROP VIEW view_ratelimit; ALTER TABLE ratelimit DROP COLUMN {lost} CASCADE", fresh)
    postgresql.sql("CREATE VIEW view_ratelimit AS SELECT *, now() AS expirytime FROM ratelimit", fresh)
    postgresql.sql(f"GRANT SELECT ON view_ratelimit TO {panel}, PUBLIC", fresh)
    store = PostgreSQLStore(replace(over_tcp(postgresql, user), database=fresh), Names(limit="daily"), timeout_s=20)
    with pytest.raises(StoreUnsuitable, match="the table's owner must run: ALTER TABLE") as caught:
        await store.open()
    statements = str(caught.value).partition("must run: ")[2]
    assert "\\n" not in statements
    assert "\n" not in statements
    postgresql.sql(statements, fresh)
    store = PostgreSQLStore(replace(over_tcp(postgresql, user), database=fresh), Names(limit="daily"), timeout_s=20)
    await store.open()
    assert store.remarks.take() == []
    await store.close()
    assert postgresql.sql(f"SET ROLE {panel}; SELECT {lost}, expirytime FROM view_ratelimit", fresh) == []
    granted = "SELECT COUNT(*) FROM information_schema.table_privileges WHERE table_name = 'view_ratelimit'"
    assert postgresql.sql(f"{granted} AND grantee IN ('{panel}', 'PUBLIC')", fresh) == [("2",)]


async def test_a_view_that_is_missing_is_said_with_its_statement(postgresql: PostgreSQL, fresh: str) -> None:
    user = f"viewless_{fresh}"
    postgresql.add_user(user, "secret")
    postgresql.sql(script(), fresh)
    postgresql.sql(grants_of_the_script().replace("policyd", user) + "; DROP VIEW view_ratelimit", fresh)
    for expected in (1, 0):
        store = PostgreSQLStore(replace(over_tcp(postgresql, user), database=fresh), Names(limit="daily"), timeout_s=20)
        await store.open()
        await store.close()
        remarks = store.remarks.take()
        assert len(remarks) == expected
        for remark in remarks:
            assert remark.event.startswith("view_ratelimit is missing")
            postgresql.sql(str(dict(remark.fields)["statement"]), fresh)


async def test_what_an_account_may_not_change_is_said_with_the_statement(postgresql: PostgreSQL, fresh: str) -> None:
    await (await opened(postgresql, fresh)).close()
    user = f"small_{fresh}"
    postgresql.add_user(user, "secret")
    postgresql.sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {user}", fresh)
    access = replace(over_tcp(postgresql, user), database=fresh)
    store = PostgreSQLStore(access, Names(limit="daily"), timeout_s=20)
    await store.open()
    await store.settle_default(change=True)
    (remark,) = store.remarks.take()
    assert "SET DEFAULT 'daily'" in remark.said
    await store.close()
    postgresql.sql("DROP TABLE ratelimit_history", fresh)
    store = PostgreSQLStore(access, timeout_s=20)
    await store.open()  # it is not needed
    await store.close()
    store.configure(20, Kept(30))
    with pytest.raises(StoreUnsuitable, match="ratelimit_history cannot be created"):
        await store.open()
    postgresql.sql(f"DROP OWNED BY {user}", fresh)


async def test_the_file_may_be_run_by_an_administrator_instead(postgresql: PostgreSQL, fresh: str) -> None:
    postgresql.sql(schema("postgresql"), fresh)
    store = await opened(postgresql, fresh)
    await flush(store, [delta("alice", 3)])
    assert store.remarks.take() == []
    await store.close()


async def test_no_number_below_0_is_a_use(postgresql: PostgreSQL, fresh: str) -> None:
    """As MySQL's UNSIGNED."""
    store = await opened(postgresql, fresh)
    await flush(store, [delta("alice", 3)])
    for change in ("used = -1", "expiry = -1", "updated = 'infinity'"):
        with pytest.raises(SQLError, match="violates check constraint"):
            postgresql.sql(f"UPDATE ratelimit SET {change}", fresh)
    postgresql.sql("UPDATE ratelimit SET quota = -1, persist = 1", fresh)
    assert (await row(store, "alice")).quota == 0
    await store.close()


async def test_a_session_may_be_idle_whatever_its_account_is_set_to(postgresql: PostgreSQL, fresh: str) -> None:
    if int(postgresql.sql("SHOW server_version_num")[0][0]) < 140000:
        pytest.skip("this version ends no session that is idle")
    postgresql.sql(f"ALTER ROLE {fresh} SET idle_session_timeout = '5s'")
    access = over_tcp(postgresql, fresh)
    store = PostgreSQLStore(access, timeout_s=20)
    await store.open()
    assert (await flush(store, [delta("alice")])).rejected == []
    await store.close()
    session = await connect(access, access.addresses[0], 20)
    assert await session.run("SHOW idle_session_timeout") == [("0",)]
    session.discard()


async def test_an_account_that_may_only_read_says_so(postgresql: PostgreSQL, fresh: str) -> None:
    postgresql.sql(f"ALTER ROLE {fresh} SET default_transaction_read_only = on")
    store = PostgreSQLStore(over_tcp(postgresql, fresh), timeout_s=20)
    with pytest.raises(StoreError, match="default_transaction_read_only is on for the account"):
        await store.open()


async def test_a_change_of_the_table_that_takes_too_long_is_said_and_not_tried_again(
    postgresql: PostgreSQL, fresh: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await (await opened(postgresql, fresh)).close()
    monkeypatch.setattr(session_module, "STATEMENT_S", 1)
    postgresql.sql(
        "ALTER TABLE ratelimit DROP CONSTRAINT ratelimit_dates; CREATE SEQUENCE tries; "
        "CREATE FUNCTION slow() RETURNS event_trigger LANGUAGE plpgsql AS "
        "$$BEGIN PERFORM nextval('tries'); PERFORM pg_sleep(20); END$$; "
        "CREATE EVENT TRIGGER slow ON ddl_command_start WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION slow()",
        fresh,
    )
    store = PostgreSQLStore(postgresql_access(postgresql, fresh), timeout_s=20)
    for _ in range(2):
        await store.open()
    (remark,) = store.remarks.take()
    assert "ADD CONSTRAINT" in remark.said
    assert "statement timeout" in remark.said
    assert postgresql.sql("SELECT last_value FROM tries", fresh) == [("1",)]
    await flush(store, [delta("alice")])
    await store.close()


async def test_a_lock_in_the_way_of_a_repair_is_no_missing_right(postgresql: PostgreSQL, fresh: str) -> None:
    await (await opened(postgresql, fresh)).close()
    postgresql.sql("DROP INDEX ratelimit_updated_idx", fresh)
    access = postgresql_access(postgresql, fresh)
    holder = await connect(access, access.addresses[0], 20)
    await holder.begin()
    await holder.run("LOCK TABLE ratelimit IN ROW EXCLUSIVE MODE")
    store = PostgreSQLStore(access, timeout_s=20)
    with trio.fail_after(60), pytest.raises(StoreError, match="lock timeout"):
        await store.open()
    await holder.rollback()
    await store.open()
    assert store.remarks.take() == []
    await store.close()
    holder.discard()
