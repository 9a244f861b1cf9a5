"""Whether the tables beside `ratelimit` of a MySQL or MariaDB database have their keys, and can be rolled back."""

from ratelimitd.errors import StoreUnsuitable
from ratelimitd.stores import Names
from ratelimitd.stores.mysql.layout import tables
from ratelimitd.stores.shared import beside
from ratelimitd.stores.shared.session import Session

_UNIQUE = (
    "SELECT GROUP_CONCAT(COLUMN_NAME) FROM information_schema.STATISTICS "
    "WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = %s AND NON_UNIQUE = 0 GROUP BY INDEX_NAME"
)
_SHOWN = (
    "SELECT 1 FROM information_schema.COLUMNS "
    "WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = %s AND PRIVILEGES LIKE '%%select%%' LIMIT 1"
)


async def check(session: Session, names: Names, *, history: bool) -> None:
    """Raise StoreUnsuitable where one is unsuitable. A view, and what the account may not look at, are passed over."""
    engines = await tables(session)
    for table, key in beside.tables(names, history=history):
        engine = engines.get(table, "VIEW")
        if engine == "VIEW" or not await session.run(_SHOWN, (table,)):
            continue
        if engine.lower() != "innodb":  # what is recorded there would stay where a flush is rolled back
            how = f"its owner must run: ALTER TABLE `{table}` ENGINE = InnoDB"
            raise StoreUnsuitable(f"the table {table} cannot be used: its engine is {engine}, not InnoDB: {how}")
        unique = [str(columns).split(",") for (columns,) in await session.run(_UNIQUE, (table,))]
        beside.require(table, key, unique, "`")
