"""When windows end, as the nodes of a database see it: recorded in ratelimit_window, for all to compare."""

from collections.abc import Sequence

from ratelimitd.errors import StoreReplaced, StoreUnsuitable
from ratelimitd.stores import Names, ZoneWindow
from ratelimitd.stores.mysql.session import Session

RECENT_S = 180
"""Nodes record theirs every minute; who has not for so long does not count."""

_RECORD = """
INSERT INTO `ratelimit_window` (`limit_name`, `timezone`, `expiry`) VALUES (%s, %s, %s)
ON DUPLICATE KEY UPDATE `expiry` = VALUES(`expiry`), `updated` = CURRENT_TIMESTAMP
"""
_FORGET = "DELETE FROM `ratelimit_window` WHERE `limit_name` = %s AND `timezone` = %s"
_RECENT = """
SELECT `limit_name`, `timezone`, `expiry` FROM `ratelimit_window`
WHERE `updated` > CURRENT_TIMESTAMP - INTERVAL %s SECOND ORDER BY `limit_name`, `timezone` LIMIT 1000
"""


async def compare(
    session: Session, names: Names, mine: Sequence[ZoneWindow], gone: Sequence[ZoneWindow]
) -> list[ZoneWindow]:
    """As `Store.compare`; nothing where the table is missing or the account may not use it."""
    try:
        for one in gone:
            await session.run(names.apply(_FORGET, "`"), one[:2])
        for one in mine:
            await session.run(names.apply(_RECORD, "`"), one)
        found = await session.run(names.apply(_RECENT, "`"), (RECENT_S,))
    except (StoreReplaced, StoreUnsuitable):
        return []
    return [ZoneWindow(str(limit), str(timezone), int(expiry)) for limit, timezone, expiry in found]
