"""Whether a migration, there or back, has ended before its end: then rows of other limits are where nothing counts.

What brings them back is `ratelimitctl migrate`.
"""

from ratelimitd.errors import StoreUnsuitable
from ratelimitd.stores import Names
from ratelimitd.stores.mysql.layout import ADDED, MIGRATE, layout
from ratelimitd.stores.shared.session import Session


async def refuse_rows_aside(session: Session, names: Names) -> None:
    """Raise StoreUnsuitable where `ratelimit_aside` has rows: what is counted now would not be added to them.

    A table that only has the name, or that the account does not see, is not of a migration.
    """
    aside = f"{names.table}_aside"
    found = await layout(session, names._replace(table=aside))
    if not found.columns.keys() >= {"sender", *ADDED}:
        return
    if await session.run(names.apply("SELECT 1 FROM `ratelimit_aside` LIMIT 1", "`")):
        raise StoreUnsuitable(
            f"a migration of the table {names.table} was interrupted: rows of other limits are in {aside}, where "
            f"nothing counts: {MIGRATE}, which brings them back"
        )
