"""What MySQL and MariaDB say of the rights of the daemon's account, without trying them."""

from contextlib import suppress

from ratelimitd.errors import StoreUnsuitable
from ratelimitd.stores import Names
from ratelimitd.stores.shared.rights import RIGHTS, grants
from ratelimitd.stores.shared.session import DatabaseError, Session

_COLUMNS = (
    "SELECT TABLE_NAME, PRIVILEGES FROM information_schema.COLUMNS "
    "WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME IN (%s, %s, %s, %s)"
)
_TABLES = (
    "SELECT TABLE_NAME FROM information_schema.TABLES "
    "WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME IN (%s, %s, %s, %s)"
)
_WHO = "SELECT CURRENT_USER(), DATABASE()"


async def lacking(session: Session, names: Names) -> str:
    """The statements that give the account what it lacks on the tables that it sees; "": it lacks nothing.

    A table on which it has no right at all is not shown to it.
    """
    account, database = await who(session)
    there = {str(name) for (name,) in await session.run(_TABLES, names.tables)}
    columns: dict[str, set[str]] = {}
    for name, privileges in await session.run(_COLUMNS, names.tables):
        rights = set(str(privileges).upper().split(","))
        columns[str(name)] = columns.get(str(name), rights) & rights
    found: list[tuple[str, str]] = []
    for name in names.tables:
        if name in there:
            may = set(columns.get(name, ()))
            if await _may_delete(session, name):
                may.add("DELETE")
            found.append((f"`{database}`.`{name}`", ", ".join(right for right in RIGHTS if right not in may)))
    return grants(found, account)


async def _may_delete(session: Session, name: str) -> bool:
    """No column has this right; a DELETE is explained to whom may do it alone."""
    try:
        with suppress(DatabaseError):  # some other fault: it is not known
            await session.run(f"EXPLAIN DELETE FROM `{name}`")
    except StoreUnsuitable:
        return False
    return True


async def remedy(session: Session) -> str:
    """What an administrator must do where the account may not create a table, or is not shown it."""
    account, database = await who(session)
    return (
        f"an administrator must run sql/mysql.sql in this database, unless the table is there, and: "
        f"GRANT {', '.join(RIGHTS)} ON `{database}`.* TO {account}"
    )


async def who(session: Session) -> tuple[str, str]:
    """The account that the session's rights are of, as GRANT names it, and the database."""
    ((user, database),) = await session.run(_WHO)
    name, _, host = str(user).rpartition("@")
    return f"'{name}'@'{host}'", str(database)
