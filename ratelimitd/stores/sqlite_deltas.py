"""Deltas into the table `ratelimit` of a SQLite file, a batch in one transaction of the store's.

What becomes of a row, statements.py says; what is kept of windows that are over is written by sqlite_history.py.
"""

from collections.abc import Callable, Sequence

from ratelimitd.core.rows import Delta
from ratelimitd.stores import statements
from ratelimitd.stores.dialect import SQLite
from ratelimitd.stores.doubts import Doubts
from ratelimitd.stores.sqlite_writing import Writer, refusal, takes_one, write_all

_DIALECT = SQLite()


def store(
    connection: Writer,
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


def decide(connection: Writer, sql: Callable[[str], str], doubts: Doubts[Delta]) -> None:
    """Find out whether the records are at fault, or the table. Raises TableRefuses where it is the table."""
    if doubts.there_are:
        one = doubts.example
        there = connection.execute(sql(statements.SOME)).fetchall()
        upsert = sql(statements.upsert(_DIALECT, one))
        others = doubts.others(str(key) for (key,) in there)
        doubts.decide(takes_one=takes_one(connection, upsert, [one._replace(key=k, used=0).values for k in others]))
