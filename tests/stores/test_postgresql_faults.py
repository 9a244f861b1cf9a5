"""What the PostgreSQL store survives: conflicts, cancelled and lost connections, servers that cannot."""

import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import trio

from ratelimitd.core.rows import Account, Grant
from ratelimitd.errors import OutcomeUnknown, StoreError, StoreUnsuitable
from ratelimitd.stores import Store
from ratelimitd.stores.history import Kept
from ratelimitd.stores.postgresql import session as session_module
from ratelimitd.stores.postgresql.access import Access
from ratelimitd.stores.postgresql.session import PostgreSQLSession, connect
from ratelimitd.stores.postgresql.store import PostgreSQLStore
from ratelimitd.stores.postgresql.wire import Wire
from ratelimitd.stores.shared import session as shared
from ratelimitd.stores.shared.session import Rows
from tests.instances.ports import free_port
from tests.instances.postgresql import PostgreSQL
from tests.instances.waiting import wait_until
from tests.stores.backends import delta, flush, postgresql_access, row
from tests.stores.proxy import Proxy

pytestmark = pytest.mark.real
PATIENT_S = 20.0
_numbers = itertools.count(1)


@pytest.fixture
def fresh(postgresql: PostgreSQL) -> Iterator[str]:
    """A fresh database, and an account of the same name whose own it is."""
    name = f"faults{next(_numbers)}"
    postgresql.add_user(name, "it's secret", database=name)
    yield name
    postgresql.sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def store(postgresql: PostgreSQL, fresh: str) -> AsyncIterator[PostgreSQLStore]:
    made = PostgreSQLStore(postgresql_access(postgresql, fresh), timeout_s=PATIENT_S)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def other(postgresql: PostgreSQL, fresh: str) -> AsyncIterator[PostgreSQLSession]:
    """Somebody else's session on the same database."""
    known = postgresql_access(postgresql, fresh)
    made = await connect(known, known.addresses[0], PATIENT_S)
    yield made
    await made.quit()


def over(port: int, name: str) -> Access:
    return Access((("127.0.0.1", port),), name, "it's secret", name)


def waiting(server: PostgreSQL) -> str:
    """How many sessions wait for a lock."""
    return server.sql("SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")[0][0]


async def waits_for_a_lock(server: PostgreSQL) -> None:
    await trio.to_thread.run_sync(partial(wait_until, lambda: waiting(server) != "0", "a lock wait"))


# -- other transactions -----------------------------------------------------------------------------------------------


async def test_a_deadlock_is_tried_again(
    postgresql: PostgreSQL, store: PostgreSQLStore, other: PostgreSQLSession
) -> None:
    await flush(store, [delta(f"user{n:03}") for n in range(100)])
    await other.begin()
    await other.run("SET LOCAL deadlock_timeout = '60s'")  # the flush notices it, and gives way
    update = "UPDATE ratelimit SET persist = 1 WHERE sender = $1 AND limit_name = 'daily'"
    await other.run(update, ("user060",))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flush, store, [delta("user001"), delta("user060")])
        await waits_for_a_lock(postgresql)
        await other.run(update, ("user001",))
        await other.commit()
    assert [(await row(store, key)).used for key in ("user001", "user060", "user002")] == [2, 2, 1]
    assert postgresql.sql(f"SELECT deadlocks > 0 FROM pg_stat_database WHERE datname = '{store.access.database}'")


async def test_a_row_locked_for_long_fails_the_flush_with_the_servers_words(
    store: PostgreSQLStore, other: PostgreSQLSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    await flush(store, [delta("alice")])
    await store.close()
    monkeypatch.setattr(session_module, "LOCK_WAIT_S", 1)
    monkeypatch.setattr(shared, "ATTEMPTS", 2)
    await other.begin()
    await other.run("SELECT * FROM ratelimit FOR UPDATE")
    with pytest.raises(StoreError, match=r"canceling statement due to lock timeout \(55P03\)"):
        await flush(store, [delta("alice")], segment=2)
    await other.commit()
    await flush(store, [delta("alice")], segment=2)
    assert (await row(store, "alice")).used == 2


async def test_a_flush_that_was_given_up_is_waited_for(
    postgresql: PostgreSQL, store: PostgreSQLStore, other: PostgreSQLSession
) -> None:
    await flush(store, [delta("alice")])
    await other.begin()
    await other.run("SELECT * FROM ratelimit WHERE sender = 'alice' FOR UPDATE")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flush, store, [delta("aaron"), delta("alice")])
        await waits_for_a_lock(postgresql)
        nursery.cancel_scope.cancel()  # the server goes on with it
    await other.commit()
    await flush(store, [delta("aaron"), delta("alice")])
    assert ((await row(store, "aaron")).used, (await row(store, "alice")).used) == (1, 2)


