"""The statements of the table `ratelimit_history`, for all databases; what differs between them, dialect.py says.

Rows are written by their whole primary key, in its order: such locks exclude no other row.
"""

from ratelimitd.core.rows import MAX_USED
from ratelimitd.stores.dialect import Dialect
from ratelimitd.stores.history import STEP
from ratelimitd.stores.past import PAGE

VALUES = "ttnn"
"""The kinds of a row's values: limit, key, expiry, used."""

_INTO = 'INSERT INTO "ratelimit_history" ("limit_name", "sender", "expiry", "used")'
_OF = '"sender" = %s AND "limit_name" = %s AND "expiry"'
DELETE = f'DELETE FROM "ratelimit_history" WHERE {_OF} = %s'
MOVED = f'DELETE FROM "ratelimit_history" WHERE {_OF} > %s'
PARTS = f'SELECT "expiry", "used" FROM "ratelimit_history" WHERE {_OF} > %s AND "expiry" <= %s'
WINDOWS = f'{PARTS} ORDER BY "expiry" LIMIT {PAGE}'
"""The next rows of an account: (key, limit, after, until)."""


def _there(d: Dialect) -> str:
    """What a row holds that is there already."""
    return d.count("used", "ratelimit_history")


def add(d: Dialect) -> str:
    """What a row's use becomes where something is added."""
    return d.least(f"{_there(d)} + {d.new('used')}", str(MAX_USED))


def at_least(d: Dialect) -> str:
    """What it becomes where something is the least."""
    return d.greatest(_there(d), d.new("used"))


def just(d: Dialect) -> str:
    """What it becomes where it is set."""
    return d.new("used")


def write(d: Dialect, used: str, count: int = 1) -> str:
    """Write so many rows (limit, key, expiry, used); where one is there already, its use becomes `used`."""
    return f'{_INTO} {d.rows(VALUES, count)} {d.conflict(*d.place)} "used" = {used}'


def set_use(d: Dialect, count: int = 1, *, in_parts: bool) -> str:
    """Set use and end of so many rows of `ratelimit`, which are all there: (limit, key, expiry, used)."""
    used = d.new("used")
    parts = used if in_parts else "NULL"
    return (
        f'INSERT INTO "ratelimit" ("limit_name", "sender", "expiry", "used") {d.rows(VALUES, count)} '
        f'{d.conflict("sender", "limit_name")} "used" = {used}, "in_parts" = {parts}, "expiry" = {d.new("expiry")}'
    )


SET_USE = 'UPDATE "ratelimit" SET "used" = %s, "in_parts" = %s, "expiry" = %s WHERE "sender" = %s AND "limit_name" = %s'
"""The same for one row: (used, used in parts, expiry, key, limit)."""


def move(d: Dialect) -> str:
    """Add the parts of an account after a time to another one's: (key, old key, limit, time)."""
    return f"""
{_INTO} SELECT "limit_name", %s, "expiry", "used" FROM "ratelimit_history" AS "h" WHERE {_OF} > %s
{d.conflict(*d.place)} "used" = {add(d)}
"""


ANY = 'SELECT 1 FROM "ratelimit_history" LIMIT 1'
"""A row, if there are some."""


def probe(d: Dialect) -> str:
    """Write nothing, which fails without the right to write."""
    return f"""
{_INTO} SELECT "limit_name", "sender", "expiry", "used" FROM "ratelimit_history" AS "h" WHERE FALSE
{d.conflict(*d.place)} "used" = 0
"""


def forget(d: Dialect) -> str:
    """Delete rows that ended by a time, at most STEP: (time)."""
    place = ", ".join(f'"{column}"' for column in d.place)
    old = f'"ratelimit_history" WHERE "expiry" <= %s ORDER BY "expiry", "sender", "limit_name" LIMIT {STEP}'
    if d.deletes_in_order:
        return f"DELETE FROM {old}"
    return f'DELETE FROM "ratelimit_history" WHERE ({place}) IN (SELECT {place} FROM {old})'


def far(d: Dialect) -> str:
    """A row that ends after a time."""
    sender = d.name('"sender"')
    return f'SELECT "limit_name", {sender}, "expiry", "used" FROM "ratelimit_history" WHERE "expiry" > %s LIMIT 1'


def others(d: Dialect) -> str:
    """Rows of a limit after an id that end after a time, or count in parts and end after another, and their senders:
    (limit, id, time, other time, count)."""
    return f"""
SELECT "id", {d.name('"sender"')} FROM "ratelimit" WHERE "limit_name" = %s AND "id" > %s AND ({d.count("expiry")} > %s
OR {d.whole("in_parts")} IS NOT NULL AND {d.count("expiry")} > %s) ORDER BY "id" LIMIT %s
"""


def page(d: Dialect) -> str:
    """The next rows of all accounts, in the order of the primary key: what `d.spot` makes of the place of the last one
    before, then (after).

    With a sign, `expiry` keeps the index of what ended from being used instead; a second bound would have PostgreSQL
    expect few rows, and sort them.
    """
    sender, order = d.name('"sender"'), ", ".join(f'"{column}"' for column in d.place)
    return (
        f'SELECT {sender}, "limit_name", "expiry", "used" FROM "ratelimit_history" '
        f'WHERE {d.beyond()} AND +"expiry" > %s ORDER BY {order} LIMIT {PAGE}'
    )
