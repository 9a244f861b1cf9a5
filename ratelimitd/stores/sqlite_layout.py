"""The SQLite file's tables: created where they are missing, completed where an earlier version made them.

Somebody may drop a table or a column while the daemon runs: `still_complete` notices that, at the cost of one number.
"""

import re
import sqlite3
from collections.abc import Collection

from ratelimitd.errors import StoreReplaced, StoreUnsuitable
from ratelimitd.stores import COLUMNS, Names, schema

_COLUMN = re.compile(r'^    "(\w+)" +([A-Z][^,]*[^, ])', re.MULTILINE)
"""A column of the table `ratelimit` in sql/sqlite.sql, and what it is."""
_FIXED = ("id", "sender", "limit_name", "updated")
"""Columns that cannot be added to a table, because of what they are there or of an index on them."""
_NO_QUOTA = 'UPDATE "ratelimit" SET "configured" = "quota", "seen" = "quota", "persist" = 0'
"""For a table whose quotas are gone: 0 would be unlimited."""


def make_durable(connection: sqlite3.Connection) -> None:
    """Have a commit survive a power cut: a segment of the journal is deleted once it is stored."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")


def complete(connection: sqlite3.Connection, names: Names) -> int:
    """Create what the file lacks; the schema's version then.

    Raises StoreUnsuitable for a table that lacks what cannot be added.
    """
    ours = dict(names.columns)
    columns = _columns(connection, names.table)
    if columns:
        _add(connection, names, [name for name in COLUMNS if ours.get(name, name) not in columns])
    _free_names(connection, names)
    script = names.apply(schema("sqlite"), '"')
    connection.executescript(f"BEGIN;{script}COMMIT;")  # a new file waits for the disk once, not for each table
    return _version(connection)


def still_complete(connection: sqlite3.Connection, names: Names, version: int) -> int:
    """The schema's version, which was complete at `version`. Raises StoreReplaced where a table or a column is gone.

    What else somebody changes, an index or a table of his own, is no matter.
    """
    found = _version(connection)
    if found != version:
        ours = dict(names.columns)
        columns = _columns(connection, names.table)
        gone = [name for name in (ours.get(name, name) for name in COLUMNS) if name not in columns]
        for table in (names.table, f"{names.table}_node", f"{names.table}_history"):
            if not _columns(connection, table):
                raise StoreReplaced(f"the table {table} is gone")
        if gone:
            raise StoreReplaced(f"the column {gone[0]} of the table {names.table} is gone")
    return found


def _version(connection: sqlite3.Connection) -> int:
    ((version,),) = connection.execute("PRAGMA schema_version")
    return int(version)


def _columns(connection: sqlite3.Connection, table: str) -> dict[str, str | None]:
    """The columns of a table, with their defaults; none where there is no such table."""
    return {name: default for _, name, _, _, default, _ in connection.execute(f'PRAGMA table_info("{table}")')}


def _add(connection: sqlite3.Connection, names: Names, lacking: Collection[str]) -> None:
    """Add columns to the table, as sql/sqlite.sql has them."""
    kinds = dict(_COLUMN.findall(schema("sqlite").partition(");")[0]))
    for name in lacking:
        if name in _FIXED:
            raise StoreUnsuitable(f"the table {names.table} lacks the column {name}, which cannot be added to it")
        connection.execute(names.apply(f'ALTER TABLE "ratelimit" ADD COLUMN "{name}" {kinds[name]}', '"'))
    if lacking:
        connection.execute(names.apply('DROP TRIGGER IF EXISTS "ratelimit_touched"', '"'))  # it names the columns
    if "quota" in lacking:
        connection.execute(names.apply(_NO_QUOTA, '"'))


def _free_names(connection: sqlite3.Connection, names: Names) -> None:
    """Drop our indexes and trigger that have gone with a table that somebody has renamed: its rows are his now."""
    for kind, name, of in (("INDEX", "updated", ""), ("TRIGGER", "touched", ""), ("INDEX", "ended", "_history")):
        select = "SELECT 1 FROM sqlite_master WHERE type = ? AND name = ? AND tbl_name <> ?"
        if connection.execute(select, (kind.lower(), f"{names.table}_{name}", f"{names.table}{of}")).fetchall():
            connection.execute(f'DROP {kind} "{names.table}_{name}"')


def set_default(connection: sqlite3.Connection, names: Names) -> int:
    """Have rows that name no limit be the first limit's; the schema's version then.

    The DEFAULT of limit_name is changed as SQLite's documentation says: the text of the table's definition alone.
    https://www.sqlite.org/lang_altertable.html#otheralter
    """
    default = _columns(connection, names.table).get(dict(names.columns).get("limit_name", "limit_name"))
    if default in (None, f"'{names.limit}'"):
        return _version(connection)
    connection.execute("BEGIN IMMEDIATE")
    try:
        (version,) = connection.execute("PRAGMA schema_version").fetchone()
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE type = 'table' AND name = ?",
            (f"DEFAULT {default}", f"DEFAULT '{names.limit}'", names.table),
        )
        connection.execute(f"PRAGMA schema_version = {version + 1}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    finally:
        connection.execute("PRAGMA writable_schema = OFF")
    return _version(connection)
