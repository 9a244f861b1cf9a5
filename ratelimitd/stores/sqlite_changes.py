"""What others have done to the rows of the SQLite file: those that they changed, a page at a time, by the time that
stands in them, and what can never count anybody.

A cursor is a time of the database's own; between pages also the last row's id, and the cursor for after the last page.
"""

import sqlite3

from ratelimitd.stores import Changes, Names, statements
from ratelimitd.stores.dialect import SQLite
from ratelimitd.stores.remarks import Remarks
from ratelimitd.stores.survey import EXAMPLES, Survey

PAGE = 5000
OVERLAP_S = 10
"""A transaction may commit this long after the time it has written as `updated`."""

_DIALECT = SQLite()
# A value that is no date is above or below all of them: such a row would be found at every page, or break the cursor.
_CHANGES = f"""
SELECT {_DIALECT.row()}, "updated", "id" FROM "ratelimit"
WHERE ("updated", "id") > (%s, %s) AND typeof("updated") = 'text' AND "updated" NOT GLOB '*[^-0-9:. TZ+]*'
ORDER BY "updated", "id" LIMIT %s
"""


def since(reader: sqlite3.Connection, names: Names, remarks: Remarks, cursor: str) -> Changes:
    """The rows that were changed since a cursor; with "" none, and a cursor for changes from now on."""
    (now,) = reader.execute(f"SELECT datetime('now', '-{OVERLAP_S} seconds')").fetchone()
    if not cursor:
        return Changes([], now)
    time, _, place = cursor.partition("|")
    last, _, begun = place.partition("|")
    select = _DIALECT.sql(names, _CHANGES)
    found = reader.execute(select, (time, int(last or 0), PAGE)).fetchall()
    rows = remarks.rows(values[:-2] for values in found)
    begun = begun or now
    if len(found) < PAGE:
        return Changes(rows, begun)
    return Changes(rows, f"{found[-1][-2]}|{found[-1][-1]}|{begun}", more=True)


def survey(reader: sqlite3.Connection, names: Names) -> Survey:
    """What stands in the table."""
    odd = [
        row
        for statement in statements.written_wrongly(_DIALECT)
        for row in reader.execute(_DIALECT.sql(names, statement), (EXAMPLES,)).fetchall()
    ]
    return Survey.of(reader.execute(_DIALECT.sql(names, statements.limits(_DIALECT))).fetchall(), odd)
