"""Until when `ratelimitctl set` gives a quota: times as people write them, in the time zone of the limit."""

from datetime import datetime

from ratelimitd.control.commands import Refused, Set
from ratelimitd.core.limits import Limit
from ratelimitd.core.rows import MAX_USED

LATEST = MAX_USED
"""The width of the column `until`: seconds since 1970, to the year 2106."""


def end_of(command: Set, limit: Limit, now: int) -> int:
    """When the quota ends, in seconds since 1970; 0: nothing is said of that. Raises Refused."""
    if command.until is None and command.for_s is None:
        return 0
    if command.persist or (command.until is not None and command.for_s is not None):
        raise Refused("--persist, --until and --for exclude each other")
    if command.until is None:
        end = now + (command.for_s or 0)
    else:
        end = _instant(command.until, limit)
        if end <= now:
            raise Refused(f"--until {command.until}: that is over; it is {limit.period.describe(now)}")
    if end > LATEST:
        raise Refused(f"the quota would end after {limit.period.describe(LATEST)}: --persist is for good")
    return end


def _instant(text: str, limit: Limit) -> int:
    """The second that a date or a time means."""
    try:
        found = datetime.fromisoformat(text.strip())
        return int((found if found.tzinfo is not None else found.replace(tzinfo=limit.period.zone)).timestamp())
    except (ValueError, OverflowError) as error:
        raise Refused(f'--until {text}: write it as "2026-12-01 18:00", or "2026-12-01" for its midnight') from error
