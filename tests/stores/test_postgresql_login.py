"""Logging in to PostgreSQL: every way that is offered, and those that are refused."""

import struct
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import trio
from psycopg import pq

from ratelimitd.errors import ConfigError, StoreError, StoreUnsuitable
from ratelimitd.net.credentials import Credentials
from ratelimitd.settings import StoreSettings
from ratelimitd.stores.postgresql.access import Access
from ratelimitd.stores.postgresql.session import connect
from tests.instances.certificates import make_certificates
from tests.instances.postgresql import PostgreSQL

pytestmark = pytest.mark.real
PASSWORD = "it's ünsafe\\%s"
USER = "policyd"


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgreSQL]:
    """A server that offers TLS, and has the account."""
    folder = tmp_path_factory.mktemp("secure", numbered=True)
    for path in (folder, *folder.parents[:3]):
        if path != Path("/tmp"):
            path.chmod(0o755)
    server = PostgreSQL(folder, "listen_addresses=127.0.0.1,127.0.0.2", tls=True)
    try:
        server.start()
        server.add_user(USER, PASSWORD, database=USER)
        yield server
    finally:
        server.stop()


def settings(server: PostgreSQL, **more: object) -> StoreSettings:
    store = StoreSettings(backend="postgresql", port=server.port, user=USER, password=PASSWORD, database=USER)
    for name, value in more.items():
        setattr(store, name, str(value) if isinstance(value, Path) else value)
    return store


def access(store: StoreSettings, folder: Path = Path("/")) -> Access:
    return Access.of(store, Credentials(folder))


async def user_of(known: Access) -> tuple[str, bool]:
    """Log in; the account, and whether the server sees TLS."""
    session = await connect(known, known.addresses[0], 20)
    ((user, tls),) = await session.run("SELECT session_user::text, ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
    await session.quit()
    return user, tls


async def test_scram_over_a_unix_socket(secure: PostgreSQL) -> None:
    assert await user_of(access(settings(secure, unix_socket=secure.socket))) == (USER, False)
    whole = f"{secure.socket}/.s.PGSQL.{secure.port}"
    assert await user_of(access(settings(secure, unix_socket=whole))) == (USER, False)
    with pytest.raises(StoreUnsuitable, match="authentication failed"):
        await user_of(access(settings(secure, unix_socket=secure.socket, password="wrong")))


async def test_scram_over_tcp(secure: PostgreSQL, postgresql: PostgreSQL) -> None:
    postgresql.add_user(USER, PASSWORD, database=USER)
    assert await user_of(access(settings(postgresql))) == (USER, False)
    with pytest.raises(StoreUnsuitable, match="authentication failed"):
        await user_of(access(settings(postgresql, password="wrong")))
    with pytest.raises(StoreUnsuitable, match="does not support SSL"):
        await user_of(access(settings(postgresql, tls_ca=secure.folder / "ca.pem")))
    postgresql.sql(f"DROP DATABASE {USER} WITH (FORCE); DROP ROLE {USER}")


async def test_tls_is_verified(secure: PostgreSQL, folder: Path) -> None:
    ca = secure.folder / "ca.pem"
    assert await user_of(access(settings(secure, tls_ca=ca))) == (USER, True)
    assert await user_of(access(settings(secure, tls_ca=ca, host="localhost"))) == (USER, True)
    stranger = make_certificates(folder).ca
    with pytest.raises(StoreUnsuitable, match="certificate verify failed"):
        await user_of(access(settings(secure, tls_ca=stranger)))
    with pytest.raises(StoreUnsuitable, match="certificate"):
        await user_of(access(settings(secure, tls_ca=ca, host="127.0.0.2")))
    assert await user_of(access(settings(secure, tls_ca=ca, host="127.0.0.2", tls_verify_name=False))) == (USER, True)
    (folder / "none.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match=r"store\.tls_ca"):
        access(settings(secure, tls_ca=folder / "none.pem"))


async def test_a_password_may_stand_in_a_file_of_its_own(secure: PostgreSQL, folder: Path) -> None:
    (folder / "secret").write_text(PASSWORD + "\n", encoding="utf-8")
    assert await user_of(access(settings(secure, password="", password_file="secret"), folder)) == (USER, True)


async def test_libpq_finds_a_password_where_none_is_set(
    secure: PostgreSQL, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = folder / "pgpass"
    escaped = PASSWORD.replace("\\", "\\\\")
    file.write_text(f"127.0.0.1:{secure.port}:{USER}:{USER}:{escaped}\n", encoding="utf-8")
    file.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(file))
    assert await user_of(access(settings(secure, password=""))) == (USER, True)
    monkeypatch.setenv("PGPASSFILE", str(folder / "none"))
    with pytest.raises(StoreUnsuitable, match="no password supplied"):
        await user_of(access(settings(secure, password="")))


async def test_a_service_says_all(secure: PostgreSQL, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = folder / "pg_service.conf"
    file.write_text(f"[mail]\nhost={secure.socket}\nport={secure.port}\nuser={USER}\ndbname={USER}\n")
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    known = access(settings(secure, service="mail"))
    assert await user_of(known) == (USER, False)
    assert known.name == "postgresql:service=mail"
    with pytest.raises(StoreUnsuitable, match='definition of service "none" not found'):
        await user_of(access(settings(secure, service="none")))


def test_the_name_has_no_password(secure: PostgreSQL) -> None:
    store = settings(secure, host=["db1", "db2:5433", "[::1]:5434"], port=0)
    assert access(store).name == "postgresql:policyd@db1,db2:5433,[::1]:5434/policyd"
    assert PASSWORD not in repr(access(store))


@pytest.mark.skipif(pq.version() < 160_000, reason="libpq 16 is the first that can be told so")
async def test_a_server_that_asks_for_the_password_itself_does_not_get_it(secure: PostgreSQL) -> None:
    received = bytearray()

    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some(1000)  # libpq asks for TLS
        await stream.send_all(b"N")
        await stream.receive_some(1000)
        await stream.send_all(b"R" + struct.pack("!II", 8, 3))
        while data := await stream.receive_some(1000):
            received.extend(data)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        address = ("127.0.0.1", listeners[0].socket.getsockname()[1])
        with pytest.raises(StoreError):
            await user_of(replace(access(settings(secure)), addresses=(address,)))
        nursery.cancel_scope.cancel()
    assert PASSWORD.encode() not in received
