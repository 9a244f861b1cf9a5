"""The rows of a MySQL database that somebody has changed, a page at a time; quotas given in a running window are noted.

A cursor is a time of the database's own, and the last row seen of that second.
"""

from collections.abc import Callable, Iterable, Sequence

import trio

from ratelimitd.core.rows import Row, slices
from ratelimitd.stores import Changes, Names
from ratelimitd.stores.mysql import statements
from ratelimitd.stores.mysql.session import Session
from ratelimitd.stores.mysql.values import whole

OVERLAP_S = 30
"""A transaction may commit this long after the time it wrote as `updated`, and servers' clocks differ."""
PAGE = 5000
CHUNK = 250
"""Rows that are read, or noted, without a pause."""


async def since(
    session: Session, names: Names, rows: Callable[[Iterable[Sequence[object]]], list[Row]], cursor: str
) -> Changes:
    """The rows that were changed since a cursor, made by `rows`; with "" none, and a cursor for changes from now on."""
    now = whole((await session.run("SELECT UNIX_TIMESTAMP()"))[0]) - OVERLAP_S
    if not cursor:
        return Changes([], str(now))
    time, _, seen = cursor.partition(" ")
    select = f"SELECT {statements.ROW}, `id` FROM `ratelimit` WHERE `updated` "
    same = select + "= FROM_UNIXTIME(%s) AND `id` > %s ORDER BY `id` LIMIT %s"
    later = select + "> FROM_UNIXTIME(%s) ORDER BY `updated`, `id` LIMIT %s"
    found = list(await session.run(names.apply(same, "`"), (int(time), int(seen or 0), PAGE)))
    if len(found) < PAGE:
        found += await session.run(names.apply(later, "`"), (int(time), PAGE - len(found)))
    changed: list[Row] = []
    for chunk in slices(found, CHUNK):
        changed += rows(values[:-1] for values in chunk)
        await trio.lowlevel.checkpoint()
    for row in changed:
        if row.quota != row.seen and max(row.expiry, row.until) > now:
            await session.run(names.apply(statements.SEEN, "`"), (row.key, row.limit))
    if len(found) < PAGE:
        return Changes(changed, str(now))
    return Changes(changed, f"{whole(found[-1][7:8])} {whole(found[-1][-1:])}", more=True)


async def note_given(session: Session, names: Names, last: int) -> int:
    """Note the next quotas that were given in windows that run, after a row's id; the last one's id, 0 for none."""
    found = await session.run(names.apply(statements.GIVEN, "`"), (last, CHUNK))
    ids = [whole(values) for values in found]
    if ids:
        await session.run(names.apply(statements.note(len(ids)), "`"), ids)
    return ids[-1] if ids else 0
