"""The table ratelimit_history of a SQLite file: written and read within a transaction of the store's.

What it must hold, history.py says.
"""

import sqlite3
from collections.abc import Callable, Iterable, Sequence

from ratelimitd.core.rows import Account, Delta, Known, Row
from ratelimitd.stores import Names
from ratelimitd.stores import history_statements as statements
from ratelimitd.stores.dialect import SQLite
from ratelimitd.stores.doubts import Doubts
from ratelimitd.stores.history import (
    FAR_S,
    STEP,
    Charges,
    How,
    Kept,
    Settled,
    Stood,
    Values,
    as_it_counts,
    known_charges,
    of_another_kind,
    parts_of,
    say_odd,
    say_refused,
    settling,
    values_of,
)
from ratelimitd.stores.remarks import Remarks
from ratelimitd.stores.sqlite_odd import change_row
from ratelimitd.stores.sqlite_writing import Writer, refusal, takes_one, write_all
from ratelimitd.stores.statements import SOME
from ratelimitd.stores.survey import Rename

_DIALECT = SQLite()
_ADD = statements.write(_DIALECT, statements.add(_DIALECT))
_AT_LEAST = statements.write(_DIALECT, statements.at_least(_DIALECT))
_SET = statements.write(_DIALECT, statements.just(_DIALECT))


