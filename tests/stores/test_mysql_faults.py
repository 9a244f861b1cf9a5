"""What the MySQL store survives: conflicts, cancelled and lost connections, servers that cannot."""

import itertools
import socket
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import trio

from ratelimitd.core.rows import Account, Grant
from ratelimitd.errors import OutcomeUnknown, StoreError, StoreUnsuitable
from ratelimitd.stores.history import Kept
from ratelimitd.stores.mysql import session as session_module
from ratelimitd.stores.mysql import wire
from ratelimitd.stores.mysql.access import Access
from ratelimitd.stores.mysql.session import MySQLSession, connect
from ratelimitd.stores.mysql.store import MySQLStore
from ratelimitd.stores.shared import session as shared
from ratelimitd.stores.shared.session import Rows
from tests.fuzz import mysql_server
from tests.instances.mariadb import MariaDB
from tests.instances.ports import free_port
from tests.instances.waiting import wait_until
from tests.stores.backends import delta, flush, row
from tests.stores.proxy import Proxy

pytestmark = pytest.mark.real
PATIENT_S = 20.0
NOBODY = "NULL"


def at(server: MariaDB, database: str) -> Access:
    return Access(((str(server.socket), 0),), "root", b"", database)


@pytest.fixture
async def store(mariadb: MariaDB, database: str) -> AsyncIterator[MySQLStore]:
    made = MySQLStore(at(mariadb, database), timeout_s=PATIENT_S)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def other(mariadb: MariaDB, database: str) -> AsyncIterator[MySQLSession]:
    """Somebody else's session on the same database."""
    known = at(mariadb, database)
    made = await connect(known, known.addresses[0], PATIENT_S)
    yield made
    await made.quit()


async def waits_for_a_lock(mariadb: MariaDB, but: str = NOBODY) -> str:
    """Until some transaction, other than `but`, waits for another; its id."""
    found = [but]

    def waits() -> bool:
        found[0] = waiting(mariadb)
        return found[0] not in (but, NOBODY)

    # InnoDB shows the same again to whoever asks twice within 0.1 s (storage/innobase/trx/trx0i_s.cc).
    await trio.to_thread.run_sync(partial(wait_until, waits, "a lock wait", poll=0.15))
    return found[0]


def waiting(mariadb: MariaDB) -> str:
    """The latest transaction that waits for another."""
    return mariadb.sql("SELECT MAX(trx_id) FROM information_schema.INNODB_TRX WHERE trx_state = 'LOCK WAIT'")[0][0]


# -- other transactions -----------------------------------------------------------------------------------------------


async def test_a_deadlock_is_tried_again(mariadb: MariaDB, store: MySQLStore, other: MySQLSession) -> None:
    await flush(store, [delta(f"user{n:03}") for n in range(100)])
    await other.run("START TRANSACTION")
    update = "UPDATE ratelimit SET persist = 1 WHERE sender = %s AND limit_name = 'daily'"
    for n in range(50, 100):  # it has done more: it wins
        await other.run(update, (f"user{n:03}",))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flush, store, [delta("user001"), delta("user060")])
        await waits_for_a_lock(mariadb)
        await other.run(update, ("user001",))
        await other.run("COMMIT")
    assert [(await row(store, key)).used for key in ("user001", "user060", "user002")] == [2, 2, 1]
    status = mariadb.sql("SHOW ENGINE INNODB STATUS")
    assert "LATEST DETECTED DEADLOCK" in str(status)


async def test_a_lock_wait_is_tried_again(
    mariadb: MariaDB, store: MySQLStore, other: MySQLSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    await flush(store, [delta("alice")])
    await store.close()
    monkeypatch.setattr(session_module, "LOCK_WAIT_S", 1)
    monkeypatch.setattr(shared, "ATTEMPTS", 100)
    wait_until(lambda: waiting(mariadb) == NOBODY, "the end of other tests' transactions", poll=0.15)
    await other.run("START TRANSACTION")
    await other.run("SELECT * FROM ratelimit FOR UPDATE")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flush, store, [delta("alice")])
        first = await waits_for_a_lock(mariadb)
        await waits_for_a_lock(mariadb, but=first)
        await other.run("COMMIT")
    assert (await row(store, "alice")).used == 2


