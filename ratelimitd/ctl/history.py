"""The answer of `ratelimitctl history` for people: a row for each window, with a bar and the quota's mark."""

from ratelimitd.control.answers import AccountHistory, LimitHistory, UsedWindow
from ratelimitd.ctl import tables
from ratelimitd.ctl.bars import Bars, Scale
from ratelimitd.text import counted, escape


def text(answer: AccountHistory, bars: Bars) -> str:
    """Each limit's windows."""
    parts = [_limit(limit, answer.days, bars) for limit in answer.limits]
    if not parts:
        parts.append(f"{escape(answer.key)}: nothing was counted in {counted(answer.days, 'day')}\n")
    if answer.history_days < answer.days:
        parts.append(f"history_days is {answer.history_days}: there is nothing of days before that\n")
    return "\n".join(parts)


def _limit(limit: LimitHistory, days: int, bars: Bars) -> str:
    head = f"{escape(limit.key)}, limit {limit.limit}, {limit.period}"
    if not limit.windows:
        return f"{head}: nothing in {counted(days, 'day')}\n"
    of = counted(limit.used, limit.counts.removesuffix("s"))
    quota = f"quota {tables.or_unlimited(limit.quota):,}" if limit.quota else "no quota"
    lines = [f"{head}: {of} in {counted(days, 'day')}, {quota} ({limit.source})\n", _table(limit, bars)]
    if limit.left_out:
        lines.append(f"{counted(limit.left_out, 'window')} before these are left out: --days has them fewer\n")
    return "".join(lines)


def _table(limit: LimitHistory, bars: Bars) -> str:
    quota = limit.quota
    rows = [
        (
            window.begin_at or f"until {window.end_at}",
            window.used,
            *((window.most,) if limit.sliding else ()),
            "" if quota is None else window.most * 100 // quota,
            _mark(window, quota),
        )
        for window in limit.windows
    ]
    header = ("FROM", "USED", *(("MOST AT ONCE",) if limit.sliding else ()), "%", "")
    right = range(1, len(header) - 1)
    return bars.table(header, rows, right, Scale([window.most for window in limit.windows], quota))


def _mark(window: UsedWindow, quota: int | None) -> str:
    over = quota is not None and window.most > quota
    return " ".join([*(["OVER"] if over else []), *(["running"] if window.running else [])])
