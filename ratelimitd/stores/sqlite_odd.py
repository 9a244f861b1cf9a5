"""Rows of SQLite that say nothing readable of their use, found before a flush writes to them; and rows that the
database refuses to change.

What memory knows of them is not known here.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ratelimitd.core.rows import Account, Delta
from ratelimitd.stores import keys_by_limit, statements
from ratelimitd.stores.dialect import SQLite
from ratelimitd.stores.remarks import Remarks
from ratelimitd.stores.sqlite_writing import BAD_RECORD, Writer, refusal

_DIALECT = SQLite()


def odd(connection: sqlite3.Connection, sql: Callable[[str], str], chunk: Sequence[Delta]) -> Iterator[Account]:
    """Those of the accounts whose row has a use, or an end of the window, that is no number. Raises sqlite3.Error."""
    for limit, keys in keys_by_limit(Account(delta.limit, delta.key) for delta in chunk).items():
        for (key,) in connection.execute(sql(statements.odd(_DIALECT, len(keys))), (limit, *keys)):
            yield Account(limit, key)


def change_row(
    connection: Writer, remarks: Remarks, account: Account, statement: str, values: Sequence[object]
) -> None:
    """Change an account's row, if it has one; where the database refuses that, it stays as it is, and it is said."""
    if error := refusal(connection, statement, values, rows=0):
        remarks.refused(account.limit, account.key, error)


@contextmanager
def each(connection: sqlite3.Connection, remarks: Remarks, limit: str, key: str) -> Iterator[None]:
    """Change one row of many: where the database refuses that, it stays as it is, and that is said."""
    connection.execute("SAVEPOINT row")
    try:
        yield
    except BAD_RECORD as error:
        connection.execute("ROLLBACK TO row")
        remarks.refused(limit, key, error)
    connection.execute("RELEASE row")
