"""The store in MySQL and MariaDB, a Galera cluster too: what is its own of the store that many nodes share."""

from collections.abc import Collection
from functools import partial

from ratelimitd.stores import Names
from ratelimitd.stores.dialect import Dialect, MySQL
from ratelimitd.stores.mysql import beside
from ratelimitd.stores.mysql.access import USUAL_PORT, Access
from ratelimitd.stores.mysql.aside import refuse_rows_aside
from ratelimitd.stores.mysql.layout import check, layout, tables, whole_numbers
from ratelimitd.stores.mysql.rights import lacking
from ratelimitd.stores.mysql.session import connect
from ratelimitd.stores.shared.looking import SharedLook
from ratelimitd.stores.shared.session import Servers, Session
from ratelimitd.stores.shared.store import SharedStore


class MySQLStore(SharedStore):
    """A Store in a MySQL or MariaDB database; `timeout_s` (seconds) is for connecting. Raises StoreError."""

    def __init__(self, access: Access, names: Names | None = None, *, timeout_s: float) -> None:
        self.access = access
        servers = Servers(access.addresses, partial(connect, access), USUAL_PORT, timeout_s)
        super().__init__(access.name, names or Names(), servers, MySQL())

    async def _check_tables(self, session: Session) -> None:
        await check(session, self._names, self.remarks, history=self._history.kept.is_needed)
        await beside.check(session, self._names, history=self._history.kept.is_needed)
        await refuse_rows_aside(session, self._names)

    async def _tables(self, session: Session) -> Collection[str]:
        return await tables(session)

    async def _grants(self, session: Session) -> str:
        return await lacking(session, self._names)

    async def _columns(self, session: Session) -> Collection[str]:
        return (await layout(session, self._names)).columns

    async def _lock_what_is_not_there(self, session: Session) -> None:
        """Nothing: a look FOR UPDATE locks the gaps between rows, too."""

    async def _dialect_now(self, session: Session) -> Dialect:
        return MySQL(await whole_numbers(session, self._names))


class MySQLLook(SharedLook, MySQLStore):
    """The same, for reading alone."""
