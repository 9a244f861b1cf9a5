"""libpq: whose environment and files it sees, and what an administrator reads where it cannot connect."""

import getpass
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from ratelimitd.errors import StoreError, StoreUnsuitable
from ratelimitd.stores.postgresql.access import Access
from ratelimitd.stores.postgresql.libpq import explained, forget_environment
from ratelimitd.stores.postgresql.store import PostgreSQLStore
from tests.fuzz.postgresql_server import WELCOME, message
from tests.instances.certificates import make_certificates
from tests.instances.postgresql import ADMINISTRATOR, PostgreSQL
from tests.stores.test_postgresql_floods import no_tls
from tests.stores.test_postgresql_login import PASSWORD, USER, access, secure, settings, user_of

__all__ = ["secure"]
HALF = 'connection to server at "127.0.0.1", port 5432 failed: FATAL:  '
NO_ENTRY = 'no pg_hba.conf entry for host "127.0.0.1", user "u", database "d"'
WRONG = 'password authentication failed for user "u"'


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (f"{HALF}{WRONG}\n{HALF}{WRONG}\n", WRONG),
        (f"{HALF}{NO_ENTRY}, SSL encryption\n{HALF}{NO_ENTRY}, no encryption\n", NO_ENTRY),
        (f"{HALF}{NO_ENTRY}, no encryption\n", f"{NO_ENTRY}, no encryption"),
        (
            'connection to server at "localhost" (::1), port 7 failed: Connection refused\n\tIs it running?\n'
            'connection to server at "localhost" (127.0.0.1), port 7 failed: Connection refused\n\tIs it running?\n',
            "Connection refused (Is it running?)",
        ),
        ('connection to server on socket "/run/.s.PGSQL.5432" failed: No such file\n', "No such file"),
        (
            'connection to server at "db1" (::1), port 7 failed: FATAL:  28P01: Passwort für »u« ist falsch\n'
            "ORT:  auth_failed, auth.c:338\n",
            "Passwort für »u« ist falsch",
        ),
        ("server at: nothing", "server at: nothing"),
        (b"\xff", "\ufffd"),
        ("", ""),
    ],
)
def test_each_thing_is_said_once(message: str | bytes, shown: str) -> None:
    assert explained(message if isinstance(message, bytes) else message.encode()) == shown


@pytest.mark.real
@pytest.mark.parametrize("state", ["28P01", "28000", "3D000", "42501"])
async def test_whatever_language_a_server_speaks_it_is_known_what_somebody_has_to_change(state: str) -> None:
    error = f"SSCHLIMM\0VFATAL\0C{state}\0MDas geht so nicht\0Fauth.c\0L338\0Rauth_failed\0\0"

    async def serve(stream: trio.SocketStream) -> None:
        await no_tls(stream)
        await stream.send_all(message(b"E", error.encode()))

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        store = PostgreSQLStore(Access((("127.0.0.1", port),), "me", "secret", "mail"), timeout_s=20)
        with pytest.raises(StoreUnsuitable) as caught:
            await store.open()
        nursery.cancel_scope.cancel()
    assert str(caught.value) == f"127.0.0.1:{port}: Das geht so nicht"


@pytest.mark.real
@pytest.mark.parametrize(("version", "since_17"), [(b"16.4", False), (b"17.2", True)])
async def test_a_transaction_may_take_as_long_as_it_must_also_where_its_time_can_be_bounded(
    version: bytes, since_17: bool
) -> None:
    asked = b""

    async def serve(stream: trio.SocketStream) -> None:
        nonlocal asked
        await no_tls(stream)
        await stream.send_all(WELCOME.replace(b"15.3", version))
        asked += await stream.receive_some()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        with pytest.raises(StoreError):
            await PostgreSQLStore(Access((("127.0.0.1", port),), "me", "secret", "mail"), timeout_s=20).open()
        nursery.cancel_scope.cancel()
    assert b"set_config('idle_session_timeout', '0'" in asked
    assert (b"set_config('transaction_timeout', '0'" in asked) is since_17


def test_of_a_service_the_server_is_named() -> None:
    assert explained(f"{HALF}{WRONG}\n{HALF}{WRONG}\n".encode(), keep_place=True).count(HALF[:40]) == 1


