"""The section of a limit: which quota, what accounts use, whom it refused; the same of a log and of a database."""

from ratelimitd.ctl.answers import LimitUse
from ratelimitd.ctl.page.content import (
    MAX_ROWS,
    WIDTHS,
    Cell,
    Column,
    Figure,
    Section,
    Table,
    Tile,
    key,
    moment,
    number,
    percent,
)
from ratelimitd.ctl.page.distribution import between, distribution, together, window_of
from ratelimitd.text import counted

_ADVICE = {"1%": ("1 % of accounts", 100), "0.1%": ("0.1 % of accounts", 1000), "0": ("nobody", 0)}
_QUANTILES = {"50": "half of the {}s have", "90": "90 % have", "99": "99 % have", "100": "all have"}


def section(limit: LimitUse) -> Section:
    """The section."""
    title = f"Limit {limit.limit}"
    if not limit.accounts:
        return Section(title=title, text=f"{_of(limit)} Nobody has sent anything that it counts.")
    return Section(
        title=title,
        text=_of(limit),
        tiles=[_quota(limit), *_advice(limit)],
        figures=[figure(limit)],
        tables=[_refused(limit)] if limit.refused else [],
    )


def _of(limit: LimitUse) -> str:
    """What it counts."""
    where = "one message" if limit.period == "message" else f"a window ({limit.period}, {limit.window})"
    enforced = "" if limit.enforced else " It is not enforced: it would refuse what is said here to be refused."
    return f"Counts the {limit.counts} of an account in {where}.{enforced}"


def _quota(limit: LimitUse) -> Tile:
    """The quota that is configured, and what it does."""
    shown = f"{limit.quota:,}" if limit.quota else "unlimited"
    if limit.refused_accounts is None or limit.refused_recipients is None:
        return Tile(shown, "configured", "what it refuses is not counted (count_rejected = false)", "quota")
    refused = f"{limit.refused_accounts:,} of {counted(limit.accounts, 'account')}"
    share = percent(limit.refused_recipients, limit.recipients)
    return Tile(
        shown,
        f"configured: refuses {refused}",
        f"{limit.refused_recipients:,} of {limit.recipients:,} {limit.counts}, {share}",
        "quota",
    )


def _advice(limit: LimitUse) -> list[Tile]:
    """The quotas that would have refused so many."""
    tiles = {}
    for name, quota in limit.quota_for.items():  # of equal ones the last says most
        whom, one_in = _ADVICE[name]
        detail = f"{limit.accounts // one_in:,} of {limit.accounts:,} at most" if one_in else "what the busiest needed"
        tiles[quota] = Tile(f"{quota:,}", f"would refuse {whom}", detail, "advice")
    return [*tiles.values()]


def figure(limit: LimitUse) -> Figure:
    """What accounts use, and what that says of quotas."""
    window = window_of(limit)
    in_words = [
        f"{_QUANTILES[name].format(window)} at most {used:,} {limit.counts}" for name, used in limit.quantiles.items()
    ]
    advice = together(limit.quota_for, {name: whom for name, (whom, _) in _ADVICE.items()}, "at")
    text = (
        f"Above, bars: {', '.join(in_words)}. Below, a falling line: a quota would have refused "
        f"{', '.join(advice.values())}. "
        + (f"The configured quota is {limit.quota:,}." if limit.quota else "No quota is configured.")
    )
    note = (
        "The line is that of this limit alone, as if no other had refused anything, and without exceptions. The bars "
        "are as high as the square root of their numbers, or rare uses would not be seen."
    )
    if limit.window == "sliding":
        note += " Of a sliding limit, a use is the most at any moment of a period."
    drawings = [distribution(limit, width) for width in WIDTHS]
    return Figure(f"What accounts use: limit {limit.limit}", text, drawings, [_numbers(limit), _quantiles(limit)], note)


def _numbers(limit: LimitUse) -> Table:
    rows, above = [], limit.accounts
    for bucket in limit.histogram:
        above -= bucket.accounts
        used = Cell(between(bucket.from_, bucket.to), bucket.to)
        share = Cell(percent(above, limit.accounts), above)
        rows.append([used, number(bucket.windows), number(bucket.accounts), number(above), share])
    columns = [
        Column("Used"),
        Column(f"{window_of(limit).capitalize()}s"),
        Column("Accounts"),
        Column("Above"),
        Column("Share"),
    ]
    caption = (
        f"Limit {limit.limit}: {limit.counts} used in a {window_of(limit)}, accounts by the most that they used, and "
        "the accounts above, whom a quota of so much would refuse"
    )
    return Table(caption, columns, rows)


def _quantiles(limit: LimitUse) -> Table:
    rows = [[Cell(f"{name} %", int(name)), number(used)] for name, used in limit.quantiles.items()]
    columns = [Column(f"{window_of(limit).capitalize()}s"), Column(f"{limit.counts.capitalize()} at most")]
    return Table(f"Limit {limit.limit}: no more than so much in so many {window_of(limit)}s", columns, rows)


def _refused(limit: LimitUse) -> Table:
    rows = [
        [key(each.key), number(each.refused), moment(each.first), number(each.worst)]
        for each in limit.refused[:MAX_ROWS]
    ]
    columns = [
        Column("Account", "key"),
        Column("Refused"),
        Column("First at", "time"),
        Column(f"Most in a {window_of(limit)}"),
    ]
    all_refused, more = limit.refused_accounts or 0, ""
    if all_refused > len(rows):
        more = f"These {len(rows)} of {all_refused:,} most; --json has {len(limit.refused):,}."
    return Table(
        f"Whom limit {limit.limit} refused" if limit.enforced else f"Whom limit {limit.limit} would refuse",
        columns,
        rows,
        more,
    )
