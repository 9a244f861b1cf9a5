"""The history of a SQLite file as it is looked at. What is asked for, past.py says."""

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

from ratelimitd.stores import Names
from ratelimitd.stores import history_statements as statements
from ratelimitd.stores.dialect import SQLite
from ratelimitd.stores.history import Stood, parts_of
from ratelimitd.stores.past import Page, Place, page_of, until
from ratelimitd.stores.remarks import Remarks
from ratelimitd.stores.sqlite_history import SQLiteHistory

_DIALECT = SQLite()
_PAGE = statements.page(_DIALECT)

T = TypeVar("T")


class Read(Protocol):
    """Does a piece of work with the connection that reads, in a thread."""

    def __call__(self, work: Callable[[sqlite3.Connection], T]) -> Awaitable[T]: ...  # noqa: D102


class SQLitePast:
    """The table of one file."""

    def __init__(self, names: Names, remarks: Remarks, history: SQLiteHistory, read: Read) -> None:
        self._names = names
        self._remarks = remarks
        self._history = history
        self._read = read

    async def _found(self, statement: str, values: Sequence[object]) -> list[Any]:
        if not self._history.exists:
            return []
        sql = _DIALECT.sql(self._names, statement)
        return await self._read(lambda connection: connection.execute(sql, values).fetchall())

    async def windows(self, limit: str, key: str, after: int, now: int) -> Stood:
        """The next windows of an account."""
        found = await self._found(statements.WINDOWS, (key, limit, after, until(now)))
        return parts_of(limit, key, found, self._remarks)

    async def page(self, after: Place, since: int, now: int) -> Page:
        """The next rows of all."""
        values = (*_DIALECT.spot(*after), since)
        return page_of(await self._found(_PAGE, values), now, self._remarks)