async def test_the_server_ends_a_statement_that_takes_too_long_and_a_transaction_that_is_silent(
    postgresql: PostgreSQL, fresh: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "STATEMENT_S", 1)
    monkeypatch.setattr(session_module, "ABANDONED_S", 1)
    known = postgresql_access(postgresql, fresh)
    session = await connect(known, known.addresses[0], PATIENT_S)
    with pytest.raises(StoreError, match="statement timeout"):
        await session.run("SELECT pg_sleep(60)")
    await session.begin()
    select = "SELECT COUNT(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
    await trio.to_thread.run_sync(partial(wait_until, lambda: postgresql.sql(select) == [("0",)], "the session's end"))
    with pytest.raises(StoreError):
        await session.run("SELECT 1")
    session.discard()


# -- cancelled and lost connections ----------------------------------------------------------------------------------


@pytest.mark.parametrize("during", ["the request", "the answer"])
@pytest.mark.parametrize("statement", range(1, 12))
async def test_a_flush_cancelled_anywhere_leaves_a_store_that_works(
    store: PostgreSQLStore, monkeypatch: pytest.MonkeyPatch, statement: int, during: str
) -> None:
    await flush(store, [delta("alice")], segment=1)
    rows = Wire.rows
    done = itertools.count(1)

    async def run_and_cancel(self: Wire, text: bytes, values: Sequence[bytes | None] | None = None) -> Rows:
        if next(done) == statement:
            if during == "the request":
                nursery.cancel_scope.cancel()
            else:
                nursery.start_soon(cancel)
        return await rows(self, text, values)

    async def cancel() -> None:
        nursery.cancel_scope.cancel()

    monkeypatch.setattr(Wire, "rows", run_and_cancel)
    async with trio.open_nursery() as nursery:
        await flush(store, [delta("alice")], segment=2)
    monkeypatch.undo()
    await flush(store, [delta("alice")], segment=2)
    assert (await row(store, "alice")).used == 2


async def test_ended_connections_are_not_noticed(postgresql: PostgreSQL, store: PostgreSQLStore) -> None:
    await flush(store, [delta("alice")])
    end = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{store.access.database}'"
    for _ in range(3):
        postgresql.sql(end)
        assert (await row(store, "alice")).used == 1
    postgresql.sql(end)
    await flush(store, [delta("alice")])
    assert (await row(store, "alice")).used == 2


async def test_a_lost_commit_is_unknown_and_flushing_again_counts_once(postgresql: PostgreSQL, fresh: str) -> None:
    with Proxy(postgresql.port) as link:
        store = PostgreSQLStore(over(link.port, fresh), timeout_s=PATIENT_S)
        await store.open()
        link.cut(b"COMMIT\0")
        with pytest.raises(StoreError, match="whether COMMIT was done is unknown"):
            await flush(store, [delta("alice", 3)], segment=1)
        assert link.cuts == 1
        assert postgresql.sql("SELECT used FROM ratelimit", fresh) == [("3",)]
        await flush(store, [delta("alice", 3)], segment=1)
        assert (await row(store, "alice")).used == 3
        await store.close()


async def test_an_administrators_change_whose_commit_is_cut_is_neither_done_nor_undone(
    postgresql: PostgreSQL, fresh: str
) -> None:
    with Proxy(postgresql.port) as link:
        store = PostgreSQLStore(over(link.port, fresh), timeout_s=PATIENT_S)
        await store.open()
        await flush(store, [delta("alice", 3)], segment=1)
        for change in (
            partial(store.reset, [Account("daily", "alice")], 1000),
            partial(store.grant, Grant("daily", "alice", 50, 10, True, 2000), 1000),
        ):
            link.cut(b"COMMIT\0")
            with pytest.raises(OutcomeUnknown, match="whether COMMIT was done is unknown"):
                await change()
        assert (await row(store, "alice"))[2:6] == (50, 10, True, 0)
        await store.close()


@pytest.mark.parametrize(
    "statement",
    [b"BEGIN", b"FOR UPDATE", b"SAVEPOINT record\0", b'INSERT INTO "ratelimit"', b'INSERT INTO "ratelimit_node"',
     b"json_build"],
)  # fmt: skip
async def test_a_link_cut_before_commit_is_tried_again(postgresql: PostgreSQL, fresh: str, statement: bytes) -> None:
    with Proxy(postgresql.port) as link:
        store = PostgreSQLStore(over(link.port, fresh), timeout_s=PATIENT_S)
        await store.open()
        await flush(store, [delta("alice")], segment=1)
        link.cut(statement)
        await flush(store, [delta("alice")], segment=2)
        assert link.cuts == 1
        assert (await row(store, "alice")).used == 2
        await store.close()


