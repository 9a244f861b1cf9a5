"""The rows of a MySQL database that somebody has changed, a page at a time; quotas given in a running window are noted.

A cursor is a time of the database's own, and the last row seen of that second.
"""

import trio

from ratelimitd.core.rows import Row, seconds, slices
from ratelimitd.stores import Changes, Cursor, Names
from ratelimitd.stores.mysql import statements
from ratelimitd.stores.mysql.session import DatabaseError, Session
from ratelimitd.stores.mysql.values import text, whole
from ratelimitd.stores.remarks import Remarks

OVERLAP_S = 30
"""A transaction may commit this long after the time it wrote as `updated`, and servers' clocks differ."""
PAGE = 5000
CHUNK = 250
"""Rows that are read, or noted, without a pause."""


async def since(session: Session, names: Names, remarks: Remarks, cursor: Cursor | None) -> Changes:
    """The rows that were changed since a cursor; with None none, and a cursor for changes from now on."""
    now = whole((await session.run("SELECT UNIX_TIMESTAMP()"))[0]) - OVERLAP_S
    if cursor is None:
        return Changes([], Cursor(now))
    select = f"SELECT {statements.ROW}, `id` FROM `ratelimit` WHERE `updated` "
    same = select + "= FROM_UNIXTIME(%s) AND `id` > %s ORDER BY `id` LIMIT %s"
    later = select + "> FROM_UNIXTIME(%s) ORDER BY `updated`, `id` LIMIT %s"
    found = list(await session.run(names.apply(same, "`"), (cursor.time, cursor.id, PAGE)))
    if len(found) < PAGE:
        found += await session.run(names.apply(later, "`"), (cursor.time, PAGE - len(found)))
    changed: list[Row] = []
    for chunk in slices(found, CHUNK):
        changed += remarks.rows((*map(text, values[:2]), *values[2:-1]) for values in chunk)
        await trio.lowlevel.checkpoint()
    for row in changed:
        if row.quota != row.seen and max(row.expiry, row.until) > now:
            try:
                await session.run(names.apply(statements.SEEN, "`"), (row.key, row.limit))
            except DatabaseError as error:
                if not error.bad_record:
                    raise
                remarks.refused(row.limit, row.key, error)
    last = Cursor(seconds(found[-1][7]), found[-1][-1]) if found else cursor
    # A column that somebody has altered may have times that are none here: no page follows one that leads nowhere.
    if len(found) < PAGE or last == cursor or int(last.time) < int(cursor.time):
        return Changes(changed, Cursor(now))
    return Changes(changed, last, more=True)


async def note_given(session: Session, names: Names, remarks: Remarks, last: int) -> int:
    """Note the next quotas that were given in windows that run, after a row's id; the last one's id, 0 for none."""
    found = await session.run(names.apply(statements.GIVEN, "`"), (last, CHUNK))
    ids = [whole(values) for values in found]
    if ids:
        await _note(session, names, remarks, ids)
    return ids[-1] if ids else 0


async def _note(session: Session, names: Names, remarks: Remarks, ids: list[int]) -> None:
    """A statement that fails changes nothing, so a row that the database refuses is found by halving them."""
    try:
        await session.run(names.apply(statements.note(len(ids)), "`"), ids)
    except DatabaseError as error:
        if not error.bad_record:
            raise
        if len(ids) == 1:
            remarks.refused("", f"the row with the id {ids[0]}", error)
            return
        half = len(ids) // 2
        await _note(session, names, remarks, ids[:half])
        await _note(session, names, remarks, ids[half:])
