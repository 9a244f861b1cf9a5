"""Where a MySQL or MariaDB database is, and who the daemon is there."""

import ssl
from dataclasses import dataclass, field
from typing import Self

from ratelimitd.net.credentials import Credentials
from ratelimitd.settings import StoreSettings
from ratelimitd.stores.shared.addresses import Address, addresses, place

USUAL_PORT = StoreSettings().usual_port


@dataclass(frozen=True, slots=True)
class Access:
    """The servers, tried in this order, and the account. `tls`: refuse a server that does not prove itself by it.

    `server_public_key` is the RSA key (PEM) to encrypt a password for caching_sha2_password with where there is no TLS.
    """

    addresses: tuple[Address, ...]
    user: str
    password: bytes = field(repr=False)
    database: str
    tls: ssl.SSLContext | None = None
    server_public_key: bytes = b""

    @classmethod
    def of(cls, settings: StoreSettings, credentials: Credentials) -> Self:
        """What `[store]` says. Raises ConfigError."""
        found = addresses(settings)
        if settings.unix_socket:
            found = ((str(credentials.path(settings.unix_socket)), 0),)
        password = settings.password.encode()
        if settings.password_file:
            content = credentials.read("store.password_file", settings.password_file)
            password = (content or b"").rstrip(b"\r\n")
        tls, key = None, None
        if settings.tls_ca:
            tls = credentials.tls("store.tls_ca", settings.tls_ca)
            tls.check_hostname = settings.tls_verify_name
            # The authority that MySQL makes for itself has no key identifier, which Python refuses from 3.13 on. What
            # is signed by whom, until when and for which host is verified as before.
            tls.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if settings.server_public_key:
            key = credentials.read("store.server_public_key", settings.server_public_key)
        return cls(found, settings.user, password, settings.database, tls, key or b"")

    @property
    def name(self) -> str:
        """For people: `mysql:policyd@db1,db2:3307/policyd`."""
        hosts = ",".join(place(address, USUAL_PORT) for address in self.addresses)
        return f"mysql:{self.user}@{hosts}/{self.database}"
