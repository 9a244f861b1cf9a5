"""The runs of daemons that have stored something in a SQLite file: the last segment of each, those to be forgotten."""

import sqlite3
from collections.abc import Callable, Collection

from ratelimitd.stores import RUNS_KEPT_DAYS, recorded_segment, statements
from ratelimitd.stores.dialect import SQLite
from ratelimitd.stores.remarks import Remarks
from ratelimitd.stores.sqlite_odd import each
from ratelimitd.stores.sqlite_writing import Writer, refusal

_DAY_S = 86_400
_DIALECT = SQLite()


def recorded(connection: sqlite3.Connection, sql: Callable[[str], str], node: str) -> int:
    """The last segment of a run that is stored; 0 for none, NO_SEGMENT where that is no number."""
    return recorded_segment(connection.execute(sql(statements.RECORDED), (node,)).fetchall())


def record(writer: Writer, sql: Callable[[str], str], node: str, segment: int) -> None:
    """Record a run's last segment. Raises sqlite3.Error, also where a trigger leaves it out."""
    error = refusal(writer, sql(statements.record(_DIALECT)), (node, segment))
    if error is not None:
        raise error


def forget(
    writer: sqlite3.Connection, sql: Callable[[str], str], remarks: Remarks, but: Collection[str], now: int
) -> None:
    """Forget those that have stored nothing for RUNS_KEPT_DAYS at `now`, in seconds since 1970, except some."""
    ended = sql(statements.ended_runs(_DIALECT))
    for (node,) in writer.execute(ended, (now, RUNS_KEPT_DAYS * _DAY_S)).fetchall():
        if node not in but:
            with each(writer, remarks, "", node):
                writer.execute(sql(statements.FORGET_RUN), (node,))
