"""What others have done to the rows of the SQLite file: those that they changed, a page at a time, by the time that
stands in them, and what can never count anybody.

A cursor is a time of the database's own; between pages also the last row's id, and the cursor for after the last page.
"""

import sqlite3

from ratelimitd.stores import Changes, Cursor, Names
from ratelimitd.stores import sqlite_statements as statements
from ratelimitd.stores.remarks import Remarks
from ratelimitd.stores.survey import EXAMPLES, Survey

PAGE = 5000
OVERLAP_S = 10
"""A transaction may commit this long after the time it has written as `updated`."""


def since(reader: sqlite3.Connection, names: Names, remarks: Remarks, cursor: Cursor | None) -> Changes:
    """The rows that were changed since a cursor; with None none, and a cursor for changes from now on."""
    (now,) = reader.execute(f"SELECT datetime('now', '-{OVERLAP_S} seconds')").fetchone()
    if cursor is None:
        return Changes([], Cursor(now))
    select = names.apply(statements.CHANGES, '"')
    found = reader.execute(select, (cursor.time, cursor.id, PAGE)).fetchall()
    rows = remarks.rows(values[:-2] for values in found)
    begun = cursor.begun or now
    if len(found) < PAGE:
        return Changes(rows, Cursor(begun))
    *_, updated, place = found[-1]
    return Changes(rows, Cursor(updated, place, begun), more=True)


def survey(reader: sqlite3.Connection, names: Names) -> Survey:
    """What stands in the table."""
    odd = [
        row
        for statement in (statements.NOT_NORMAL, statements.NEVER_USED, statements.OF_DOMAINS)
        for row in reader.execute(names.apply(statement, '"'), (EXAMPLES,)).fetchall()
    ]
    return Survey.of(reader.execute(names.apply(statements.LIMITS, '"')).fetchall(), odd)
