"""Deltas into the table `ratelimit` of a SQLite file, a batch in one transaction of the store's.

What becomes of a row, statements.py says; what is kept of windows that are over is written by sqlite_history.py.
"""

import sqlite3
from collections.abc import Callable, Iterable, Sequence

from ratelimitd.core.rows import Delta
from ratelimitd.errors import RecordRefused
from ratelimitd.stores import statements
from ratelimitd.stores.dialect import SQLite
from ratelimitd.stores.doubts import Doubts

_DIALECT = SQLite()
BAD_RECORD = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, ValueError, OverflowError)
"""One record is at fault, not the database."""
ERRORS = (*BAD_RECORD, sqlite3.OperationalError)
"""What a statement raises that fails; a function in a trigger, or a table that one misses, raises the last."""

LEFT_OUT = "a trigger leaves the row out"


def store(
    connection: sqlite3.Connection,
    sql: Callable[[str], str],
    chunk: Sequence[Delta],
    doubts: Doubts[Delta] | None = None,
) -> list[tuple[Delta, str]]:
    """Store a batch; the deltas that the database refuses, each with the reason. Raises sqlite3.Error and StoreError.

    `doubts`: of the flush that the batch is a part of; without, whatever fails is at fault itself.
    """
    if not chunk:
        return []
    upsert = sql(statements.upsert(_DIALECT, chunk[0]))
    if write_all(connection, upsert, [delta.values for delta in chunk]):
        if doubts:
            doubts.took()
        return []
    rejected: list[tuple[Delta, str]] = []
    for delta in chunk:
        error = refusal(connection, upsert, delta.values)
        if error is not None:
            rejected.append((delta, str(error)))
        if doubts and error is None:
            doubts.took()
        elif doubts and error is not None:
            doubts.doubt(delta[:2], delta, error)
            if doubts.are_many:
                decide(connection, sql, doubts)
    return rejected


def decide(connection: sqlite3.Connection, sql: Callable[[str], str], doubts: Doubts[Delta]) -> None:
    """Find out whether the records are at fault, or the table. Raises NotStored where it is the table."""
    if doubts.there_are:
        one = doubts.example
        there = connection.execute(sql(statements.SOME), (one.limit,)).fetchall()
        upsert = sql(statements.upsert(_DIALECT, one))
        others = doubts.others(str(key) for (key,) in there)
        doubts.decide(takes_one=takes_one(connection, upsert, [one._replace(key=k, used=0).values for k in others]))


def write_all(connection: sqlite3.Connection, statement: str, records: Sequence[Sequence[object]]) -> bool:
    """Write records, each with a statement that writes one; whether all are written, otherwise none is.

    Raises sqlite3.Error where it is no record's fault.
    """
    connection.execute("SAVEPOINT records")
    try:
        if connection.executemany(statement, records).rowcount == len(records):
            connection.execute("RELEASE records")
            return True
    except ERRORS as error:
        if not _may_be_a_record_s(error):
            raise
    connection.execute("ROLLBACK TO records")
    connection.execute("RELEASE records")
    return False


def refusal(connection: sqlite3.Connection, statement: str, record: Sequence[object]) -> Exception | None:
    """Write a record; why it is not written, None where it is. Raises sqlite3.Error where that is not its fault."""
    try:
        written = connection.execute(statement, record).rowcount
    except ERRORS as error:
        if not _may_be_a_record_s(error):
            raise
        return error
    return None if written else sqlite3.IntegrityError(LEFT_OUT)


def change(connection: sqlite3.Connection, statement: str, records: Iterable[Sequence[object]], rows: int = 0) -> None:
    """Write each record, to so many `rows` at least. Raises RecordRefused for one that is at fault, sqlite3.Error."""
    for record in records:
        try:
            written = connection.execute(statement, record).rowcount
        except ERRORS as error:
            if not _may_be_a_record_s(error):
                raise
            raise RecordRefused(str(error)) from error
        if written < rows:
            raise RecordRefused(LEFT_OUT)


def takes_one(connection: sqlite3.Connection, statement: str, records: Iterable[Sequence[object]]) -> bool:
    """Whether the table takes one of some other records; nothing of it stays. Raises sqlite3.Error."""
    taken = False
    for record in records:
        connection.execute("SAVEPOINT other")
        taken = refusal(connection, statement, record) is None
        connection.execute("ROLLBACK TO other")
        connection.execute("RELEASE other")
        if taken:
            break
    return taken


def _may_be_a_record_s(error: Exception) -> bool:
    """Whether it is not the file, nor another process, that made a statement fail."""
    return isinstance(error, BAD_RECORD) or getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_ERROR
