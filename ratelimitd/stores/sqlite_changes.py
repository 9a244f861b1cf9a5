"""What others have done to the rows of the SQLite file: those that they changed, a page at a time, by the time that
stands in them, and what can never count anybody.

A cursor is a time of the database's own; between pages also the last row's id, and the cursor for after the last page.
"""

import sqlite3
from collections.abc import Callable, Iterable, Sequence

from ratelimitd.stores import Changes, Cursor, Names, statements
from ratelimitd.stores.dialect import SQLite
from ratelimitd.stores.remarks import Remarks
from ratelimitd.stores.sqlite_odd import each
from ratelimitd.stores.survey import EXAMPLES, Survey

PAGE = 5000
OVERLAP_S = 10
"""A transaction may commit this long after the time it has written as `updated`."""

_DIALECT = SQLite()
# A value that is no date is above or below all of them: such a row would be found at every page. GLOB sees nothing of
# what stands behind a NUL.
_CHANGES = f"""
SELECT {_DIALECT.row()}, "updated", "id" FROM "ratelimit"
WHERE ("updated", "id") > (%s, %s) AND typeof("updated") = 'text' AND "updated" NOT GLOB '*[^-0-9:. TZ+]*'
AND length("updated") = length(CAST("updated" AS BLOB))
ORDER BY "updated", "id" LIMIT %s
"""


def since(reader: sqlite3.Connection, names: Names, remarks: Remarks, cursor: Cursor | None) -> Changes:
    """The rows that were changed since a cursor; with None none, and a cursor for changes from now on."""
    (now,) = reader.execute(f"SELECT datetime('now', '-{OVERLAP_S} seconds')").fetchone()
    if cursor is None:
        return Changes([], Cursor(now))
    select = _DIALECT.sql(names, _CHANGES)
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
        for statement in statements.written_wrongly(_DIALECT)
        for row in reader.execute(_DIALECT.sql(names, statement), (EXAMPLES,)).fetchall()
    ]
    return Survey.of(reader.execute(_DIALECT.sql(names, statements.limits(_DIALECT))).fetchall(), odd)


def given_since(reader: sqlite3.Connection, sql: Callable[[str], str], last: int, count: int) -> list[tuple[int]]:
    """The ids, after the last, of so many rows whose quota was given in a window that runs, and is not noted."""
    return reader.execute(sql(statements.given(_DIALECT)), (last, count)).fetchall()


def note(writer: sqlite3.Connection, remarks: Remarks, statement: str, values: Iterable[Sequence[object]]) -> None:
    """Note quotas, of rows by their id or their key and limit."""
    for some in values:
        with each(writer, remarks, "", ", ".join(map(str, some))):
            writer.execute(statement, tuple(some))
