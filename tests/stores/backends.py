"""A fresh database of each kind behind the Store protocol, and an administrator's own way into it."""

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratelimitd.core.rows import Account, Delta, Row
from ratelimitd.errors import StoreError
from ratelimitd.stores import Flushed, Names, Store
from ratelimitd.stores.mysql.access import Access
from ratelimitd.stores.mysql.store import MySQLStore
from ratelimitd.stores.postgresql.access import Access as PostgreSQLAccess
from ratelimitd.stores.postgresql.store import PostgreSQLStore
from ratelimitd.stores.sqlite import SQLiteStore
from tests.instances.postgresql import ADMINISTRATOR, PostgreSQL

Sql = Callable[[str], list[tuple[str, ...]]]


@dataclass
class Backend:
    """`make` gives a new store on the same database; `sql` is what an administrator types; `quote` is for names."""

    name: str
    make: Callable[..., Store]
    sql: Sql
    quote: str

    def alter(self, **types: str) -> None:
        """Give columns of `ratelimit` other types, in which NULL may stand."""
        if self.name != "postgresql":
            self.sql(f"ALTER TABLE ratelimit {', '.join(f'MODIFY {name} {kind}' for name, kind in types.items())}")
            return
        # All this somebody has to do: its view, its trigger and its constraints name the columns.
        self.sql("DROP VIEW IF EXISTS view_ratelimit; DROP TRIGGER ratelimit_touched ON ratelimit")
        self.sql("ALTER TABLE ratelimit DROP CONSTRAINT IF EXISTS ratelimit_counts")
        for name, kind in types.items():
            column, kind = f"ALTER TABLE ratelimit ALTER COLUMN {name}", kind.replace("DOUBLE", "DOUBLE PRECISION")
            default = "NULL" if name in ("configured", "seen", "until", "in_parts") else "0"
            self.sql(f"{column} DROP DEFAULT; {column} TYPE {kind} USING {name}::{kind}")
            self.sql(f"{column} SET DEFAULT {default}; {column} DROP NOT NULL")
        self.sql(
            "CREATE TRIGGER ratelimit_touched BEFORE UPDATE OF quota, persist, until, used, expiry ON ratelimit "
            "FOR EACH ROW WHEN (NEW.updated IS NOT DISTINCT FROM OLD.updated) EXECUTE FUNCTION ratelimit_touch()"
        )

    def alter_other(self, table: str, **types: str) -> None:
        """The same for another table."""
        if self.name != "postgresql":
            self.sql(f"ALTER TABLE {table} {', '.join(f'MODIFY {name} {kind}' for name, kind in types.items())}")
            return
        for name, kind in types.items():
            self.sql(f"ALTER TABLE {table} ALTER {name} TYPE {kind.partition(')')[0]})")
            if "NOT NULL" not in kind:
                self.sql(f"ALTER TABLE {table} ALTER {name} DROP NOT NULL")

    def at(self, seconds: int) -> str:
        """An expression for a time as `updated` has it, given in seconds since 1970."""
        function = {"sqlite": "datetime({}, 'unixepoch')", "postgresql": "to_timestamp({})"}
        return function.get(self.name, "FROM_UNIXTIME({})").format(seconds)


def sqlite_backend(folder: Path) -> Backend:
    path = folder / "ratelimit.sqlite3"

    def sql(text: str) -> list[tuple[str, ...]]:
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            rows = connection.execute(text).fetchall()
            return [tuple("NULL" if value is None else str(value) for value in row) for row in rows]
        finally:
            connection.close()

    return Backend("sqlite", lambda names=None: SQLiteStore(path, names), sql, '"')


def server_backend(server: Any, database: str) -> Backend:
    """Of a MariaDB or MySQL9 instance: root over its socket, without a password."""
    access = Access(((str(server.socket), 0),), "root", b"", database)

    def sql(text: str) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = server.sql(text, database)
        return rows

    def make(names: Names | None = None) -> Store:
        return MySQLStore(access, names, timeout_s=10)

    return Backend(type(server).__name__.lower(), make, sql, "`")


def postgresql_access(server: PostgreSQL, database: str) -> PostgreSQLAccess:
    """The administrator's, over the socket."""
    return PostgreSQLAccess(((f"{server.socket}/.s.PGSQL.{server.port}", 0),), ADMINISTRATOR, "", database)


def postgresql_backend(server: PostgreSQL, database: str) -> Backend:
    """The administrator over the socket, without a password."""
    access = postgresql_access(server, database)

    def make(names: Names | None = None) -> Store:
        return PostgreSQLStore(access, names, timeout_s=10)

    return Backend("postgresql", make, lambda text: server.sql(text, database), '"')


def delta(key: str, used: int = 1, *, expiry: int = 2000, quota: int = 10, limit: str = "daily") -> Delta:
    return Delta(limit, key, expiry, used, quota, quota)


async def flush(store: Store, deltas: Iterable[Delta], *, node: str = "node", segment: int = 0) -> Flushed:
    """Flush deltas as a segment; by default the next one."""
    made = list(deltas)
    segment = segment or await store.recorded(node) + 1
    return await store.flush(node, segment, lambda recorded: made if recorded < segment else [])


async def flush_in_turn(store: Store, deltas: Iterable[Delta], node: str, segment: int) -> None:
    """Flush again, as the daemon does, where SQLite has let others write for too long."""
    while True:
        try:
            await flush(store, deltas, node=node, segment=segment)
            return
        except StoreError as error:
            if "locked" not in str(error):
                raise


@asynccontextmanager
async def closed_after(store: Store) -> AsyncIterator[Store]:
    """The store, closed whatever fails: a connection that is left would fail another test."""
    try:
        yield store
    finally:
        await store.close()


async def row(store: Store, key: str, limit: str = "daily", now: int = 0) -> Row:
    """The one row of an account."""
    (found,) = await store.lookup([Account(limit, key)], now)
    return found
