"""The answer of `ratelimitctl replay` for people. Nothing in it can control the terminal."""

from ratelimitd.ctl import limit_tables
from ratelimitd.ctl.answers import Replayed
from ratelimitd.text import escape


def text(answer: Replayed) -> str:
    """What was read, whom each limit would have refused, what accounts use, which quota would have refused how many."""
    parts = [_read(answer), limit_tables.limits(answer.limits)]
    parts += [limit_tables.refused(limit) for limit in answer.limits if limit.refused]
    if any(limit.accounts for limit in answer.limits):
        parts += [limit_tables.uses(answer.limits), limit_tables.quotas(answer.limits)]
    if answer.remarks:
        parts.append("".join(f"{escape(remark)}\n" for remark in answer.remarks))
    return "\n".join(parts)


def _read(answer: Replayed) -> str:
    if answer.from_ is None or answer.to is None:
        return f"{answer.lines:,} lines, none of them of a mail log\n"
    begin, end = limit_tables.time(answer.from_), limit_tables.time(answer.to)
    return (
        f"{begin} to {end}: {answer.lines:,} lines, {answer.messages:,} messages with a login, "
        f"{answer.recipients:,} recipients\n"
    )
