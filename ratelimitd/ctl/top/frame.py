"""A ranking as lines: a plain table, or what fits on a screen. It neither asks nor writes.

An account that has nothing left is marked by a word: FULL, or OVER where it went on sending. On a narrow screen columns
go, the least needed first; a key that is too wide is cut. Limits share the lines.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ratelimitd.control.answers import AccountView, LimitRanking, Ranking
from ratelimitd.ctl import tables
from ratelimitd.ctl.top.screen import Line
from ratelimitd.log.colour import BOLD, DIM, GREEN, RED, YELLOW
from ratelimitd.text import escape

SORTS = {"use": "most first", "share": "most of their quota first", "rate": "most per minute first"}
"""What may come first."""
KEYS = {"u": "use", "s": "share", "r": "rate"}

_HEADER = ("KEY", "USED", "QUOTA", "%", "", "PER MIN", "RESETS AT")
_RIGHT = (1, 2, 3, 5)
_MARK, _RATE = 4, 5
_COLUMNS = ((0, 1, 2, 3, 4, 5, 6), (0, 1, 2, 3, 4, 5), (0, 1, 3, 4, 5), (0, 1, 3, 4), (0, 1, 4), (0, 4))
"""From wide to narrow."""
_NOBODY = "nobody has sent yet"
_KEY_COLUMNS = 16
"""A key is not cut to less than this before another column has gone."""
_NEAR = 80
"""Percent of a quota from which on an account is coloured as one that is near it."""


class Rates:
    """Recipients per minute between two rankings, of the accounts that are in both."""

    def __init__(self, now: Ranking, before: Ranking | None) -> None:
        self._elapsed_s = now.time - before.time if before is not None else 0.0
        self._earlier: dict[tuple[str, str], int] = {}
        for limit in before.limits if before is not None else ():
            self._earlier |= {(view.limit, view.key): view.used for view in limit.accounts}

    def of(self, view: AccountView) -> int | None:
        """The account's, if it is known."""
        was = self._earlier.get((view.limit, view.key))
        return None if was is None or self._elapsed_s <= 0 else max(0, round((view.used - was) * 60 / self._elapsed_s))


class Shown(NamedTuple):
    """What is shown of the rankings: how many accounts of each limit, and which first."""

    now: Ranking
    before: Ranking | None = None
    sort: str = "use"
    most: int = 20

    def limits(self) -> list[LimitRanking]:
        """Each limit with the accounts that are shown, in their order."""
        return [LimitRanking(limit.limit, limit.period, self._first(limit)) for limit in self.now.limits]

    def _first(self, limit: LimitRanking) -> list[AccountView]:
        accounts = limit.accounts
        if self.sort == "rate":
            rates = Rates(self.now, self.before)
            accounts = sorted(accounts, key=lambda view: rates.of(view) or 0, reverse=True)
        return accounts[: self.most]


def table(shown: Shown) -> str:
    """The rankings as text."""
    text = f"recipients in the current period, {SORTS[shown.sort]}  {tables.moment(shown.now.time)}\n"
    rates = Rates(shown.now, shown.before)
    for limit in shown.limits():
        text += f"\n{escape(limit.limit)}, {escape(limit.period)}\n"
        cells = _cells(limit.accounts, rates)
        chosen = [i for i in _COLUMNS[0] if i != _MARK or any(row[i] for row in cells)]
        text += (
            "".join(f"{line}\n" for line in _drawn(cells, chosen, _widths(cells))) if limit.accounts else _NOBODY + "\n"
        )
    return text


