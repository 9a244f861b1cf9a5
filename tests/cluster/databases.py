"""Databases that daemons share, of every server there is."""

from dataclasses import dataclass
from typing import Any

from tests.instances.mariadb import MariaDB
from tests.instances.postgresql import ADMINISTRATOR, PostgreSQL
from tests.stores.backends import Backend, postgresql_backend, server_backend


@dataclass
class Shared:
    """A fresh database of a server."""

    server: MariaDB | PostgreSQL
    name: str

    @property
    def backend(self) -> Backend:
        """The same as a store has it."""
        if isinstance(self.server, PostgreSQL):
            return postgresql_backend(self.server, self.name)
        return server_backend(self.server, self.name)

    def settings(self, **more: object) -> str:
        """What `[store]` says of it: the administrator, over the socket."""
        is_postgresql = isinstance(self.server, PostgreSQL)
        values: dict[str, Any] = {
            "backend": "postgresql" if is_postgresql else "mysql",
            "unix_socket": str(self.server.socket),
            "port": self.server.port,
            "user": ADMINISTRATOR if is_postgresql else "root",
            "database": self.name,
            **more,
        }
        return "".join(
            f"{name} = {value if isinstance(value, (int, float)) else repr(value)}\n" for name, value in values.items()
        )

    def sql(self, text: str) -> list[tuple[str, ...]]:
        """What an administrator types."""
        return self.server.sql(text, self.name)

    def stored(self) -> dict[str, int]:
        """What each account has used."""
        return {sender: int(used) for sender, used in self.sql("SELECT sender, used FROM ratelimit")}