@pytest.mark.real
async def test_a_wrong_password_is_said_once(secure: PostgreSQL) -> None:
    store = PostgreSQLStore(access(settings(secure, password="wrong")), timeout_s=20)
    with pytest.raises(StoreUnsuitable) as caught:
        await store.open()
    assert str(caught.value) == f'127.0.0.1:{secure.port}: password authentication failed for user "{USER}"'


@pytest.fixture
def peer(make_postgresql: Callable[..., PostgreSQL]) -> PostgreSQL:
    """A server with `peer` for its socket, as Debian has it."""
    server = make_postgresql()
    [(file,)] = server.sql("SHOW hba_file")
    Path(file).write_text(f"local all {ADMINISTRATOR} trust\nlocal all all peer\n", encoding="utf-8")
    server.restart()
    server.add_user(USER, PASSWORD, database=USER)
    return server


@pytest.mark.real
async def test_over_a_socket_with_peer_an_account_with_the_users_name_needs_no_password(peer: PostgreSQL) -> None:
    own = getpass.getuser()
    peer.sql(f'CREATE ROLE "{own}" LOGIN')
    assert await user_of(access(settings(peer, unix_socket=peer.socket, user=own, password=""))) == (own, False)
    store = PostgreSQLStore(access(settings(peer, unix_socket=peer.socket)), timeout_s=20)
    with pytest.raises(StoreUnsuitable, match=r"Peer authentication failed.*: there pg_hba\.conf says peer"):
        await store.open()


@pytest.mark.real
async def test_variables_of_the_environment_do_not_say_otherwise_than_the_configuration(
    secure: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    monkeypatch.setenv("PGOPTIONS", "-c search_path=nowhere")
    monkeypatch.setenv("PGHOSTADDR", "192.0.2.1")
    monkeypatch.setenv("PGSSLMODE", "disable")
    with pytest.raises(StoreUnsuitable, match="no password supplied"):
        await user_of(access(settings(secure, password="")))
    assert await user_of(access(settings(secure))) == (USER, True)


def test_where_libpqs_own_files_are_the_environment_may_say(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"PGPASSFILE": "/a", "PGSERVICEFILE": "/b", "PGSYSCONFDIR": "/c"}
    for name, value in {**own, "PGUSER": "root", "PGTZ": "Japan", "PGP": "no variable of libpq's"}.items():
        monkeypatch.setenv(name, value)
    forget_environment()
    assert {name: value for name, value in os.environ.items() if name.startswith("PG")} == own | {
        "PGP": "no variable of libpq's"
    }


@pytest.mark.real
async def test_a_missing_password_is_said_with_what_can_be_done(
    secure: PostgreSQL, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSFILE", str(folder / "pgpass"))
    with pytest.raises(StoreUnsuitable, match=rf"set store\.password_file or .*, here {folder}/pgpass$"):
        await user_of(access(settings(secure, password="")))
    (folder / "pgpass").write_text(f"*:*:*:*:{PASSWORD}\n")
    (folder / "pgpass").chmod(0o644)
    with pytest.raises(StoreUnsuitable, match=f"does not read {folder}/pgpass, which others may read: chmod 600$"):
        await user_of(access(settings(secure, password="")))


@pytest.mark.real
async def test_a_service_that_is_nowhere_is_said_with_where_it_was_looked_for(
    secure: PostgreSQL, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGSERVICEFILE", str(folder / "services"))
    (folder / "services").write_text("[mail]\nhost=localhost\n")
    store = PostgreSQLStore(access(settings(secure, service="male")), timeout_s=20)
    with pytest.raises(StoreUnsuitable, match=f'^definition of service "male" not found: neither in {folder}/services'):
        await store.open()


@pytest.mark.real
async def test_a_file_of_authorities_that_may_not_be_read_is_said_so(secure: PostgreSQL, folder: Path) -> None:
    known = access(settings(secure, tls_ca=make_certificates(folder).ca))
    (folder / "ca.pem").unlink()
    with pytest.raises(StoreUnsuitable, match=rf"store\.tls_ca: {folder}/ca\.pem: No such file or directory; the daem"):
        await user_of(known)