def lines(shown: Shown, trouble: str, columns: int, rows: int) -> list[Line]:
    """What is shown on a screen of so many columns and lines. `trouble`: why the ranking is not a new one."""
    title = f"{tables.moment(shown.now.time)}  recipients in the current period, {SORTS[shown.sort]}"
    drawn: list[Line] = [(BOLD, title)]
    if trouble:
        drawn.append((RED, tables.printable(trouble)))
    room = rows - len(drawn) - 2
    limits = shown.limits()
    fitting = limits[: max(1, room // 4)]
    rates = Rates(shown.now, shown.before)
    for limit, accounts in zip(fitting, _divided([len(limit.accounts) for limit in fitting], room), strict=True):
        drawn += [("", ""), (BOLD, tables.printable(f"{limit.limit}, {limit.period}"))]
        if accounts or not limit.accounts:  # else there is no room for one
            drawn += _table(limit.accounts[:accounts], rates, columns, keep_rate=shown.sort == "rate")
    drawn = drawn[: max(0, rows - 1)]
    drawn += [("", "")] * (rows - 1 - len(drawn))
    hidden = len(limits) - len(fitting)
    return [*drawn, (DIM, _keys(shown.sort) + (f"  limits not shown: {hidden}" if hidden else ""))]


def _keys(sort: str) -> str:
    return "q quit  sort: " + " ".join(f"{key} {name.upper() if name == sort else name}" for key, name in KEYS.items())


def _divided(wanted: Sequence[int], room: int) -> list[int]:
    """How many accounts of each limit have room: all alike, and what one does not need the others get."""
    given = [0] * len(wanted)
    left = room - 3 * len(wanted)
    while left > 0 and (hungry := [i for i, number in enumerate(wanted) if given[i] < number]):
        for i in hungry[:left]:
            given[i] += 1
        left -= len(hungry[:left])
    return given


def _cells(accounts: Sequence[AccountView], rates: Rates) -> list[tuple[str, ...]]:
    return [_HEADER, *[tuple(map(tables.cell, _row(view, rates))) for view in accounts]]


def _widths(cells: Sequence[tuple[str, ...]]) -> dict[int, int]:
    return {i: max(tables.width(row[i]) for row in cells) for i in range(len(_HEADER))}


def _drawn(cells: Sequence[tuple[str, ...]], chosen: Sequence[int], widths: Mapping[int, int]) -> list[str]:
    right = [place for place, i in enumerate(chosen) if i in _RIGHT]
    room = [widths[i] for i in chosen]
    return [tables.line([tables.fitted(row[i], widths[i]) for i in chosen], room, right) for row in cells]


def _row(view: AccountView, rates: Rates) -> tuple[object, ...]:
    rate = rates.of(view)
    share = "" if view.quota is None else view.used * 100 // view.quota
    quota = tables.or_unlimited(view.quota)
    return (view.key, view.used, quota, share, _mark(view), "" if rate is None else rate, view.reset_at)


def _mark(view: AccountView) -> str:
    if view.quota is None or view.used < view.quota:
        return ""
    return "OVER" if view.used > view.quota else "FULL"


def _colour(view: AccountView) -> str:
    if view.quota is None:
        return ""
    share = view.used * 100 // view.quota
    return RED if share >= 100 else YELLOW if share >= _NEAR else GREEN


def _table(accounts: Sequence[AccountView], rates: Rates, columns: int, *, keep_rate: bool) -> list[Line]:
    """The accounts below a header, in the columns that fit."""
    if not accounts:
        return [("", _NOBODY)]
    cells = _cells(accounts, rates)
    widths = _widths(cells)
    wanted = min(widths[0], _KEY_COLUMNS)
    choices = [[i for i in choice if widths[i]] for choice in _COLUMNS if _RATE in choice or not keep_rate]
    chosen = next((choice for choice in choices if _besides(choice, widths) + wanted <= columns), choices[-1])
    widths[0] = max(1, min(widths[0], columns - _besides(chosen, widths)))
    return [*zip([DIM, *map(_colour, accounts)], _drawn(cells, chosen, widths), strict=True)]


def _besides(chosen: Sequence[int], widths: Mapping[int, int]) -> int:
    """The columns that all but the key take."""
    return sum(widths[i] + len(tables.GAP) for i in chosen[1:])
