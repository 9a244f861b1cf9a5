"""Which limit's a row is that names none, as a panel inserts it: the DEFAULT of the column `limit_name`.

It is the first limit's name. But somebody who tries another configuration on the database must not turn a panel's rows
away from the daemon that counts by them: where rows are of the limit that stands there, it stays, and that is said.
"""

import re

from ratelimitd.errors import StoreError, StoreUnsuitable
from ratelimitd.stores import Names
from ratelimitd.stores.dialect import Dialect
from ratelimitd.stores.remarks import Remarks
from ratelimitd.stores.shared.session import Session

OTHER = "rows inserted without limit_name are of another limit than the first one; it has rows, so that is not changed"
_STANDS = re.compile(r"'?([A-Za-z0-9_.-]+)")
"""MariaDB and PostgreSQL give it as it is written, PostgreSQL with its type; MySQL as it is."""
_IN_USE = 'SELECT 1 FROM "ratelimit" WHERE "limit_name" = %s LIMIT 1'
_SET = 'ALTER TABLE "ratelimit" ALTER COLUMN "limit_name" SET DEFAULT \'default\''


async def settle(session: Session, dialect: Dialect, names: Names, remarks: Remarks, *, change: bool) -> None:
    """Have it be the first limit's, where nobody counts by another one; without `change` nothing is altered."""
    column = dict(names.columns).get("limit_name", "limit_name")
    found = await session.run(dialect.sql(names, dialect.default_of), (names.table, column))
    stands = _STANDS.match(str(found[0][0])) if found and found[0][0] not in (None, "NULL") else None
    limit = stands[1] if stands else ""
    if limit == names.limit:
        return
    statement = dialect.sql(names, _SET)
    try:
        in_use = limit and await session.run(dialect.sql(names, _IN_USE), (limit,))
    except StoreUnsuitable:  # the account may not read the table: LACKING has been said, with what to grant
        return
    if in_use:
        remarks.add(OTHER, limit=limit, first=names.limit, statement=statement)
    elif change:
        try:
            await session.run(statement)
        except StoreError as error:
            what = "the table should be changed, which the daemon's account may not; an administrator's can"
            remarks.add(what, statement=statement, reason=str(error))
