"""Rows of `ratelimit` as a server gives them, and those of accounts read, in a transaction of the store's or not."""

from collections.abc import Callable, Iterable, Sequence

from ratelimitd.core.rows import Account, Row, slices
from ratelimitd.stores import keys_by_limit, statements
from ratelimitd.stores.dialect import Dialect
from ratelimitd.stores.remarks import Remarks
from ratelimitd.stores.shared.session import Session
from ratelimitd.stores.shared.values import text
from ratelimitd.stores.survey import EXAMPLES, Survey

CHUNK = 250
"""Rows per statement: at most a few milliseconds of the loop's time."""
LOCK = " FOR UPDATE"


def rows_of(remarks: Remarks, found: Iterable[Sequence[object]], left_out: set[Account] | None = None) -> list[Row]:
    """The rows of these values; the accounts of those that make no sense are added to `left_out`."""
    return remarks.rows(((*map(text, values[:2]), *values[2:]) for values in found), left_out)


class StoredRows:
    """The rows of one table."""

    def __init__(self, dialect: Dialect, sql: Callable[[str], str], remarks: Remarks) -> None:
        self._dialect = dialect
        self._sql = sql
        self._remarks = remarks

    async def select(
        self, session: Session, accounts: Iterable[Account], lock: str = "", left_out: set[Account] | None = None
    ) -> list[Row]:
        """The rows of these accounts, without their parts."""
        rows: list[Row] = []
        for limit, keys in keys_by_limit(accounts).items():
            for chunk in slices(keys, CHUNK):
                select = self._sql(statements.select(self._dialect, len(chunk), lock))
                found = await session.run(select, (limit, *self._dialect.spread(chunk)))
                rows += rows_of(self._remarks, found, left_out)
        return rows


async def surveyed(session: Session, sql: Callable[[str], str], d: Dialect) -> Survey:
    """What stands in the table, as far as it concerns an administrator."""
    limits = await session.run(sql(statements.limits(d)))
    odd: list[tuple[object, ...]] = []
    for statement in statements.written_wrongly(d):
        odd += await session.run(sql(statement), (EXAMPLES,))
    return Survey.of((map(text, row) for row in limits), (map(text, row) for row in odd))
