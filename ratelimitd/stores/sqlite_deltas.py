"""Deltas into the table `ratelimit` of a SQLite file, a batch in one transaction of the store's.

What becomes of a row, statements.py says; what is kept of windows that are over is written by sqlite_history.py.
"""

import sqlite3
from collections.abc import Callable, Sequence

from ratelimitd.core.rows import Delta
from ratelimitd.stores import statements
from ratelimitd.stores.dialect import SQLite

_DIALECT = SQLite()
BAD_RECORD = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, ValueError, OverflowError)
"""One record is at fault, not the database."""


def store(connection: sqlite3.Connection, sql: Callable[[str], str], chunk: Sequence[Delta]) -> list[tuple[Delta, str]]:
    """Store a batch; the deltas that the database refuses, each with the reason. Raises sqlite3.Error."""
    if not chunk:
        return []
    upsert = sql(statements.upsert(_DIALECT, chunk[0]))
    connection.execute("SAVEPOINT chunk")
    try:
        connection.executemany(upsert, [delta.values for delta in chunk])
        connection.execute("RELEASE chunk")
        return []
    except BAD_RECORD:
        connection.execute("ROLLBACK TO chunk")
        connection.execute("RELEASE chunk")
    rejected: list[tuple[Delta, str]] = []
    for delta in chunk:
        try:
            connection.execute(upsert, delta.values)
        except BAD_RECORD as error:
            rejected.append((delta, str(error)))
    return rejected