async def test_a_lock_in_the_way_of_a_repair_is_no_missing_right(
    mariadb: MariaDB, store: MySQLStore, other: MySQLSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    await flush(store, [delta("alice")])
    await store.close()
    await other.run("ALTER TABLE ratelimit DROP seen")
    monkeypatch.setattr(session_module, "LOCK_WAIT_S", 1)
    monkeypatch.setattr(shared, "ATTEMPTS", 1)
    await other.run("START TRANSACTION")
    await other.run("SELECT * FROM ratelimit")
    with pytest.raises(StoreError, match="Lock wait timeout") as caught:
        await store.open()
    assert not isinstance(caught.value, StoreUnsuitable)
    await other.run("COMMIT")
    await store.open()
    assert store.remarks.take() == []


async def test_a_row_locked_for_long_fails_the_flush_with_the_servers_words(
    store: MySQLStore, other: MySQLSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    await flush(store, [delta("alice")])
    await store.close()
    monkeypatch.setattr(session_module, "LOCK_WAIT_S", 1)
    monkeypatch.setattr(shared, "ATTEMPTS", 2)
    await other.run("START TRANSACTION")
    await other.run("SELECT * FROM ratelimit FOR UPDATE")
    with pytest.raises(StoreError, match=r"Lock wait timeout exceeded.*\(1205\)"):
        await flush(store, [delta("alice")], segment=2)
    await other.run("COMMIT")
    await flush(store, [delta("alice")], segment=2)
    assert (await row(store, "alice")).used == 2


async def test_a_flush_that_was_given_up_is_waited_for(
    mariadb: MariaDB, store: MySQLStore, other: MySQLSession
) -> None:
    await flush(store, [delta("alice")])
    await other.run("START TRANSACTION")
    await other.run("SELECT * FROM ratelimit WHERE sender = 'alice' FOR UPDATE")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flush, store, [delta("aaron"), delta("alice")])
        await waits_for_a_lock(mariadb)
        nursery.cancel_scope.cancel()  # the server goes on with it
    await other.run("COMMIT")
    await flush(store, [delta("aaron"), delta("alice")])
    assert ((await row(store, "aaron")).used, (await row(store, "alice")).used) == (1, 2)


# -- cancelled and lost connections ----------------------------------------------------------------------------------


@pytest.mark.parametrize("during", ["the request", "the answer"])
@pytest.mark.parametrize("statement", range(1, 9))
async def test_a_flush_cancelled_anywhere_leaves_a_store_that_works(
    store: MySQLStore, monkeypatch: pytest.MonkeyPatch, statement: int, during: str
) -> None:
    await flush(store, [delta("alice")], segment=1)
    run = MySQLSession.run
    done = itertools.count(1)

    async def run_and_cancel(self: MySQLSession, text: str, arguments: Sequence[object] = ()) -> Rows:
        if next(done) == statement:
            if during == "the request":
                nursery.cancel_scope.cancel()
            else:
                nursery.start_soon(cancel)
        return await run(self, text, arguments)

    async def cancel() -> None:
        nursery.cancel_scope.cancel()

    monkeypatch.setattr(MySQLSession, "run", run_and_cancel)
    async with trio.open_nursery() as nursery:
        await flush(store, [delta("alice")], segment=2)
    monkeypatch.undo()
    await flush(store, [delta("alice")], segment=2)
    assert (await row(store, "alice")).used == 2


async def test_killed_connections_are_not_noticed(mariadb: MariaDB, store: MySQLStore) -> None:
    await flush(store, [delta("alice")])
    for _ in range(3):
        ids = mariadb.sql("SELECT ID FROM information_schema.PROCESSLIST WHERE DB IS NOT NULL")
        for (number,) in ids:
            mariadb.sql(f"KILL {number}")
        assert (await row(store, "alice")).used == 1
    await flush(store, [delta("alice")])
    assert (await row(store, "alice")).used == 2


async def test_a_lost_commit_is_unknown_and_flushing_again_counts_once(mariadb: MariaDB, database: str) -> None:
    mariadb.add_user(f"app_{database}", "secret")
    with Proxy(mariadb.port) as link:
        known = Access((("127.0.0.1", link.port),), f"app_{database}", b"secret", database)
        store = MySQLStore(known, timeout_s=PATIENT_S)
        await store.open()
        link.cut(b"COMMIT")
        with pytest.raises(StoreError, match="whether COMMIT was done is unknown"):
            await flush(store, [delta("alice", 3)], segment=1)
        assert link.cuts == 1
        assert mariadb.sql("SELECT used FROM ratelimit", database) == [("3",)]
        await flush(store, [delta("alice", 3)], segment=1)
        assert (await row(store, "alice")).used == 3
        await store.close()


async def test_an_administrators_change_whose_commit_is_cut_is_neither_done_nor_undone(
    mariadb: MariaDB, database: str
) -> None:
    mariadb.add_user(f"app_{database}", "secret")
    with Proxy(mariadb.port) as link:
        store = MySQLStore(
            Access((("127.0.0.1", link.port),), f"app_{database}", b"secret", database), timeout_s=PATIENT_S
        )
        await store.open()
        await flush(store, [delta("alice", 3)], segment=1)
        link.cut(b"COMMIT")
        with pytest.raises(OutcomeUnknown, match="whether COMMIT was done is unknown"):
            await store.reset([Account("daily", "alice")], 0)
        link.cut(b"COMMIT")
        with pytest.raises(OutcomeUnknown, match="whether COMMIT was done is unknown"):
            await store.grant(Grant("daily", "alice", 50, 10, True, 2000), 1000)
        assert (await row(store, "alice"))[2:6] == (50, 10, True, 0)
        await store.close()


@pytest.mark.parametrize(
    "statement", [b"START", b"FOR UPDATE", b"INSERT INTO", b"INSERT INTO `ratelimit_node`", b"SELECT `limit"]
)
async def test_a_link_cut_before_commit_is_tried_again(mariadb: MariaDB, database: str, statement: bytes) -> None:
    mariadb.add_user(f"app_{database}", "secret")
    with Proxy(mariadb.port) as link:
        known = Access((("127.0.0.1", link.port),), f"app_{database}", b"secret", database)
        store = MySQLStore(known, timeout_s=PATIENT_S)
        await store.open()
        await flush(store, [delta("alice")], segment=1)
        link.cut(statement)
        await flush(store, [delta("alice")], segment=2)
        assert link.cuts == 1
        assert (await row(store, "alice")).used == 2
        await store.close()


async def test_a_server_that_sends_rubbish_is_an_error_of_the_store() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 50)
        await stream.receive_some(100)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        store = MySQLStore(Access((("127.0.0.1", port),), "me", b"", "mail"), timeout_s=PATIENT_S)
        with pytest.raises(StoreError, match=f"127.0.0.1:{port}: "):
            await store.open()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("endless", [b"\x05\0\0\x05\x04alic", b"\x01\0\0\0\x0a"])
