"""Rows of MySQL that say nothing readable of their use: found before a flush writes to them, and begun again.

What memory knows of them is not known here.
"""

from collections.abc import Callable, Iterable, Sequence

from ratelimitd.core.rows import Account, Delta, Row
from ratelimitd.stores import keys_by_limit, unreadable
from ratelimitd.stores.mysql import statements
from ratelimitd.stores.mysql.session import Session
from ratelimitd.stores.mysql.values import text


async def odd(session: Session, sql: Callable[[str], str], chunk: Sequence[Delta]) -> list[Account]:
    """Those of the accounts whose row has a use, or an end of the window, that is no number. Raises StoreError."""
    found: list[Account] = []
    for limit, keys in keys_by_limit(Account(delta.limit, delta.key) for delta in chunk).items():
        select = sql(statements.select(len(keys), "CAST(`sender` AS BINARY)") + statements.ODD + " FOR UPDATE")
        found += [Account(limit, str(text(key))) for (key,) in await session.run(select, (limit, *keys))]
    return found


async def begin_again(
    session: Session, sql: Callable[[str], str], accounts: Iterable[Account], rows: Iterable[Row]
) -> None:
    """Set the use to 0 in those of the accounts' rows that could not be read. Raises StoreError."""
    for missing in unreadable(accounts, rows):
        await session.run(sql(statements.RESET), missing)
