"""Logging in: every way that is offered, and every one that is refused."""

import itertools
import ssl
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ratelimitd.errors import StartError, StoreUnsuitable
from ratelimitd.net.credentials import Credentials
from ratelimitd.settings import StoreSettings
from ratelimitd.stores.mysql.access import Access
from ratelimitd.stores.mysql.session import connect
from ratelimitd.stores.shared.addresses import address
from tests.conftest import require
from tests.instances.certificates import Certificates, make_certificates
from tests.instances.mariadb import MariaDB
from tests.instances.mysql9 import MySQL9

PASSWORD = "it's ünsafe\\%s"
_numbers = itertools.count(1)


def access(store: StoreSettings, folder: Path) -> Access:
    return Access.of(store, Credentials(folder))


async def user_of(known: Access, timeout_s: float = 20) -> tuple[str, bool]:
    """Log in; the account, and whether the server sees TLS."""
    session = await connect(known, known.addresses[0], timeout_s)
    ((user,),) = await session.run("SELECT SUBSTRING_INDEX(USER(), '@', 1)")
    ((_, cipher),) = await session.run("SHOW SESSION STATUS LIKE 'Ssl_cipher'")
    await session.quit()
    return user, bool(cipher)


def settings(server: MariaDB | MySQL9, user: str, **more: object) -> StoreSettings:
    store = StoreSettings(host="127.0.0.1", port=server.port, user=user, password=PASSWORD, database="mysql")
    for name, value in more.items():
        setattr(store, name, str(value) if isinstance(value, Path) else value)
    return store


@pytest.fixture
def sha2(mysql9: MySQL9) -> str:
    """A new account with caching_sha2_password, which the server's cache does not know yet."""
    user = f"sha2_{next(_numbers)}"
    mysql9.add_user(user, PASSWORD)
    return user


# -- caching_sha2_password, on a MySQL that knows nothing else --------------------------------------------------------


@pytest.mark.real
async def test_caching_sha2_over_a_unix_socket(mysql9: MySQL9, sha2: str) -> None:
    known = access(settings(mysql9, sha2, unix_socket=mysql9.socket), Path("/"))
    for _ in ("whole", "from the server's cache"):
        assert await user_of(known) == (sha2, False)


@pytest.mark.real
async def test_caching_sha2_over_tls(mysql9: MySQL9, sha2: str) -> None:
    known = access(settings(mysql9, sha2, tls_ca=mysql9.ca, tls_verify_name=False), Path("/"))
    for _ in ("whole", "from the server's cache"):
        assert await user_of(known) == (sha2, True)


@pytest.mark.real
async def test_caching_sha2_over_plain_tcp_with_the_servers_key(mysql9: MySQL9, sha2: str) -> None:
    known = access(settings(mysql9, sha2, server_public_key=mysql9.public_key), Path("/"))
    for _ in ("whole", "from the server's cache"):
        assert await user_of(known) == (sha2, False)


@pytest.mark.real
async def test_a_password_that_would_travel_in_the_clear_is_refused(mysql9: MySQL9, sha2: str) -> None:
    known = access(settings(mysql9, sha2), Path("/"))
    with pytest.raises(
        StoreUnsuitable, match=r"in the clear: set store.tls_ca, store.unix_socket or store.server_public"
    ):
        await user_of(known)


@pytest.mark.real
async def test_a_key_that_is_none_is_refused(mysql9: MySQL9, sha2: str, folder: Path) -> None:
    known = replace(access(settings(mysql9, sha2), folder), server_public_key=b"no key")
    with pytest.raises(StoreUnsuitable, match=r"store\.server_public_key: not an RSA key"):
        await user_of(known)


@pytest.mark.real
async def test_a_wrong_password_is_refused(mysql9: MySQL9, sha2: str) -> None:
    known = replace(access(settings(mysql9, sha2, unix_socket=mysql9.socket), Path("/")), password=b"wrong")
    with pytest.raises(StoreUnsuitable, match=f"Access denied for user '{sha2}'"):
        await user_of(known)


# -- MariaDB ------------------------------------------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.parametrize("plugin", ["mysql_native_password", "ed25519"])
async def test_mariadbs_plugins(mariadb: MariaDB, plugin: str) -> None:
    user = f"user_{next(_numbers)}"
    mariadb.add_user(user, PASSWORD, plugin)
    assert await user_of(access(settings(mariadb, user), Path("/"))) == (user, False)
    assert await user_of(access(settings(mariadb, user, unix_socket=mariadb.socket), Path("/"))) == (user, False)
    with pytest.raises(StoreUnsuitable, match="Access denied"):
        await user_of(replace(access(settings(mariadb, user), Path("/")), password=b"wrong"))