async def test_a_commit_that_the_server_turns_into_a_rollback_is_none(other: PostgreSQLSession) -> None:
    await other.begin()
    with pytest.raises(StoreError, match="division by zero"):
        await other.run("SELECT 1 / 0")
    with pytest.raises(StoreError, match="rolled back"):
        await other.commit()


# -- servers and accounts as they are set up ---------------------------------------------------------------------------


async def test_the_session_does_as_it_must_whatever_the_server_is_set_to(
    make_postgresql: Callable[..., PostgreSQL],
) -> None:
    server = make_postgresql(
        "default_transaction_isolation=serializable", "default_transaction_deferrable=on", "timezone=Pacific/Auckland",
        "datestyle=SQL, DMY", "synchronous_commit=off", "standard_conforming_strings=off", "client_encoding=LATIN1",
    )  # fmt: skip
    server.add_user("app", "it's secret", database="app")
    server.sql("ALTER ROLE app SET client_encoding = 'LATIN1'; ALTER DATABASE app SET client_encoding = 'SJIS'")
    server.sql("CREATE SCHEMA mail AUTHORIZATION app; ALTER ROLE app SET search_path = mail, public", "app")
    access = over(server.port, "app")
    store = PostgreSQLStore(access, timeout_s=PATIENT_S)
    await store.open()
    logins = ["ünï@x", "\U0001f40c@x", "a\\b@x", "plain@x"]
    assert (await flush(store, map(delta, logins))).rejected == []
    assert [(await row(store, login)).used for login in logins] == [1, 1, 1, 1]
    assert server.sql("SELECT COUNT(*) FROM mail.ratelimit", "app") == [("4",)]
    await store.close()
    session = await connect(access, access.addresses[0], PATIENT_S)
    shown = "default_transaction_isolation", "client_encoding", "TimeZone", "synchronous_commit", "search_path"
    found = await session.run("SELECT " + ", ".join(f"current_setting('{name}')" for name in shown))
    assert found == [("read committed", "UTF8", "UTC", "on", "mail, public")]
    await session.quit()


