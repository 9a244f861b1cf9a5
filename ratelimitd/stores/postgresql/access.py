"""Where a PostgreSQL database is, and who the daemon is there: what libpq is told of it."""

from dataclasses import dataclass, field
from typing import Self

from psycopg import pq

from ratelimitd.errors import ConfigError, StoreUnsuitable
from ratelimitd.net.credentials import Credentials
from ratelimitd.settings import StoreSettings
from ratelimitd.stores.shared.addresses import Address, addresses, place

USUAL_PORT = StoreSettings(backend="postgresql").usual_port

_CAN_REFUSE = 160_000
"""The version of libpq from which on it can be told what a server may not ask for."""
SERVICE: Address = ("", 0)
"""The address of a server that libpq finds by its service file."""


@dataclass(frozen=True, slots=True)
class Access:
    """The servers, tried in this order, and the account. `tls_ca`: refuse a server that does not prove itself by it.

    Without a `password` libpq looks for one in its own file. With a `service` it finds all else in the service file.
    """

    addresses: tuple[Address, ...]
    user: str
    password: str = field(repr=False)
    database: str
    tls_ca: str = ""
    tls_verify_name: bool = True
    service: str = ""

    @classmethod
    def of(cls, settings: StoreSettings, credentials: Credentials) -> Self:
        """What `[store]` says. Raises ConfigError."""
        found = addresses(settings)
        if settings.unix_socket:
            found = (_socket(str(credentials.path(settings.unix_socket)), settings.port or USUAL_PORT),)
        password = settings.password
        if settings.password_file:
            content = (credentials.read("store.password_file", settings.password_file) or b"").rstrip(b"\r\n")
            try:
                password = content.decode()
            except UnicodeDecodeError as error:
                raise ConfigError("store.password_file", "what is no UTF-8", "a password") from error
        if "\0" in password:
            raise ConfigError("store.password", "a NUL", "a password")
        ca = ""
        if settings.tls_ca:
            credentials.tls(
                "store.tls_ca", settings.tls_ca
            )  # libpq would say only at the first connection what is wrong
            ca = str(credentials.path(settings.tls_ca))
        if settings.service:
            found = (SERVICE,)
        return cls(
            found, settings.user, password, settings.database, ca, settings.tls_verify_name, settings.service
        )  # fmt: skip

    @property
    def name(self) -> str:
        """For people: `postgresql:policyd@db1,db2:5433/policyd`."""
        if self.service:
            return f"postgresql:service={self.service}"
        hosts = ",".join(place(address, USUAL_PORT) for address in self.addresses)
        return f"postgresql:{self.user}@{hosts}/{self.database}"

    def parameters(self, address: Address) -> dict[str, str]:
        """What libpq is told for one of the servers. Raises StoreUnsuitable for a file that it could not read."""
        given = {"client_encoding": "UTF8", "application_name": "ratelimitd"}
        if self.password:
            given["password"] = self.password
        is_socket = address[1] == 0 and not self.service
        if not (self.tls_ca or is_socket) and pq.version() >= _CAN_REFUSE:
            given["require_auth"] = "!password"  # nobody gets it in plain text, whoever answers
        if self.tls_ca:
            _read(self.tls_ca)
            given |= {"sslmode": "verify-full" if self.tls_verify_name else "verify-ca", "sslrootcert": self.tls_ca}
        if self.service:
            return given | {"service": self.service}
        host, port = address
        if not port:
            # Over a socket there is no TLS, and libpq refuses to begin any.
            folder, _, number = host.rpartition("/.s.PGSQL.")
            given |= {"host": folder, "port": number, "sslmode": "disable"}
        else:
            given |= {"host": host, "port": str(port)}
        return given | {"user": self.user, "dbname": self.database}


def _socket(path: str, port: int) -> Address:
    """The socket at a path, which may be the folder that it stands in, as PostgreSQL's own settings name it."""
    return (path if "/.s.PGSQL." in path else f"{path}/.s.PGSQL.{port}", 0)


def _read(tls_ca: str) -> None:
    """Try what libpq will do, which would say of any file that cannot be read that it does not exist."""
    try:
        with open(tls_ca, "rb"):
            pass
    except OSError as error:
        raise StoreUnsuitable(f"store.tls_ca: {tls_ca}: {error.strerror}; the daemon's user must read it") from error