async def test_a_server_that_sends_without_an_end_is_left(endless: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_ANSWER_BYTES", 1 << 17)
    sent = 0

    async def serve(stream: trio.SocketStream) -> None:
        nonlocal sent
        with suppress(trio.BrokenResourceError):
            await stream.send_all(mysql_server.packet(0, mysql_server.GREETING))
            await stream.receive_some(4096)
            await stream.send_all(mysql_server.packet(2, mysql_server.OK))
            await stream.receive_some(4096)
            await stream.send_all(mysql_server.rows((b"x",))[: -len(mysql_server.END) - 4])
            for number in itertools.count(5):
                sent += len(endless)
                await stream.send_all((endless[:3] + bytes([number & 255]) + endless[4:]) * 1)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        address = ("127.0.0.1", listeners[0].socket.getsockname()[1])
        with trio.fail_after(PATIENT_S), pytest.raises(StoreError):
            await connect(Access((address,), "me", b"", "mail"), address, PATIENT_S)
        nursery.cancel_scope.cancel()
    assert sent < 16 << 20


@pytest.mark.parametrize("plugin", [b"mysql_clear_password", b"dialog", b"sha256_password", b"mysql_old_password"])
async def test_a_server_that_asks_for_the_password_itself_does_not_get_it(plugin: bytes) -> None:
    received = bytearray()
    greeting = b"\x0a5.7.0\0" + struct.pack("<I", 1) + b"12345678\0" + struct.pack("<HBHHB", 0xA201, 45, 2, 0x0008, 21)
    greeting += bytes(10) + b"123456789012\0mysql_native_password\0"

    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all(struct.pack("<I", len(greeting)) + greeting)
        received.extend(await stream.receive_some(4096))
        switch = b"\xfe" + plugin + b"\0" + b"12345678901234567890\0"
        await stream.send_all(struct.pack("<I", len(switch) | 2 << 24) + switch)
        while data := await stream.receive_some(4096):
            received.extend(data)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        address = ("127.0.0.1", listeners[0].socket.getsockname()[1])
        with pytest.raises(StoreUnsuitable, match=f"logs in by {plugin.decode()}"):
            await connect(Access((address,), "me", b"my secret", "mail"), address, PATIENT_S)
        nursery.cancel_scope.cancel()
    assert b"my secret" not in received


@pytest.mark.parametrize("charset", ["latin1", "utf8mb3"])
async def test_a_server_that_ignores_the_clients_character_set_stores_every_login(
    make_mariadb: Callable[..., MariaDB], charset: str
) -> None:
    server = make_mariadb("--skip-character-set-client-handshake", f"--character-set-server={charset}")
    server.sql("CREATE DATABASE mail CHARACTER SET utf8mb4")
    store = MySQLStore(at(server, "mail"), timeout_s=PATIENT_S)
    await store.open()
    logins = ["ünï@x", "\U0001f40c@x", "plain@x"]
    assert (await flush(store, map(delta, logins))).rejected == []
    hexadecimal = {login.encode().hex().upper() for login in logins}
    assert {sender for (sender,) in server.sql("SELECT HEX(sender) FROM ratelimit", "mail")} == hexadecimal
    assert [(await row(store, login)).used for login in logins] == [1, 1, 1]
    await store.close()


# -- several servers ---------------------------------------------------------------------------------------------------


async def test_servers_are_tried_in_turn_and_the_one_that_works_is_kept(mariadb: MariaDB, database: str) -> None:
    dead = ("127.0.0.1", free_port())
    store = MySQLStore(Access((dead, *at(mariadb, database).addresses), "root", b"", database), timeout_s=PATIENT_S)
    await store.open()
    await flush(store, [delta("alice")])
    assert (await row(store, "alice")).used == 1
    await store.close()


async def test_a_server_that_went_read_only_is_left_for_the_next(make_mariadb: Callable[..., MariaDB]) -> None:
    first, second = make_mariadb(), make_mariadb()
    for server in (first, second):
        server.sql("CREATE DATABASE mail")
        server.add_user("app", "secret", grant="SELECT, INSERT, UPDATE, CREATE, CREATE VIEW ON mail.*")
        one = MySQLStore(Access((("127.0.0.1", server.port),), "app", b"secret", "mail"), timeout_s=PATIENT_S)
        await one.open()
        await one.close()
    both = (("127.0.0.1", first.port), ("127.0.0.1", second.port))
    store = MySQLStore(Access(both, "app", b"secret", "mail"), timeout_s=PATIENT_S)
    await store.open()
    first.sql("SET GLOBAL read_only = 1")
    await flush(store, [delta("alice")])
    assert second.sql("SELECT sender, used FROM ratelimit", "mail") == [("alice", "1")]
    second.sql("SET GLOBAL read_only = 1")
    with pytest.raises(StoreError, match="read-only"):
        await flush(store, [delta("alice")])
    first.sql("SET GLOBAL read_only = 0")
    await flush(store, [delta("alice")])
    await store.close()


async def test_no_server_there_is_an_error_that_names_all(folder: Path) -> None:
    port = free_port()
    known = Access((("127.0.0.1", port), (str(folder / "none"), 0)), "root", b"", "mail")
    store = MySQLStore(known, timeout_s=PATIENT_S)
    with pytest.raises(StoreError, match=rf"127.0.0.1:{port}: .*refused.*; {folder}/none: .*No such file") as caught:
        await store.open()
    assert not isinstance(caught.value, StoreUnsuitable)


async def test_a_reload_s_time_out_holds_for_the_next_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = ("127.0.0.1", silent.getsockname()[1])
        store = MySQLStore(Access((address,), "root", b"", "policyd"), timeout_s=10 * PATIENT_S)
        store.configure(0.2, Kept())
        with trio.fail_after(PATIENT_S), pytest.raises(StoreError, match="no answer in time"):
            await store.open()
