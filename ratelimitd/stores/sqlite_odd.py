"""Rows of SQLite that say nothing readable of their use: found before a flush writes to them, and begun again.

What memory knows of them is not known here.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence

from ratelimitd.core.rows import Account, Delta, Row
from ratelimitd.stores import keys_by_limit, statements, unreadable
from ratelimitd.stores.dialect import SQLite

_DIALECT = SQLite()


def odd(connection: sqlite3.Connection, sql: Callable[[str], str], chunk: Sequence[Delta]) -> Iterator[Account]:
    """Those of the accounts whose row has a use, or an end of the window, that is no number. Raises sqlite3.Error."""
    for limit, keys in keys_by_limit(Account(delta.limit, delta.key) for delta in chunk).items():
        for (key,) in connection.execute(sql(statements.odd(_DIALECT, len(keys))), (limit, *keys)):
            yield Account(limit, key)


def begin_again(
    connection: sqlite3.Connection, sql: Callable[[str], str], accounts: Iterable[Account], rows: Iterable[Row]
) -> None:
    """Set the use to 0 in those of the accounts' rows that could not be read. Raises sqlite3.Error."""
    connection.executemany(sql(statements.reset(_DIALECT)), unreadable(accounts, rows))
