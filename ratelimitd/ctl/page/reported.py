"""The page of `ratelimitctl report`: what accounts used, by the history."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from ratelimitd.ctl.answers import NewAccount, OverAccount, Report, ReportedAccount, UnusedQuota
from ratelimitd.ctl.page import days, limits
from ratelimitd.ctl.page.content import (
    MAX_ROWS,
    Cell,
    Column,
    Page,
    Section,
    Table,
    Tile,
    key,
    moment,
    number,
    words,
)

_T = TypeVar("_T")


def of_report(answer: Report) -> Page:
    """The content of its page."""
    sections = [limits.section(limit) for limit in answer.limits]
    tables = {
        "Over the quota": _table("Accounts that used more than their quota in a window", answer.over, _OVER, _over),
        "New and busy": _table("New accounts that sent much at once", answer.new, _NEW, _new),
        "Who sends most": _table("Accounts by what they sent in all", answer.most, _MOST, _most),
        "Quotas to spare": _table("Quotas that nobody used half of", answer.unused_quotas, _UNUSED, _unused),
    }
    sections += [Section(title=title, tables=[table]) for title, table in tables.items() if table.rows]
    if answer.days:
        sections.append(Section(title="Day by day", figures=[days.figure(answer.days, _of_days(answer))]))
    if answer.remarks:
        sections.append(Section(title="What should be known", notes=answer.remarks))
    return Page(
        verb="ratelimitctl report",
        title="What accounts send",
        text=_period(answer),
        tiles=[
            Tile(f"{answer.recipients:,}", "recipients"),
            Tile(f"{answer.accounts:,}", "accounts that sent"),
            Tile(f"{len({each.key for each in answer.over}):,}", "accounts over a quota"),
        ],
        sections=sections,
    )


def _period(answer: Report) -> str:
    begins, ends = (moment(time).text for time in (answer.from_, answer.to))
    if answer.counted_by is None:
        return f"Nothing was sent from {begins} to {ends}."
    return f"What the database knows of {begins} to {ends}, as counted by limit {answer.counted_by}."


def _of_days(answer: Report) -> str:
    return f"By limit {answer.counted_by}, what it refused included."


def _table(caption: str, found: Sequence[_T], columns: Sequence[Column], row: Callable[[_T], Sequence[Cell]]) -> Table:
    """The first of them, and how many there are more."""
    rows = [row(each) for each in found[:MAX_ROWS]]
    more = len(found) - len(rows)
    return Table(caption, columns, rows, f"There are {more:,} more, and --json has them." if more else "")


_OVER = (
    Column("Account", "key"),
    Column("Limit", "text"),
    Column("Quota"),
    Column("Most in a window"),
    Column("Over by"),
    Column("Windows over"),
    Column("First", "time"),
    Column("Last", "time"),
)


def _over(each: OverAccount) -> list[Cell]:
    numbers = map(number, (each.quota, each.worst, each.over, each.windows))
    return [key(each.key), words(each.limit), *numbers, moment(each.first), moment(each.last)]


_NEW = (
    Column("Account", "key"),
    Column("First window", "time"),
    Column("Sent in it"),
    Column("In all"),
    Column("Quota"),
)


def _new(each: NewAccount) -> list[Cell]:
    return [key(each.key), moment(each.first), number(each.at_once), number(each.recipients), _quota(each.quota)]


_MOST = (Column("Account", "key"), Column("Recipients"), Column("Windows"), Column("Most in one"), Column("Quota"))


def _most(each: ReportedAccount) -> list[Cell]:
    return [key(each.key), *map(number, (each.recipients, each.windows, each.worst)), _quota(each.quota)]


_UNUSED = (
    Column("Whose", "key"),
    Column("Limit", "text"),
    Column("Quota"),
    Column("Most used"),
    Column("Accounts"),
    Column("From", "text"),
)


def _unused(each: UnusedQuota) -> list[Cell]:
    whose = words("the limit's own") if each.of is None else key(each.of)
    numbers = map(number, (each.quota, each.worst, each.accounts))
    return [whose, words(each.limit), *numbers, words(each.source)]


def _quota(quota: int | None) -> Cell:
    return Cell("unlimited", "Infinity") if quota is None else number(quota)
