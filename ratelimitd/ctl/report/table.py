"""The answer of `ratelimitctl report` for people. Nothing in it can control the terminal."""

from collections.abc import Sequence

from ratelimitd.ctl import limit_tables, tables
from ratelimitd.ctl.answers import NewAccount, OverAccount, Report, ReportedAccount, ReportedDay, UnusedQuota
from ratelimitd.ctl.bars import Bars, Scale
from ratelimitd.ctl.limit_tables import KEY_CHARACTERS, SHOWN, or_unknown, time
from ratelimitd.text import counted, cut, escape


def text(answer: Report, bars: Bars) -> str:
    """What was sent each day, what each limit counted, who sent most, who was over, what quotas would do."""
    parts = [_read(answer)]
    if answer.counted_by is not None:
        parts += [_days(answer.days, bars)] if answer.days else []
        parts += [limit_tables.limits(answer.limits), _most(answer.most)]
        parts += [_over(answer.over)] if answer.over else []
        parts += [_new(answer.new)] if answer.new else []
        parts += [_unused(answer.unused_quotas)] if answer.unused_quotas else []
        parts += [limit_tables.uses(answer.limits), limit_tables.quotas(answer.limits)]
    if answer.remarks:
        parts.append("".join(f"{escape(remark)}\n" for remark in answer.remarks))
    return "\n".join(parts)


def _read(answer: Report) -> str:
    span = f"{time(answer.from_)} to {time(answer.to)}"
    if answer.counted_by is None:
        return f"{span}: nothing was sent\n"
    recipients, accounts = counted(answer.recipients, "recipient"), counted(answer.accounts, "account")
    return f"{span}, by limit {answer.counted_by}: {recipients} of {accounts}\n"


def _days(days: Sequence[ReportedDay], bars: Bars) -> str:
    rows = [(day.day, day.accounts, day.recipients, or_unknown(day.refused_recipients)) for day in days]
    scale = Scale([day.recipients for day in days])
    return bars.table(("DAY", "ACCOUNTS", "RECIPIENTS", "REFUSED"), rows, (1, 2, 3), scale)


def _key(key: str) -> str:
    return cut(key, KEY_CHARACTERS)


def _more(accounts: Sequence[object]) -> str:
    more = len(accounts) - SHOWN
    return f"and {more:,} more: --json has them\n" if more > 0 else ""


def _most(accounts: Sequence[ReportedAccount]) -> str:
    rows = [
        (_key(one.key), one.recipients, one.windows, one.worst, tables.or_unlimited(one.quota))
        for one in accounts[:SHOWN]
    ]
    header = ("KEY", "RECIPIENTS", "IN WINDOWS", "MOST IN ONE", "QUOTA")
    return "sent most\n" + tables.table(header, rows, right=(1, 2, 3, 4)) + _more(accounts)


def _over(accounts: Sequence[OverAccount]) -> str:
    rows = [
        (one.limit, _key(one.key), one.quota, one.worst, one.over, one.windows, time(one.first), time(one.last))
        for one in accounts[:SHOWN]
    ]
    header = ("LIMIT", "KEY", "QUOTA", "MOST IN A WINDOW", "OVER BY", "IN WINDOWS", "FIRST", "LAST")
    return "over the quota, most first\n" + tables.table(header, rows, right=(2, 3, 4, 5)) + _more(accounts)


def _new(accounts: Sequence[NewAccount]) -> str:
    rows = [
        (_key(one.key), time(one.first), one.at_once, one.recipients, tables.or_unlimited(one.quota))
        for one in accounts[:SHOWN]
    ]
    header = ("KEY", "FIRST WINDOW", "SENT IN IT", "IN ALL", "QUOTA")
    return "new, and sent much at once\n" + tables.table(header, rows, right=(2, 3, 4)) + _more(accounts)


def _unused(quotas: Sequence[UnusedQuota]) -> str:
    rows = [
        (one.limit, "the limit" if one.of is None else _key(one.of), one.source, one.quota, one.accounts, one.worst)
        for one in quotas[:SHOWN]
    ]
    header = ("LIMIT", "QUOTA OF", "FROM", "QUOTA", "ACCOUNTS", "MOST IN A WINDOW")
    return "quotas of which nobody used half\n" + tables.table(header, rows, right=(3, 4, 5)) + _more(quotas)
