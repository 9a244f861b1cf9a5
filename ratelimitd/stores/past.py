"""The history as it is looked at: what was used in which window, of one account or of all; nothing is written.

Of all accounts it is read a page at a time in the order of the primary key, so nobody holds it all, and no statement
takes long. A row that makes no sense is set aside with one line, as everywhere.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from ratelimitd.core.rows import MAX_USED
from ratelimitd.stores.history import FAR_S, Stood, Values, parts_of
from ratelimitd.stores.remarks import Remarks

PAGE = 1000
"""Rows of a page: a millisecond or two of the loop's time."""


class Place(NamedTuple):
    """Where a row stands among all."""

    key: str
    limit: str
    end: int


START = Place("", "", 0)
"""Before all rows."""


class Page(NamedTuple):
    """Rows of all accounts, and where the next page begins; None: there is none."""

    rows: list[Values]
    after: Place | None


class Past(Protocol):
    """The history of a store. Raises StoreError; a store without the table has no rows."""

    async def windows(self, limit: str, key: str, after: int, now: int) -> Stood:
        """What an account used in the next windows, or parts, that end after a time, with their ends, PAGE at most."""
        ...

    async def page(self, after: Place, since: int, now: int) -> Page:
        """The next rows of all accounts, of windows or parts that end after `since`."""
        ...


def until(now: int) -> int:
    """Rows that end later make no sense."""
    return now + FAR_S


def page_of(found: Sequence[Sequence[object]], now: int, remarks: Remarks) -> Page:
    """The page of a database's values."""
    latest = until(now)
    rows: list[Values] = []
    for sender, limit_name, expiry, used in found:
        key, limit = _name(sender), _name(limit_name)
        if type(used) is int and type(expiry) is int and 0 <= used <= MAX_USED:  # as a rule
            parts: Stood = ((expiry, used),)
        else:
            parts = parts_of(limit, key, [(expiry, used)], remarks)
        rows += [(limit, key, end, recipients) for end, recipients in parts if end <= latest]
    if len(found) < PAGE:
        return Page(rows, None)
    sender, limit_name, expiry, _ = found[-1]
    return Page(rows, Place(_name(sender), _name(limit_name), int(str(expiry))))


def _name(value: object) -> str:
    if type(value) is str:
        return value
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)