class SQLiteHistory:
    """What is kept of windows and parts. `kept` says how much; nothing is read or written where that is nothing."""

    def __init__(self, names: Names, remarks: Remarks) -> None:
        self._names = names
        self._remarks = remarks
        self.exists = True  # whether there is such a table
        self.configure(Kept())

    def configure(self, kept: Kept) -> None:
        """Keep this from now on."""
        self.kept = kept
        self._may_have_old = True

    def _sql(self, statement: str) -> str:
        return _DIALECT.sql(self._names, statement)

    def with_parts(self, connection: sqlite3.Connection, rows: Iterable[Row], now: int) -> list[Row]:
        """These rows, those that count in parts with their parts that leave after `now`."""
        if not self.exists:
            return [row._replace(in_parts=None) for row in rows]
        return [
            as_it_counts(row._replace(parts=self._parts(connection, row, now)), now) if row.counts_in_parts else row
            for row in rows
        ]

    def _parts(self, connection: sqlite3.Connection, row: Row, now: int) -> Stood:
        found = connection.execute(self._sql(statements.PARTS), (row.key, row.limit, now, now + FAR_S))
        return parts_of(row.limit, row.key, found.fetchall(), self._remarks)

    def add(
        self,
        connection: Writer,
        batch: Sequence[Delta],
        refused: Iterable[tuple[Delta, str]],
        charges: Charges,
    ) -> None:
        """Add a batch to the history, without what the table `ratelimit` refused; what is of sliding limits goes to
        `charges`, for `settle`."""
        if batch and self.kept.includes(batch[0]):
            self._write(connection, _ADD, charges.take(batch, refused), charges.doubts)

    def restore(
        self,
        connection: Writer,
        known: Iterable[Known],
        now: int,
        select: Callable[[Iterable[Account]], list[Row]],
    ) -> None:
        """Have the history hold at least what is known; `select` finds rows."""
        known = list(known)
        rows = select([Account(one.limit, one.key) for one, *_ in known])
        charges, fixed = known_charges(known, self.kept, rows, now)
        self._write(connection, _AT_LEAST, values_of(fixed))
        self.settle(connection, charges, rows, How.AT_LEAST)

    def settle(self, connection: Writer, charges: Charges, rows: Iterable[Row], how: How = How.ADD) -> list[Row]:
        """The rows, with what is charged to the parts of sliding limits written, and what these rows are then."""
        found = {Account(row.limit, row.key): row for row in rows}
        doubts = charges.doubts if how is How.ADD else None
        for chunk in charges.chunks():
            there = {account.key: found[account] for account in chunk.accounts if account in found}
            self._write(connection, _AT_LEAST if how is How.AT_LEAST else _ADD, values_of(chunk.alone(there)), doubts)
            for account in chunk.accounts:
                if row := there.get(account.key):
                    row = row._replace(parts=self._parts(connection, row, chunk.now))
                    found[account] = self._settle(connection, chunk.settle(row, self.kept, how=how), doubts)
        if doubts:
            self.decide(connection, doubts)
        return list(found.values())

    def settle_for_good(
        self,
        connection: Writer,
        present: Delta,
        after: int,
        select: Callable[[Iterable[Account]], list[Row]],
    ) -> int:
        """As `Store.settle`, within a transaction; `select` finds rows."""
        found = connection.execute(self._sql(statements.others(_DIALECT)), of_another_kind(present, after)).fetchall()
        rows = select([Account(present.limit, key) for _, key in found])
        self.settle(connection, settling(present, rows), rows, How.FOR_GOOD)
        return int(found[-1][0]) if found else 0

    def _settle(self, connection: Writer, settled: Settled, doubts: Doubts[Values] | None) -> Row:
        row = settled.row
        self._write(connection, _SET, [(row.limit, row.key, *part) for part in settled.written.items()], doubts)
        for leave in settled.gone:
            if refusal(connection, self._sql(statements.DELETE), (row.key, row.limit, leave)):
                self._write(connection, _SET, [(row.limit, row.key, leave, 0)])
        self._write(connection, _ADD, [(row.limit, row.key, *part) for part in settled.added.items()], doubts)
        values = row.used, row.in_parts, row.expiry, row.key, row.limit
        change_row(connection, self._remarks, Account(row.limit, row.key), self._sql(statements.SET_USE), values)
        return row

    def move(self, connection: Writer, rename: Rename, now: int) -> None:
        """Make the parts that count the account's whose row this becomes."""
        limit, old, new = rename[:3]
        if limit in self.kept.sliding:
            connection.execute(self._sql(statements.move(_DIALECT)), (new, old, limit, now))
            connection.execute(self._sql(statements.MOVED), (old, limit, now))

    def _write(
        self,
        connection: Writer,
        statement: str,
        values: Sequence[Values],
        doubts: Doubts[Values] | None = None,
    ) -> None:
        """Write rows; one that the database refuses is left out, and that is said. `doubts`: of the flush; without,
        whatever is refused is at fault itself."""
        if not values:
            return
        insert = self._sql(statement)
        if write_all(connection, insert, values):
            if doubts:
                doubts.took()
                self._say_refused(doubts)
            return
        for one in values:
            error = refusal(connection, insert, one)
            if doubts and error is None:
                doubts.took()
            elif doubts and error is not None:
                doubts.doubt(one[:2], one, error)
                if doubts.are_many:
                    self.decide(connection, doubts)
            elif error is not None:
                say_refused(self._remarks, one, str(error))
        if doubts:
            self._say_refused(doubts)

    def decide(self, connection: Writer, doubts: Doubts[Values]) -> None:
        """Find out whether records are at fault, or the table. Raises TableRefuses where it is the table."""
        if doubts.there_are:
            limit, _, expiry, _ = doubts.example
            there = connection.execute(self._sql(SOME)).fetchall()
            others = doubts.others(str(key) for (key,) in there)
            records = [(limit, key, expiry, 0) for key in others]
            doubts.decide(takes_one=takes_one(connection, self._sql(_ADD), records))
        self._say_refused(doubts)

    def _say_refused(self, doubts: Doubts[Values]) -> None:
        for values, error in doubts.blamed():
            say_refused(self._remarks, values, str(error))

    def forget(self, connection: sqlite3.Connection, now: int) -> bool:
        """Forget rows that are kept no longer, at most STEP; whether there may be more."""
        if not self._may_have_old:
            return False
        kept = self.kept
        ((here,),) = connection.execute(self._sql(f"SELECT {_DIALECT.now}"))
        gone = connection.execute(self._sql(statements.forget(_DIALECT)), (kept.gone(min(now, here)),)).rowcount
        if gone == STEP:
            return True
        for limit, key, expiry, used in connection.execute(self._sql(statements.far(_DIALECT)), (here + FAR_S,)):
            say_odd(self._remarks, limit, key, expiry, used)
        if self.kept is kept:  # no reload meanwhile
            self._may_have_old = kept.is_needed or bool(connection.execute(self._sql(statements.ANY)).fetchall())
        return False
