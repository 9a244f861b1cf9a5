"""The answer of `ratelimitctl replay` for people. Nothing in it can control the terminal."""

from collections.abc import Sequence

from ratelimitd.core.limits import Limit
from ratelimitd.ctl import tables
from ratelimitd.ctl.answers import LimitUse, Replayed
from ratelimitd.text import cut, escape

SHOWN = 10
"""Accounts of each limit; `--json` has all."""
_KEY_CHARACTERS = 60


def text(answer: Replayed, limits: Sequence[Limit], remarks: Sequence[str]) -> str:
    """What was read, whom each limit would have refused, what accounts use, which quota would have refused how many."""
    parts = [_read(answer), _limits(answer.limits, limits)]
    parts += [_refused(uses, limit.enforce) for uses, limit in zip(answer.limits, limits, strict=True) if uses.refused]
    if any(limit.accounts for limit in answer.limits):
        parts += [_uses(answer.limits), _quotas(answer.limits)]
    if remarks:
        parts.append("".join(f"{escape(remark)}\n" for remark in remarks))
    return "\n".join(parts)


def _read(answer: Replayed) -> str:
    if answer.from_ is None or answer.to is None:
        return f"{answer.lines:,} lines, none of them of a mail log\n"
    line = (
        f"{_time(answer.from_)} to {_time(answer.to)}: {answer.lines:,} lines, {answer.messages:,} messages with a "
        f"login, {answer.recipients:,} recipients\n"
    )
    return line if answer.messages else line + "Postfix logs a login as sasl_username=; there is none.\n"


def _limits(answer: Sequence[LimitUse], limits: Sequence[Limit]) -> str:
    rows = [
        (
            uses.limit,
            uses.period + (" sliding" if limit.sliding else "") + (", messages" if limit.by_message else ""),
            tables.or_unlimited(uses.quota),
            uses.accounts,
            uses.recipients,
            uses.refused_accounts,
            uses.refused_recipients,
            _percent(uses.refused_recipients, uses.recipients),
        )
        for uses, limit in zip(answer, limits, strict=True)
    ]
    thing = "MESSAGES" if all(limit.by_message for limit in limits) else "RECIPIENTS"
    header = ("LIMIT", "PERIOD", "QUOTA", "ACCOUNTS", thing, "ACCOUNTS REFUSED", f"{thing} REFUSED", "%")
    return tables.table(header, rows, right=(2, 3, 4, 5, 6, 7))


def _refused(limit: LimitUse, enforced: bool) -> str:
    rows = [
        (cut(each.key, _KEY_CHARACTERS), each.refused, _time(each.first), each.worst) for each in limit.refused[:SHOWN]
    ]
    title = f"refused by limit {limit.limit}, most first\n"
    if not enforced:
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
