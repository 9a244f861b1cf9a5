"""Deltas into the table `ratelimit` of a SQLite file, a batch in one transaction of the store's.

What becomes of a row, statements.py says; what is kept of windows that are over is written by sqlite_history.py.
"""

import sqlite3
from collections.abc import Callable, Sequence

from ratelimitd.core.rows import Delta
from ratelimitd.stores import statements
from ratelimitd.stores.dialect import SQLite
from ratelimitd.stores.doubts import Doubts

_DIALECT = SQLite()
BAD_RECORD = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, ValueError, OverflowError)
"""One record is at fault, not the database."""


def store(
    connection: sqlite3.Connection, sql: Callable[[str], str], chunk: Sequence[Delta], doubts: Doubts | None = None
) -> list[tuple[Delta, str]]:
    """Store a batch; the deltas that the database refuses, each with the reason. Raises sqlite3.Error and StoreError.

    `doubts`: of the flush that the batch is a part of; without, whatever fails is at fault itself.
    """
    doubts = doubts or Doubts()
    if not chunk:
        return []
    upsert = sql(statements.upsert(_DIALECT, chunk[0]))
    connection.execute("SAVEPOINT chunk")
    try:
        connection.executemany(upsert, [delta.values for delta in chunk])
        connection.execute("RELEASE chunk")
        doubts.took()
        return []
    except (*BAD_RECORD, sqlite3.OperationalError) as error:
        if not _may_be_a_record_s(error):
            raise
        connection.execute("ROLLBACK TO chunk")
        connection.execute("RELEASE chunk")
    rejected: list[tuple[Delta, str]] = []
    for delta in chunk:
        try:
            connection.execute(upsert, delta.values)
            doubts.took()
        except (*BAD_RECORD, sqlite3.OperationalError) as error:
            if not _may_be_a_record_s(error):
                raise
            if not isinstance(error, BAD_RECORD):
                doubts.doubt(error)
            rejected.append((delta, str(error)))
    return rejected


def _may_be_a_record_s(error: Exception) -> bool:
    """Whether it is not the file, nor another process, that made a statement fail."""
    return isinstance(error, BAD_RECORD) or getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_ERROR
