"""The rows of a server's database that somebody has changed, a page at a time; quotas given in a running window are
noted.

A cursor is a time of the database's own, in seconds, and the last row seen of that second.
"""

from collections.abc import Callable, Iterable, Sequence

import trio

from ratelimitd.core.rows import Row, slices
from ratelimitd.stores import Changes, Names, statements
from ratelimitd.stores.dialect import Dialect
from ratelimitd.stores.shared.session import Session
from ratelimitd.stores.shared.values import whole

OVERLAP_S = 30
"""A transaction may commit this long after the time it wrote as `updated`, and servers' clocks differ."""
PAGE = 5000
CHUNK = 250
"""Rows that are read, or noted, without a pause."""


class ChangedRows:
    """What was changed in one table; `rows` makes rows of values."""

    def __init__(self, dialect: Dialect, names: Names, rows: Callable[[Iterable[Sequence[object]]], list[Row]]) -> None:
        self._dialect = dialect
        self._names = names
        self._rows = rows

    def _sql(self, statement: str) -> str:
        return self._dialect.sql(self._names, statement)

    async def since(self, session: Session, cursor: str) -> Changes:
        """The rows that were changed since a cursor; with "" none, and a cursor for changes from now on."""
        d = self._dialect
        now = whole((await session.run(self._sql(f"SELECT {d.now}")))[0]) - OVERLAP_S
        if not cursor:
            return Changes([], str(now))
        time, _, seen = cursor.partition(" ")
        select = f'SELECT {d.row("id")} FROM "ratelimit" WHERE "updated"'
        same = f'{select} = {d.at("%s")} AND "id" > %s ORDER BY "id" LIMIT %s'
        later = f'{select} > {d.at("%s")} ORDER BY "updated", "id" LIMIT %s'
        found = list(await session.run(self._sql(same), (int(time), int(seen or 0), PAGE)))
        if len(found) < PAGE:
            found += await session.run(self._sql(later), (int(time), PAGE - len(found)))
        changed: list[Row] = []
        for chunk in slices(found, CHUNK):
            changed += self._rows(values[:-1] for values in chunk)
            await trio.lowlevel.checkpoint()
        for row in changed:
            if row.quota != row.seen and max(row.expiry, row.until) > now:
                await session.run(self._sql(statements.seen(d)), (row.key, row.limit))
        if len(found) < PAGE:
            return Changes(changed, str(now))
        return Changes(changed, f"{whole(found[-1][7:8])} {whole(found[-1][-1:])}", more=True)

    async def note_given(self, session: Session, last: int) -> int:
        """Note the next quotas that were given in windows that run, after a row's id; the last one's id, 0 for none."""
        d = self._dialect
        found = await session.run(self._sql(statements.given(d)), (last, CHUNK))
        ids = [whole(values) for values in found]
        if ids:
            await session.run(self._sql(statements.note(d, len(ids))), d.spread(ids))
        return ids[-1] if ids else 0
