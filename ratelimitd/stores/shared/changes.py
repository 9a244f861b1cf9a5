"""The rows of a server's database that somebody has changed, a page at a time; quotas given in a running window are
noted.

A cursor is a time of the database's own, in seconds, and the last row seen of that second.
"""

import trio

from ratelimitd.core.rows import Row, seconds, slices
from ratelimitd.stores import Changes, Cursor, Names, statements
from ratelimitd.stores.dialect import Dialect
from ratelimitd.stores.remarks import Remarks
from ratelimitd.stores.shared.reading import CHUNK, rows_of
from ratelimitd.stores.shared.session import DatabaseError, Session
from ratelimitd.stores.shared.values import whole

OVERLAP_S = 30
"""A transaction may commit this long after the time it wrote as `updated`, and servers' clocks differ."""
PAGE = 5000


class ChangedRows:
    """What was changed in one table. What is noted is noted outside of a transaction."""

    def __init__(self, dialect: Dialect, names: Names, remarks: Remarks) -> None:
        self._dialect = dialect
        self._names = names
        self._remarks = remarks

    def _sql(self, statement: str) -> str:
        return self._dialect.sql(self._names, statement)

    async def since(self, session: Session, cursor: Cursor | None) -> Changes:
        """The rows that were changed since a cursor; with None none, and a cursor for changes from now on."""
        d = self._dialect
        now = whole((await session.run(self._sql(f"SELECT {d.now}")))[0]) - OVERLAP_S
        if cursor is None:
            return Changes([], Cursor(now))
        select = f'SELECT {d.row("id")} FROM "ratelimit" WHERE "updated"'
        same = f'{select} = {d.at("%s")} AND "id" > %s ORDER BY "id" LIMIT %s'
        later = f'{select} > {d.at("%s")} ORDER BY "updated", "id" LIMIT %s'
        found = list(await session.run(self._sql(same), (cursor.time, cursor.id, PAGE)))
        if len(found) < PAGE:
            found += await session.run(self._sql(later), (cursor.time, PAGE - len(found)))
        changed: list[Row] = []
        for chunk in slices(found, CHUNK):
            changed += rows_of(self._remarks, (values[:-1] for values in chunk))
            await trio.lowlevel.checkpoint()
        await self._note_seen(session, [row for row in changed if max(row.expiry, row.until) > now])
        last = Cursor(seconds(found[-1][7]), found[-1][-1]) if found else cursor
        # A column that somebody has altered may have times that are none here: no page follows one that leads nowhere.
        if len(found) < PAGE or last == cursor or int(last.time) < int(cursor.time):
            return Changes(changed, Cursor(now))
        return Changes(changed, last, more=True)

    async def _note_seen(self, session: Session, rows: list[Row]) -> None:
        for row in rows:
            if row.quota != row.seen:
                try:
                    await session.run(self._sql(statements.seen(self._dialect)), (row.key, row.limit))
                except DatabaseError as error:
                    if not error.bad_record:
                        raise
                    self._remarks.refused(row.limit, row.key, error)

    async def note_given(self, session: Session, last: int) -> int:
        """Note the next quotas that were given in windows that run, after a row's id; the last one's id, 0 for none."""
        found = await session.run(self._sql(statements.given(self._dialect)), (last, CHUNK))
        ids = [whole(values) for values in found]
        if ids:
            await self._note(session, ids)
        return ids[-1] if ids else 0

    async def _note(self, session: Session, ids: list[int]) -> None:
        """A statement that fails changes nothing, so a row that the database refuses is found by halving them."""
        d = self._dialect
        try:
            await session.run(self._sql(statements.note(d, len(ids))), d.spread(ids))
        except DatabaseError as error:
            if not error.bad_record:
                raise
            if len(ids) == 1:
                self._remarks.refused("", f"the row with the id {ids[0]}", error)
                return
            half = len(ids) // 2
            await self._note(session, ids[:half])
            await self._note(session, ids[half:])
