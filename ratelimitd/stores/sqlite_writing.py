"""Records written to a SQLite file, within a transaction of the store's: which of them the database refuses, and why.

A trigger may leave a record out without an error, and may roll back the whole transaction for its sake.
"""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from ratelimitd.errors import NotStored, RecordRefused
from ratelimitd.stores.doubts import MANY

BAD_RECORD = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, ValueError, OverflowError)
"""One record is at fault, not the database."""
ERRORS = (*BAD_RECORD, sqlite3.OperationalError)
"""What a statement raises that fails; a function in a trigger, or a table that one misses, raises the last."""

LEFT_OUT = "a trigger leaves the row out"

T = TypeVar("T")


class Writer(sqlite3.Connection):
    """A connection that writes. `undoing`: records for which a trigger has rolled back the transaction of this flush,
    by RAISE(ROLLBACK), each with the statement that wrote it; `one_by_one`: find them."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.undoing: dict[tuple[str, tuple[object, ...]], sqlite3.Error] = {}
        self.one_by_one = False


class Undone(sqlite3.IntegrityError):
    """A trigger has rolled back the whole transaction for a record's sake."""


def without_undoing(writer: Writer, flush: Callable[[], T]) -> T:
    """Do a flush, again without each record for which a trigger has rolled back all. Raises NotStored for too many."""
    why = ""
    try:
        for _ in range(MANY):
            try:
                return flush()
            except Undone as error:
                why, writer.one_by_one = str(error), True
        raise NotStored(f"triggers roll back all for too many records: {why}")
    finally:
        writer.undoing.clear()
        writer.one_by_one = False


def write_all(connection: Writer, statement: str, records: Sequence[Sequence[object]]) -> bool:
    """Write records, each with a statement that writes one; whether all are written, otherwise none is.

    Raises sqlite3.Error where it is no record's fault.
    """
    if connection.one_by_one:
        return False
    connection.execute("SAVEPOINT records")
    try:
        if connection.executemany(statement, records).rowcount == len(records):
            connection.execute("RELEASE records")
            return True
    except ERRORS as error:
        if not _may_be_a_record_s(error):
            raise
        if not connection.in_transaction:
            raise Undone(str(error)) from error
    connection.execute("ROLLBACK TO records")
    connection.execute("RELEASE records")
    return False


def refusal(connection: Writer, statement: str, record: Sequence[object], rows: int = 1) -> Exception | None:
    """Write a record, to so many `rows` at least; why it is not written, None where it is.

    Raises sqlite3.Error where that is not its fault.
    """
    if error_before := connection.undoing.get((statement, tuple(record))):
        return error_before
    connection.execute("SAVEPOINT record")
    try:
        written = connection.execute(statement, record).rowcount
        refused: Exception | None = None if written >= rows else sqlite3.IntegrityError(LEFT_OUT)
    except ERRORS as error:
        if not _may_be_a_record_s(error):
            raise
        if not connection.in_transaction:
            undone = connection.undoing[statement, tuple(record)] = Undone(str(error))
            raise undone from error
        refused = error
        connection.execute("ROLLBACK TO record")  # RAISE(FAIL) leaves what was written before it
    connection.execute("RELEASE record")
    return refused


def change(connection: Writer, statement: str, records: Iterable[Sequence[object]], rows: int = 0) -> None:
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


def takes_one(connection: Writer, statement: str, records: Iterable[Sequence[object]]) -> bool:
    """Whether the table takes one of some other records; nothing of it stays. Raises sqlite3.Error.

    Each is written twice: a row may be inserted where none is changed.
    """
    taken = False
    for record in records:
        connection.execute("SAVEPOINT other")
        taken = not any(refusal(connection, statement, record) for _ in range(2))
        connection.execute("ROLLBACK TO other")
        connection.execute("RELEASE other")
        if taken:
            break
    return taken


def _may_be_a_record_s(error: Exception) -> bool:
    """Whether it is not the file, nor another process, that made a statement fail."""
    return isinstance(error, BAD_RECORD) or getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_ERROR
