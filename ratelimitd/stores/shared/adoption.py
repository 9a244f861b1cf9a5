"""Rows of a server's database adopted whose keys are written in another way, and rows that the database refuses to
change: within a transaction of the store's.

What becomes of two rows of one account, survey.py says.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from ratelimitd.core.rows import Account
from ratelimitd.stores import statements
from ratelimitd.stores.batches import batches
from ratelimitd.stores.dialect import Dialect
from ratelimitd.stores.remarks import Remarks
from ratelimitd.stores.shared.deltas import store
from ratelimitd.stores.shared.history import SharedHistory
from ratelimitd.stores.shared.reading import CHUNK, LOCK, StoredRows
from ratelimitd.stores.shared.session import DatabaseError, Session
from ratelimitd.stores.survey import Rename, adoption, repairs


@asynccontextmanager
async def each(session: Session, remarks: Remarks, limit: str, key: str) -> AsyncIterator[None]:
    """Change one row of many: where the database refuses that, it stays as it is, and that is said."""
    await session.save()
    try:
        yield
    except (DatabaseError, UnicodeEncodeError) as error:
        if isinstance(error, DatabaseError) and not error.bad_record:
            raise
        await session.go_back()
        remarks.refused(limit, key, error)


class Adopter:
    """Makes rows their accounts'."""

    def __init__(self, sql: Callable[[str], str], rows: StoredRows, history: SharedHistory, remarks: Remarks) -> None:
        self._sql = sql
        self._rows = rows
        self._history = history
        self._remarks = remarks

    async def adopt(self, session: Session, dialect: Dialect, renames: Sequence[Rename], now: int) -> None:
        """Each by itself: one that the database refuses stays as it is."""
        accounts = [Account(one.limit, key) for one in renames for key in (one.new, one.old)]
        left_out: set[Account] = set()
        rows = await self._rows.select(session, accounts, LOCK, left_out)
        if repaired := repairs(renames, left_out, self._history.kept.sliding):
            for batch in batches(repaired, CHUNK):
                await store(session, self._sql, dialect, batch)
            rows = await self._rows.select(session, accounts, LOCK)
        there = await self._history.with_parts(session, rows, now)
        stored = {Account(row.limit, row.key): row for row in there}
        for rename in renames:
            if found := adoption(rename, stored, now):
                async with each(session, self._remarks, rename.limit, rename.old):
                    await self._history.move(session, rename, now)
                    for name, values in found.steps:
                        await session.run(self._sql(statements.step(dialect, name)), values)
                    stored[Account(rename.limit, rename.new)] = found.row
