"""The store in PostgreSQL: what is its own of the store that many nodes share."""

from collections.abc import Collection
from functools import partial

from ratelimitd.stores import Names
from ratelimitd.stores.dialect import Dialect, PostgreSQL
from ratelimitd.stores.postgresql.access import USUAL_PORT, Access
from ratelimitd.stores.postgresql.layout import LOCK, check, layout, tables, whole_numbers
from ratelimitd.stores.postgresql.rights import lacking
from ratelimitd.stores.postgresql.session import connect
from ratelimitd.stores.shared.looking import SharedLook
from ratelimitd.stores.shared.session import Servers, Session
from ratelimitd.stores.shared.store import SharedStore


class PostgreSQLStore(SharedStore):
    """A Store in a PostgreSQL database; `timeout_s` (seconds) is for connecting. Raises StoreError."""

    def __init__(self, access: Access, names: Names | None = None, *, timeout_s: float) -> None:
        servers = Servers(access.addresses, partial(connect, access), USUAL_PORT, timeout_s)
        self.access = access
        super().__init__(access.name, names or Names(), servers, PostgreSQL())

    async def _check_tables(self, session: Session) -> None:
        await check(session, self._names, self.remarks, history=self._history.kept.is_needed)

    async def _tables(self, session: Session) -> Collection[str]:
        return await tables(session, self._names)

    async def _columns(self, session: Session) -> Collection[str]:
        return (await layout(session, self._names)).columns

    async def _dialect_now(self, session: Session) -> Dialect:
        return PostgreSQL(await whole_numbers(session, self._names))

    async def _grants(self, session: Session) -> str:
        return await lacking(session, self._names)

    async def _lock_what_is_not_there(self, session: Session) -> None:
        await session.run(self._sql(LOCK))


class PostgreSQLLook(SharedLook, PostgreSQLStore):
    """The same, for reading alone."""
