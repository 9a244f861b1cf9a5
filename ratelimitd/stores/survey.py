"""What stands in the table that no mail will ever find, and rows that are written as no key is.

A panel writes senders in the case of letters that a login was made with, rows of limits that are gone, patterns.
"""

from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Literal, NamedTuple, TypeGuard

from ratelimitd.core.limits import Limit
from ratelimitd.core.rows import MAX_USED, NO_BOUND, Account, Delta, Row, shown
from ratelimitd.errors import StoreError
from ratelimitd.text import counted

EXAMPLES = 1000
"""Rows of one kind that are looked at."""
NAMED = 10
"""Rows that are named."""

_NOTHING_GIVEN = -1
"""What no quota is."""

Step = tuple[Literal["RENAME", "MERGE", "DELETE"], tuple[object, ...]]
"""The name of a statement, and its values."""


class Adoption(NamedTuple):
    """The statements that make a row its account's, and what the account's row is then."""

    steps: list[Step]
    row: Row


class Rename(NamedTuple):
    """A row whose key is not normalised, and what it would be; its account's configured quota.

    `apart_s` and `latest` as in a Delta.
    """

    limit: str
    old: str
    new: str
    configured: int
    apart_s: int = 1
    latest: int = NO_BOUND


class Survey(NamedTuple):
    """Of each limit_name in the table the number of rows and one of them; rows that may be written wrongly."""

    limits: list[tuple[str, int, str]]
    odd: list[Account]

    @classmethod
    def of(cls, limits: Iterable[Iterable[object]], odd: Iterable[Iterable[object]]) -> "Survey":
        """Of a database's values: (limit_name, number, sender) and (limit_name, sender). Raises StoreError."""
        try:
            named = [(shown(limit), int(str(count)), shown(sender)) for limit, count, sender in map(tuple, limits)]
            accounts = dict.fromkeys(map(tuple, odd))
        except ValueError as error:
            raise StoreError("the server's answer makes no sense") from error
        return cls(named, [Account(limit, key) for limit, key in accounts if _is_text(limit) and _is_text(key)])

    def remarks(self, limits: Iterable[Limit]) -> Iterator[str]:
        """A line for all that can never count anybody."""
        known = {limit.name: limit for limit in limits}
        for name, count, example in self.limits:
            if name not in known:
                yield f"{counted(count, 'row')} of a limit that does not exist: {name}, for example {example}"
        for limit in known.values():
            for key in limit.quotas:
                if why := limit.cannot_match(key):
                    yield f'limit {limit.name}: quotas."{key}": {why}'
        of_limits = [(row, known[row.limit]) for row in self.odd if row.limit in known]
        found = [(row, limit.cannot_match(row.key) or limit.cannot_hold(row.key)) for row, limit in of_limits]
        named = [f"limit {row.limit}: the row of {shown(row.key)}: {why}" for row, why in found if why]
        yield from named[:NAMED]
        if len(named) > NAMED:
            yield f"{counted(len(named) - NAMED, 'row')} more that can never match a key"


def renames(accounts: Iterable[Account], limits: Iterable[Limit], now: int) -> list[Rename]:
    """Those of the accounts whose keys are not normalised. `now` is in seconds since 1970."""
    known = {limit.name: limit for limit in limits}
    found: list[Rename] = []
    for name, key in accounts:
        if (limit := known.get(name)) and (new := limit.normal(key)) and new != key:
            period = limit.period
            found.append(Rename(name, key, new, limit.configured_quota(new), period.apart_s, period.latest(now)))
    return found


def repairs(wanted: Iterable[Rename], unreadable: Container[Account], sliding: Container[str]) -> list[Delta]:
    """Charges of nothing for the accounts' own rows that make no sense: what stands in them can be read afterwards."""
    accounts = {Account(one.limit, one.new): one for one in wanted}
    return [
        Delta(*account, 0, 0, one.configured, one.configured, one.latest, one.apart_s, sliding=account.limit in sliding)
        for account, one in accounts.items()
        if account in unreadable
    ]


def adoption(rename: Rename, stored: Mapping[Account, Row], now: int) -> Adoption | None:
    """How a row becomes its account's; None where it is gone, or makes no sense. `stored`: the rows of both keys."""
    limit, old, new = rename[:3]
    row, there = stored.get(Account(limit, old)), stored.get(Account(limit, new))
    if row is None:
        return None
    if there is None:
        return Adoption([("RENAME", (new, old, limit))], row._replace(key=new))
    one = _merged(rename, there, row, now)
    merged = (
        *(one.quota, one.configured, one.seen, int(one.persist), one.until or None),
        *(one.used, one.in_parts, one.expiry, new, limit),
    )
    return Adoption([("MERGE", merged), ("DELETE", (old, limit))], one)


def _merged(rename: Rename, there: Row, row: Row, now: int) -> Row:
    """An account's row with another one that is its, too: the later window holds, uses of one window add up, and of
    whatever runs where one of them counts in parts.

    What somebody gave is the account's as long as its own row says so, for good before for a time.
    """
    both = [_running(one, rename, now) for one in (row, there)]
    later = max(both, key=lambda one: one.expiry)
    slid = [one for one in both if one.counts_in_parts]
    same = (slid and now < min(one.expiry for one in both)) or abs(both[0].expiry - both[1].expiry) < rename.apart_s
    used = min(sum(one.used for one in both), MAX_USED) if same else later.used
    in_force = [one for one in both if one.quota_at(now, _NOTHING_GIVEN) != _NOTHING_GIVEN]
    quota, persist, seen, until = rename.configured, False, None, 0
    if in_force:
        # Of two alike the one that is not the account's yet.
        given = max(in_force, key=lambda one: (one.persist, one.end_of_quota(now) > 0))
        # In a window that runs it ends with that; otherwise it is for the next one, and has not been seen.
        quota, persist, until = given.quota, given.persist, given.end_of_quota(now)
        seen = given.quota if max(later.expiry, until) > now else given.seen
    return there._replace(
        quota=quota,
        configured=rename.configured,
        persist=persist,
        used=used,
        in_parts=used if slid and not any(one.expiry > now for one in both if one not in slid) else None,
        expiry=later.expiry,
        seen=seen,
        until=until,
    )


def _running(row: Row, rename: Rename, now: int) -> Row:
    """A row with what counts of it at `now`."""
    if row.counts_in_parts:
        parts = {leave: used for leave, used in row.parts if now < leave <= rename.latest}
        used = min(sum(parts.values()), MAX_USED)
        return row._replace(used=used, in_parts=used, expiry=max(parts, default=0))
    return row if row.expiry <= rename.latest else row._replace(expiry=0, used=0)


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and value.encode(errors="ignore").decode() == value
