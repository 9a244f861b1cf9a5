"""The answer of `ratelimitctl replay` for people. Nothing in it can control the terminal."""

from collections.abc import Sequence

from ratelimitd.ctl import tables
from ratelimitd.ctl.answers import LimitUse, Replayed
from ratelimitd.text import cut, escape

SHOWN = 10
"""Accounts of each limit; `--json` has all."""
_KEY_CHARACTERS = 60


def text(answer: Replayed) -> str:
    """What was read, whom each limit would have refused, what accounts use, which quota would have refused how many."""
    parts = [_read(answer), _limits(answer.limits)]
    parts += [_refused(limit) for limit in answer.limits if limit.refused]
    if any(limit.accounts for limit in answer.limits):
        parts += [_uses(answer.limits), _quotas(answer.limits)]
    if answer.remarks:
        parts.append("".join(f"{escape(remark)}\n" for remark in answer.remarks))
    return "\n".join(parts)


def _read(answer: Replayed) -> str:
    if answer.from_ is None or answer.to is None:
        return f"{answer.lines:,} lines, none of them of a mail log\n"
    line = (
        f"{_time(answer.from_)} to {_time(answer.to)}: {answer.lines:,} lines, {answer.messages:,} messages with a "
        f"login, {answer.recipients:,} recipients\n"
    )
    return line if answer.messages else line + "Postfix logs a login as sasl_username=; there is none.\n"


def _limits(limits: Sequence[LimitUse]) -> str:
    rows = [
        (
            limit.limit,
            _period(limit),
            tables.or_unlimited(limit.quota),
            limit.accounts,
            limit.recipients,
            limit.refused_accounts,
            limit.refused_recipients,
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


def _refused(limit: LimitUse) -> str:
    rows = [
        (cut(each.key, _KEY_CHARACTERS), each.refused, _time(each.first), each.worst) for each in limit.refused[:SHOWN]
    ]
    title = f"refused by limit {limit.limit}, most first\n"
    if not limit.enforced:
        title = f"would be refused by limit {limit.limit}, which is not enforced, most first\n"
    header = ("KEY", "REFUSED", "FIRST AT", "MOST TRIED IN A WINDOW")
    more = len(limit.refused) - len(rows)
    return title + tables.table(header, rows, right=(1, 3)) + (f"and {more:,} more: --json has all\n" if more else "")


def _uses(limits: Sequence[LimitUse]) -> str:
    rows = [(limit.limit, *limit.quantiles.values()) for limit in limits]
    header = ("LIMIT", "HALF AT MOST", "90 % AT MOST", "99 % AT MOST", "MOST")
    return "what an account uses in a window in which it sends\n" + tables.table(header, rows, right=(1, 2, 3, 4))


def _quotas(limits: Sequence[LimitUse]) -> str:
    rows = [(limit.limit, *limit.quota_for.values()) for limit in limits]
    header = ("LIMIT", "1 % OF ACCOUNTS", "0.1 %", "NONE")
    return "the quota that would have refused\n" + tables.table(header, rows, right=(1, 2, 3))


def _time(iso: str) -> str:
    return iso[:16].replace("T", " ")


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}" if whole else "-"
