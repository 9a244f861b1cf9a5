"""libpq: whose environment and files it sees, and what an administrator reads where it cannot connect."""

import getpass
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ratelimitd.errors import StoreUnsuitable
from ratelimitd.stores.postgresql.libpq import explained, forget_environment
from ratelimitd.stores.postgresql.store import PostgreSQLStore
from tests.instances.certificates import make_certificates
from tests.instances.postgresql import ADMINISTRATOR, PostgreSQL
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
        (b"\xff", "\ufffd"),
        ("", ""),
    ],
)
def test_each_thing_is_said_once(message: str | bytes, shown: str) -> None:
    assert explained(message if isinstance(message, bytes) else message.encode()) == shown


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
