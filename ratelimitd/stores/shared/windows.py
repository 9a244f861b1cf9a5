"""When windows end, as the nodes of a database see it: recorded in ratelimit_window, for all to compare."""

from collections.abc import Sequence

from ratelimitd.errors import StoreReplaced, StoreUnsuitable
from ratelimitd.stores import Names, ZoneWindow
from ratelimitd.stores.dialect import Dialect
from ratelimitd.stores.shared.session import Session

RECENT_S = 180
"""Nodes record theirs every minute; who has not for so long does not count."""

_FORGET = 'DELETE FROM "ratelimit_window" WHERE "limit_name" = %s AND "timezone" = %s'


def _record(d: Dialect) -> str:
    return f"""
INSERT INTO "ratelimit_window" ("limit_name", "timezone", "expiry") VALUES (%s, %s, %s)
{d.conflict("limit_name", "timezone")} "expiry" = {d.new("expiry")}, "updated" = {d.touch}
"""


def _recent(d: Dialect) -> str:
    return f"""
SELECT "limit_name", "timezone", "expiry" FROM "ratelimit_window"
WHERE "updated" > {d.at(f"{d.now} - %s")} ORDER BY "limit_name", "timezone" LIMIT 1000
"""


async def compare(
    session: Session, d: Dialect, names: Names, mine: Sequence[ZoneWindow], gone: Sequence[ZoneWindow]
) -> list[ZoneWindow]:
    """As `Store.compare`; nothing where the table is missing or the account may not use it."""
    try:
        for one in gone:
            await session.run(d.sql(names, _FORGET), one[:2])
        for one in mine:
            await session.run(d.sql(names, _record(d)), one)
        found = await session.run(d.sql(names, _recent(d)), (RECENT_S,))
    except (StoreReplaced, StoreUnsuitable):
        return []
    return [ZoneWindow(str(limit), str(timezone), int(expiry)) for limit, timezone, expiry in found]