@pytest.mark.real
async def test_tls_is_verified_and_never_left_out(make_mariadb: Callable[..., MariaDB], folder: Path) -> None:
    server = make_mariadb(tls=True)
    assert server.certificates is not None
    server.add_user("secure", PASSWORD, "ed25519", require="SSL")
    known = access(settings(server, "secure", tls_ca=server.certificates.ca), folder)
    assert await user_of(known) == ("secure", True)
    named = replace(known, addresses=(("localhost", server.port),))
    assert await user_of(named) == ("secure", True)
    with pytest.raises(StoreUnsuitable, match="Access denied"):
        await user_of(replace(known, tls=None))

    stranger = access(settings(server, "secure", tls_ca=make_certificates(folder).ca), folder)
    with pytest.raises(StoreUnsuitable, match="certificate"):
        await user_of(stranger)

    # Without an option MariaDB offers TLS from 11.4 on, with a certificate that it makes itself.
    without = make_mariadb("--skip-ssl")
    without.add_user("plain", PASSWORD)
    with pytest.raises(StoreUnsuitable, match="offers no TLS"):
        await user_of(replace(known, user="plain", addresses=(("127.0.0.1", without.port),)))


@pytest.mark.real
async def test_a_certificate_for_another_name_is_refused(make_mariadb: Callable[..., MariaDB], folder: Path) -> None:
    server = make_mariadb("--bind-address=0.0.0.0", tls=True)
    assert server.certificates is not None
    server.add_user("secure", PASSWORD)
    store = settings(server, "secure", tls_ca=server.certificates.ca)
    store.host = "127.0.0.2"
    with pytest.raises(StoreUnsuitable, match=r"certificate.*127\.0\.0\.2"):
        await user_of(access(store, folder))
    store.tls_verify_name = False
    assert await user_of(access(store, folder)) == ("secure", True)


@pytest.mark.parametrize("name", ["127.0.0.1", "127.0.0.2"])
def test_an_authority_without_a_key_identifier_is_trusted_and_still_verified(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """MySQL makes itself such an authority, and from Python 3.13 on the default context refuses it."""
    require("openssl")
    made = make_certificates(folder, identified=False)
    default = ssl.create_default_context

    def of_python_3_13(**arguments: Any) -> ssl.SSLContext:
        context = default(**arguments)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", of_python_3_13)
    with pytest.raises(ssl.SSLCertVerificationError, match="Authority Key Identifier"):
        handshake(of_python_3_13(cafile=made.ca), made, "127.0.0.1")
    tls = access(StoreSettings(tls_ca=str(made.ca)), folder).tls
    assert tls is not None
    assert (tls.verify_mode, tls.check_hostname) == (ssl.CERT_REQUIRED, True)
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch") if name == "127.0.0.2" else nullcontext():
        handshake(tls, made, name)


def handshake(client: ssl.SSLContext, server: Certificates, name: str) -> None:
    """Between this client and a server with these certificates, in memory. Raises ssl.SSLError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.certificate, server.key)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(back, there, server_hostname=name),
        context.wrap_bio(there, back, server_side=True),
    ]
    while ends:
        for end in list(ends):
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
                ends.remove(end)


# -- settings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("db", ("db", 3306)),
        ("db:3307", ("db", 3307)),
        ("192.0.2.1", ("192.0.2.1", 3306)),
        ("2001:db8::1", ("2001:db8::1", 3306)),
        ("[2001:db8::1]:3307", ("2001:db8::1", 3307)),
        ("[2001:db8::1]", ("2001:db8::1", 3306)),
    ],
)
def test_hosts(host: str, expected: tuple[str, int]) -> None:
    assert address(host, 3306) == expected


@pytest.mark.parametrize("host", ["db:", "db:x", "db:0", "db:65536", ":3306", "db:٣"])
def test_a_host_that_is_none_is_refused(host: str) -> None:
    with pytest.raises(StartError, match=r"store\.host: found "):
        address(host, 3306)


def test_the_mark_that_some_editors_begin_a_file_with_is_no_part_of_a_password(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("\ufeffs3cret\n")
    assert access(StoreSettings(password_file="secret"), tmp_path).password == b"s3cret"


def test_the_password_file_is_read_without_its_line_end(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes("pässword \n".encode())
    known = access(StoreSettings(password="other", password_file="secret"), tmp_path)
    assert known.password == "pässword ".encode()


@pytest.mark.parametrize("setting", ["password_file", "tls_ca", "server_public_key"])
def test_a_file_that_is_missing_is_named(tmp_path: Path, setting: str) -> None:
    store = StoreSettings()
    setattr(store, setting, "missing")
    with pytest.raises(StartError, match=f"store.{setting}: found {tmp_path}/missing: No such file"):
        access(store, tmp_path)


def test_a_tls_ca_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(StartError, match=r"store.tls_ca: found .*ca.pem: .*; allowed: a file of PEM certificates"):
        access(StoreSettings(tls_ca="ca.pem"), tmp_path)


def test_the_stores_name_has_no_password_in_it() -> None:
    store = StoreSettings(host=["db1", "[2001:db8::1]:3307"], user="me", password="secret", database="mail")
    assert access(store, Path("/")).name == "mysql:me@db1,[2001:db8::1]:3307/mail"