async def test_a_database_of_another_encoding_is_refused(postgresql: PostgreSQL, fresh: str) -> None:
    postgresql.sql(f"CREATE DATABASE {fresh}_old ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    store = PostgreSQLStore(postgresql_access(postgresql, f"{fresh}_old"), timeout_s=PATIENT_S)
    with pytest.raises(StoreUnsuitable, match="the database's encoding is LATIN1, not UTF8"):
        await store.open()
    postgresql.sql(f"DROP DATABASE {fresh}_old WITH (FORCE)")


async def test_four_rights_are_enough_once_the_tables_are_there(postgresql: PostgreSQL, fresh: str) -> None:
    store: Store = PostgreSQLStore(postgresql_access(postgresql, fresh), timeout_s=PATIENT_S)
    await store.open()
    await store.close()
    user = f"small_{fresh}"
    postgresql.add_user(user, "it's secret")
    postgresql.sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {user}", fresh)
    store = PostgreSQLStore(replace(over(postgresql.port, user), database=fresh), timeout_s=PATIENT_S)
    store.configure(PATIENT_S, Kept(30, {"sliding"}))
    await store.open()
    await flush(store, [delta("alice", 3)])
    await store.grant(Grant("daily", "alice", 50, 10, True, 2000), 1000)
    await store.reset([Account("daily", "alice")], 1000)
    await store.changes((await store.changes(None, 1000)).cursor, 1000)
    await store.forget(set(), 1000)
    await store.restore([], 1000)
    assert (await row(store, "alice")).quota == 50
    assert store.remarks.take() == []
    await store.close()
    postgresql.sql(f"DROP OWNED BY {user}", fresh)


@pytest.mark.parametrize("wrong", ["password", "user", "database"])
async def test_a_wrong_account_needs_somebody_to_change_it(postgresql: PostgreSQL, fresh: str, wrong: str) -> None:
    right = over(postgresql.port, fresh)
    access = {
        "password": replace(right, password="nobody"),
        "user": replace(right, user="nobody"),
        "database": replace(right, database="nobody"),
    }[wrong]
    store = PostgreSQLStore(access, timeout_s=PATIENT_S)
    with pytest.raises(StoreUnsuitable, match=r"authentication failed|does not exist") as caught:
        await store.open()
    assert "it's secret" not in str(caught.value)


# -- several servers ---------------------------------------------------------------------------------------------------


async def test_servers_are_tried_in_turn_and_the_one_that_works_is_kept(postgresql: PostgreSQL, fresh: str) -> None:
    both = (("127.0.0.1", free_port()), ("127.0.0.1", postgresql.port))
    store = PostgreSQLStore(replace(over(0, fresh), addresses=both), timeout_s=PATIENT_S)
    await store.open()
    await flush(store, [delta("alice")])
    assert (await row(store, "alice")).used == 1
    await store.close()


async def test_a_standby_is_left_for_the_primary_and_obeyed_once_it_is_one(
    make_postgresql: Callable[..., PostgreSQL],
) -> None:
    primary = make_postgresql("synchronous_standby_names=*")
    primary.sql("ALTER SYSTEM SET synchronous_commit = 'local'; SELECT pg_reload_conf()")
    primary.add_user("app", "it's secret", database="app")
    standby = make_postgresql(of=primary)
    both = (("127.0.0.1", standby.port), ("127.0.0.1", primary.port))
    store = PostgreSQLStore(replace(over(0, "app"), addresses=both), timeout_s=PATIENT_S)
    await store.open()
    await flush(store, [delta("alice")], segment=1)
    assert primary.sql("SELECT used FROM ratelimit", "app") == [("1",)]
    [(written,)] = primary.sql("SELECT pg_current_wal_lsn()")
    caught_up = partial(standby.sql, f"SELECT pg_last_wal_replay_lsn() >= '{written}'")
    await trio.to_thread.run_sync(partial(wait_until, lambda: caught_up() == [("t",)], "the standby"))
    assert standby.sql("SELECT used FROM ratelimit", "app") == [("1",)]
    primary.kill()
    with pytest.raises(StoreError, match="read-only"):
        await flush(store, [delta("alice")], segment=2)
    standby.promote()
    read_only = "SHOW transaction_read_only"
    await trio.to_thread.run_sync(partial(wait_until, lambda: standby.sql(read_only) == [("off",)], "the promotion"))
    await flush(store, [delta("alice")], segment=2)
    assert (await row(store, "alice")).used == 2
    await store.close()


async def test_a_server_that_went_read_only_fails_the_flush_and_is_used_again(
    postgresql: PostgreSQL, fresh: str, store: PostgreSQLStore
) -> None:
    await flush(store, [delta("alice")], segment=1)
    postgresql.sql(f"ALTER DATABASE {fresh} SET default_transaction_read_only = on")
    await store.close()
    with pytest.raises(StoreError, match="read-only"):
        await flush(store, [delta("alice")], segment=2)
    postgresql.sql(f"ALTER DATABASE {fresh} RESET default_transaction_read_only")
    await flush(store, [delta("alice")], segment=2)
    assert (await row(store, "alice")).used == 2


async def test_no_server_there_is_an_error_that_names_all(folder: Path) -> None:
    port = free_port()
    known = Access((("127.0.0.1", port), (f"{folder}/.s.PGSQL.5432", 0)), "root", "", "mail")
    store = PostgreSQLStore(known, timeout_s=PATIENT_S)
    with pytest.raises(StoreError, match=rf"127.0.0.1:{port}: .*refused.*; {folder}/.s.PGSQL.5432: .*No such file"):
        await store.open()


async def test_a_server_that_does_not_answer_is_left_in_time(postgresql: PostgreSQL, fresh: str) -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    both = (("127.0.0.1", listener.socket.getsockname()[1]), ("127.0.0.1", postgresql.port))
    store = PostgreSQLStore(replace(over(0, fresh), addresses=both), timeout_s=1)
    with trio.fail_after(PATIENT_S):
        await store.open()
    await store.close()
    await listener.aclose()


@pytest.mark.parametrize("rubbish", [b"HTTP/1.1 400 Bad Request\r\n\r\n" * 50, b"R\0\0\0\x08\0\0\0\0H\0\0\0\x07\0\0\0"])
async def test_a_server_that_sends_rubbish_is_an_error_of_the_store(rubbish: bytes) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some(1000)
        await stream.send_all(rubbish)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        store = PostgreSQLStore(over(listeners[0].socket.getsockname()[1], "me"), timeout_s=2)
        with pytest.raises(StoreError):
            await store.open()
        nursery.cancel_scope.cancel()
