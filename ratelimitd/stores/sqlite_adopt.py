"""Rows of a SQLite file read, and those adopted whose keys are written in another way: within a transaction.

What becomes of two rows of one account, survey.py says.
"""

import sqlite3
from collections.abc import Callable, Iterable, Sequence

from ratelimitd.core.rows import Account, Row, slices
from ratelimitd.stores import keys_by_limit, statements
from ratelimitd.stores.batches import batches
from ratelimitd.stores.dialect import SQLite
from ratelimitd.stores.remarks import Remarks
from ratelimitd.stores.sqlite_deltas import store
from ratelimitd.stores.sqlite_history import SQLiteHistory
from ratelimitd.stores.sqlite_odd import each
from ratelimitd.stores.sqlite_writing import Writer
from ratelimitd.stores.survey import Rename, adoption, repairs

CHUNK = 250
_DIALECT = SQLite()

Sql = Callable[[str], str]


def select(
    connection: sqlite3.Connection,
    sql: Sql,
    remarks: Remarks,
    accounts: Iterable[Account],
    left_out: set[Account] | None = None,
) -> list[Row]:
    """The rows of these accounts; those whose row makes no sense are added to `left_out`."""
    rows: list[Row] = []
    for limit, keys in keys_by_limit(accounts).items():
        for chunk in slices(keys, CHUNK):
            found = connection.execute(sql(statements.select(_DIALECT, len(chunk))), (limit, *chunk))
            rows += remarks.rows(found, left_out)
    return rows


def adopt(
    connection: Writer,
    sql: Sql,
    history: SQLiteHistory,
    remarks: Remarks,
    renames: Sequence[Rename],
    now: int,
) -> None:
    """Make rows their accounts', each by itself: one that the database refuses stays as it is."""
    accounts = [Account(one.limit, key) for one in renames for key in (one.new, one.old)]
    left_out: set[Account] = set()
    rows = select(connection, sql, remarks, accounts, left_out)
    if repaired := repairs(renames, left_out, history.kept.sliding):
        for batch in batches(repaired, CHUNK):
            store(connection, sql, batch)
        rows = select(connection, sql, remarks, accounts)
    stored = {Account(row.limit, row.key): row for row in history.with_parts(connection, rows, now)}
    for rename in renames:
        if found := adoption(rename, stored, now):
            with each(connection, remarks, rename.limit, rename.old):
                history.move(connection, rename, now)
                for name, values in found.steps:
                    connection.execute(sql(statements.step(_DIALECT, name)), values)
                stored[Account(rename.limit, rename.new)] = found.row
