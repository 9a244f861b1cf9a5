"""The history of a server's database as it is looked at. What is asked for, past.py beside this folder says."""

from collections.abc import Sequence

from ratelimitd.stores import Names
from ratelimitd.stores import history_statements as statements
from ratelimitd.stores.dialect import Dialect
from ratelimitd.stores.history import Stood, parts_of
from ratelimitd.stores.past import Page, Place, page_of, until
from ratelimitd.stores.remarks import Remarks
from ratelimitd.stores.shared.history import SharedHistory
from ratelimitd.stores.shared.session import Rows, Servers


class SharedPast:
    """The table of one database."""

    def __init__(
        self, dialect: Dialect, names: Names, remarks: Remarks, history: SharedHistory, servers: Servers
    ) -> None:
        self._dialect = dialect
        self._names = names
        self._remarks = remarks
        self._history = history
        self._servers = servers

    async def _found(self, statement: str, values: Sequence[object]) -> Rows:
        if not self._history.exists:
            return []
        sql = self._dialect.sql(self._names, statement)
        return await self._servers.attempt(lambda session: session.run(sql, values))

    async def windows(self, limit: str, key: str, after: int, now: int) -> Stood:
        """The next windows of an account."""
        found = await self._found(statements.WINDOWS, (key, limit, after, until(now)))
        return parts_of(limit, key, [(end, used) for end, used in found], self._remarks)

    async def page(self, after: Place, since: int, now: int) -> Page:
        """The next rows of all."""
        values = (*self._dialect.spot(*after), since)
        return page_of(await self._found(statements.page(self._dialect), values), now, self._remarks)
