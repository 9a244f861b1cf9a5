"""Where a MySQL or MariaDB database is, and who the daemon is there."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path

from ratelimitd.errors import StartError
from ratelimitd.settings import StoreSettings

Address = tuple[str, int]
"""A host and its port; for a unix socket its path and 0."""


@dataclass(frozen=True, slots=True)
class Access:
    """The servers, tried in this order, and the account. `tls`: refuse a server that does not prove itself by it.

    `server_public_key` is the RSA key (PEM) that a caching_sha2_password may be sent under where there is no TLS.
    """

    addresses: tuple[Address, ...]
    user: str
    password: bytes = field(repr=False)
    database: str
    tls: ssl.SSLContext | None = None
    server_public_key: bytes = b""

    @property
    def name(self) -> str:
        """For people: `mysql:policyd@db1,db2:3307/policyd`."""
        return f"mysql:{self.user}@{','.join(map(place, self.addresses))}/{self.database}"


def place(address: Address) -> str:
    """An address for people: a socket's path, a host, a host with its port where that is not 3306."""
    host, port = address
    shown = f"[{host}]" if ":" in host else host
    return host if port == 0 else shown if port == 3306 else f"{shown}:{port}"


def access(settings: StoreSettings, folder: Path) -> Access:
    """What `[store]` says; its paths may be relative to `folder`. Raises StartError."""
    password = settings.password.encode()
    if settings.password_file:
        password = _read(folder, "password_file", settings.password_file).rstrip(b"\r\n")
    key = _read(folder, "server_public_key", settings.server_public_key) if settings.server_public_key else b""
    hosts = [settings.host] if isinstance(settings.host, str) else settings.host
    addresses = [address(host, settings.port) for host in hosts]
    if settings.unix_socket:
        addresses = [(str(folder / settings.unix_socket), 0)]
    tls = _tls(folder, settings) if settings.tls_ca else None
    return Access(tuple(addresses), settings.user, password, settings.database, tls, key)


def address(host: str, port: int) -> Address:
    """`HOST`, `HOST:PORT`, `ADDRESS6` or `[ADDRESS6]:PORT`. Raises StartError."""
    name, colon, number = host, "", ""
    if host.startswith("["):
        name, _, rest = host[1:].partition("]")
        _, colon, number = rest.partition(":")
    elif host.count(":") == 1:
        name, colon, number = host.partition(":")
    if not colon:
        return name, port
    if not name or not (number.isascii() and number.isdigit() and 0 < int(number) < 65536):
        raise StartError(f'store.host: found "{host}"; allowed: HOST or HOST:PORT, [ADDRESS6]:PORT')
    return name, int(number)


def _read(folder: Path, setting: str, name: str) -> bytes:
    path = folder / name
    try:
        return path.read_bytes()
    except OSError as error:
        raise StartError(f"store.{setting}: {path}: {error.strerror}") from error


def _tls(folder: Path, settings: StoreSettings) -> ssl.SSLContext:
    path = folder / settings.tls_ca
    try:
        context = ssl.create_default_context(cafile=str(path))
    except (OSError, ssl.SSLError) as error:
        raise StartError(f"store.tls_ca: {path}: {error.strerror or error}; a file of PEM certificates") from error
    context.check_hostname = settings.tls_verify_name
    return context
