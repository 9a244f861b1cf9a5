"""The keys of the tables beside `ratelimit`: without them a server adds a row where a flush means to change one.

Somebody may have copied or restored a table without its indexes. What `ratelimit` itself must be, the layouts say.
"""

from collections.abc import Collection, Iterator

from ratelimitd.errors import StoreUnsuitable
from ratelimitd.stores import Names

NODE, HISTORY = ("node",), ("sender", "limit_name", "expiry")


def tables(names: Names, *, history: bool) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The tables that a flush writes, and the key of each, as they are configured."""
    yield f"{names.table}_node", NODE
    if history:
        yield f"{names.table}_history", tuple(dict(names.columns).get(column, column) for column in HISTORY)


def require(table: str, key: Collection[str], unique: Collection[Collection[str]], quote: str) -> None:
    """Raise StoreUnsuitable where none of a table's `unique` indexes is on its key."""
    if {*key} not in [{*columns} for columns in unique]:
        columns = ", ".join(f"{quote}{column}{quote}" for column in key)
        raise StoreUnsuitable(
            f"the table {table} cannot be used: it has no unique index on ({', '.join(key)}): its owner must run: "
            f"ALTER TABLE {quote}{table}{quote} ADD PRIMARY KEY ({columns})"
        )
