"""What stands in the table that no mail will ever find, and rows that are written as no key is.

A panel writes senders in the case of letters that a login was made with, rows of limits that are gone, patterns.
"""

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple, TypeGuard

from ratelimitd.core.limits import Limit
from ratelimitd.core.rows import Account, Row, shown
from ratelimitd.errors import StoreError

EXAMPLES = 1000
"""Rows of one kind that are looked at."""
NAMED = 10
"""Rows that are named."""

Step = tuple[Literal["RENAME", "MERGE", "DELETE"], tuple[object, ...]]
"""The name of a statement, and its values."""


class Rename(NamedTuple):
    """A row whose key is not normalised, and what it would be."""

    limit: str
    old: str
    new: str


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
                yield f"{count} rows of a limit that does not exist: {name}, for example {example}"
        for limit in known.values():
            for key in limit.quotas:
                if why := limit.cannot_match(key):
                    yield f'limit {limit.name}: quotas."{key}": {why}'
        of_limits = [(row, known[row.limit]) for row in self.odd if row.limit in known]
        found = [(row, limit.cannot_match(row.key) or limit.cannot_hold(row.key)) for row, limit in of_limits]
        named = [f"limit {row.limit}: the row of {shown(row.key)}: {why}" for row, why in found if why]
        yield from named[:NAMED]
        if len(named) > NAMED:
            yield f"{len(named) - NAMED} more rows that can never match a key"


def renames(accounts: Iterable[Account], limits: Iterable[Limit]) -> list[Rename]:
    """Those of the accounts whose keys are not normalised."""
    known = {limit.name: limit for limit in limits}
    found = [Rename(limit, key, known[limit].normal(key)) for limit, key in accounts if limit in known]
    return [rename for rename in found if rename.new and rename.new != rename.old]


def adopt(wanted: Iterable[Rename], rows: Iterable[Row]) -> Iterator[Step]:
    """The statements that make each row its account's. `rows`: those of the old and the new keys.

    Where the account has a row already, what somebody gave in the other one is the account's, and uses are added.
    """
    stored = {Account(row.limit, row.key): row for row in rows}
    for limit, old, new in wanted:
        row, there = stored.get(Account(limit, old)), stored.get(Account(limit, new))
        if row is None:
            continue
        if there is None:
            stored[Account(limit, new)] = row._replace(key=new)
            yield "RENAME", (new, old, limit)
            continue
        used = there.used + (row.used if row.expiry == there.expiry else 0)
        given = row if row.persist or row.quota != row.configured else there
        stored[Account(limit, new)] = there._replace(
            quota=given.quota, persist=given.persist, until=given.until, used=used
        )
        yield "MERGE", (given.quota, int(given.persist), given.until or None, used, new, limit)
        yield "DELETE", (old, limit)


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and value.encode(errors="ignore").decode() == value
