"""What limits counted and refused, and what accounts use under them, as tables: of a replay and of a report."""

from collections.abc import Sequence

from ratelimitd.ctl import tables
from ratelimitd.ctl.answers import LimitUse
from ratelimitd.text import cut

SHOWN = 10
"""Accounts of each table; `--json` has all."""
KEY_CHARACTERS = 60


def limits(limits: Sequence[LimitUse]) -> str:
    """Each limit: how many it counted, and refused."""
    rows = [
        (
            limit.limit,
            _period(limit),
            tables.or_unlimited(limit.quota),
            limit.accounts,
            limit.recipients,
            or_unknown(limit.refused_accounts),
            or_unknown(limit.refused_recipients),
            _percent(limit.refused_recipients, limit.recipients),
        )
        for limit in limits
    ]
    thing = "MESSAGES" if all(map(_of_messages, limits)) else "RECIPIENTS"
    header = ("LIMIT", "PERIOD", "QUOTA", "ACCOUNTS", thing, "ACCOUNTS REFUSED", f"{thing} REFUSED", "%")
    return tables.table(header, rows, right=(2, 3, 4, 5, 6, 7))


def _period(limit: LimitUse) -> str:
    return limit.period + " sliding" * (limit.window == "sliding") + ", messages" * _of_messages(limit)


def _of_messages(limit: LimitUse) -> bool:
    return limit.counts == "messages"


def refused(limit: LimitUse) -> str:
    """The accounts that a limit refused most."""
    rows = [
        (cut(each.key, KEY_CHARACTERS), each.refused, time(each.first), each.worst) for each in limit.refused[:SHOWN]
    ]
    title = f"refused by limit {limit.limit}, most first\n"
    if not limit.enforced:
        title = f"would be refused by limit {limit.limit}, which is not enforced, most first\n"
    header = ("KEY", "REFUSED", "FIRST AT", "MOST TRIED IN A WINDOW")
    more = len(limit.refused) - len(rows)
    return title + tables.table(header, rows, right=(1, 3)) + (f"and {more:,} more: --json has all\n" if more else "")


def uses(limits: Sequence[LimitUse]) -> str:
    """What accounts use under each limit."""
    rows = [(limit.limit, *limit.quantiles.values()) for limit in limits]
    header = ("LIMIT", "HALF AT MOST", "90 % AT MOST", "99 % AT MOST", "MOST")
    return "what an account uses in a window in which it sends\n" + tables.table(header, rows, right=(1, 2, 3, 4))


def quotas(limits: Sequence[LimitUse]) -> str:
    """Which quota would have refused how many."""
    rows = [(limit.limit, *limit.quota_for.values()) for limit in limits]
    header = ("LIMIT", "1 % OF ACCOUNTS", "0.1 %", "NONE")
    return "the quota that would have refused\n" + tables.table(header, rows, right=(1, 2, 3))


def time(iso: str) -> str:
    """A time for people."""
    return iso[:16].replace("T", " ")


def or_unknown(number: int | None) -> int | str:
    """A number that may not be known."""
    return "-" if number is None else number


def _percent(part: int | None, whole: int) -> str:
    return f"{100 * part / whole:.1f}" if whole and part is not None else "-"
