"""The SQLite file's tables: created where they are missing, completed where an earlier version made them."""

import sqlite3

from ratelimitd.stores import Names, schema

ADDED = ("seen", "until")
"""Columns that tables of earlier versions lack."""


def complete(connection: sqlite3.Connection, names: Names) -> None:
    """Create what the file lacks, and have rows that name no limit be the first limit's."""
    columns = dict(names.columns)
    limit_name = columns.get("limit_name", "limit_name")
    found = _columns(connection, names)
    for column in ADDED:
        if found and columns.get(column, column) not in found:
            connection.execute(names.apply(f'ALTER TABLE "ratelimit" ADD COLUMN "{column}" INTEGER DEFAULT NULL', '"'))
            connection.execute(names.apply('DROP TRIGGER IF EXISTS "ratelimit_touched"', '"'))  # it names the columns
    connection.executescript(names.apply(schema("sqlite"), '"'))
    if found.get(limit_name) not in (None, f"'{names.limit}'"):
        _set_default(connection, names, found[limit_name])


def _columns(connection: sqlite3.Connection, names: Names) -> dict[str, str]:
    """The table's columns with their defaults; none where there is no table."""
    found = connection.execute(f'PRAGMA table_info("{names.table}")')
    return {name: default for _, name, _, _, default, _ in found}


def _set_default(connection: sqlite3.Connection, names: Names, default: str) -> None:
    """Change the DEFAULT of limit_name as SQLite's documentation says: the text of the table's definition alone.

    https://www.sqlite.org/lang_altertable.html#otheralter
    """
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
