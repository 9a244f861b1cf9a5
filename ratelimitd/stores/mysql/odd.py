"""Rows of MySQL that say nothing readable of their use, found before a flush writes to them; and rows that the database
refuses to change.

What memory knows of them is not known here.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from ratelimitd.core.rows import Account, Delta
from ratelimitd.stores import keys_by_limit
from ratelimitd.stores.mysql import statements
from ratelimitd.stores.mysql.session import DatabaseError, Session
from ratelimitd.stores.mysql.values import text
from ratelimitd.stores.remarks import Remarks


async def odd(session: Session, sql: Callable[[str], str], chunk: Sequence[Delta]) -> list[Account]:
    """Those of the accounts whose row has a use, or an end of the window, that is no number. Raises StoreError."""
    found: list[Account] = []
    for limit, keys in keys_by_limit(Account(delta.limit, delta.key) for delta in chunk).items():
        select = sql(statements.select(len(keys), "CAST(`sender` AS BINARY)") + statements.ODD + " FOR UPDATE")
        found += [Account(limit, str(text(key))) for (key,) in await session.run(select, (limit, *keys))]
    return found


@asynccontextmanager
async def each(session: Session, remarks: Remarks, limit: str, key: str) -> AsyncIterator[None]:
    """Change one row of many: where the database refuses that, it stays as it is, and that is said."""
    await session.run("SAVEPOINT `row`")
    try:
        yield
    except DatabaseError as error:
        if not error.bad_record:
            raise
        await session.run("ROLLBACK TO SAVEPOINT `row`")
        remarks.refused(limit, key, error)
