"""What the stores must make of any row: a count, or a line that names it; and the next charge is stored in any case."""

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing

import msgspec
import trio

from ratelimitd.core.rows import Account, Delta, Row, Unreadable, read
from ratelimitd.stores import Flushed, Store
from ratelimitd.stores.history import Kept
from ratelimitd.stores.sqlite import SQLiteStore
from ratelimitd.stores.survey import Rename
from tests.fuzz.scratch import FOLDER

SOON, LATER = 4_000_000_000, 4_000_086_400
COLUMNS = (
    "limit_name",
    "sender",
    "quota",
    "configured",
    "persist",
    "used",
    "expiry",
    "updated",
    "seen",
    "until",
    "in_parts",
)
_FILE = FOLDER / "rows.sqlite3"
_ALICE = Account("daily", "alice")


def check_read(data: bytes) -> None:
    """As the values of a row, from MySQL or SQLite. Raises AssertionError."""
    values = list(_values(data))
    found = read(values)
    if isinstance(found, Unreadable):
        assert all(field.isprintable() and len(field) < 2000 for field in found)
        return
    assert isinstance(found, Row)
    for number in (found.quota, found.configured, found.used, found.seen, found.until, found.in_parts):
        assert number is None or 0 <= number <= 4_294_967_295
    assert 0 <= found.expiry <= 1 << 62 >= found.updated
    (found.limit + found.key).encode()
    assert found.quota_at(SOON, 10) >= 0


def check_sqlite(data: bytes) -> None:
    """As what somebody has put into a row of the SQLite file, of a fixed limit and of a sliding one; and into a row
    that is written as no key is. Raises AssertionError."""
    values = dict(zip(COLUMNS[2:], [*_values(data), *[None] * len(COLUMNS)][2:], strict=False))
    trio.run(_check_sqlite, values)
    match sum(data) % 3:  # each takes as long as the first
        case 0:
            trio.run(_check_sliding, values)
        case 1:
            trio.run(_check_adoption, values, "alice")
        case _:
            trio.run(_check_adoption, values, "Alice")


@asynccontextmanager
async def _fresh_store() -> AsyncIterator[Store]:
    for suffix in ("", "-wal", "-shm"):
        _FILE.with_name(_FILE.name + suffix).unlink(missing_ok=True)
    store: Store = SQLiteStore(_FILE)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def _check_sliding(values: dict[str, object]) -> None:
    async with _fresh_store() as store:
        store.configure(1, Kept(sliding={"daily"}))
        parts = [Delta("daily", "alice", SOON, 5, 10, 10, LATER, now=SOON - 100, sliding=True)]
        await store.flush("node", 1, lambda _: parts)
        _put(values)
        await store.lookup([_ALICE], SOON - 100)
        assert not (await store.flush("node", 2, lambda _: parts)).rejected
        (row,) = await store.lookup([_ALICE], SOON - 100)
        assert row.used >= 5 or row.parts


async def _check_adoption(values: dict[str, object], of: str) -> None:
    """`values` are those of the account's own row, or of the other one; the account's row counts afterwards."""
    async with _fresh_store() as store:
        await _flush(store, 1)
        _execute("INSERT INTO ratelimit (sender, limit_name, quota, persist) VALUES ('Alice', 'daily', 7, 1)")
        _put(values, of)
        others = await store.lookup([Account("daily", "Alice")], 0)
        await store.adopt([Rename("daily", "Alice", "alice", 10, latest=LATER)], SOON - 100)
        found = {row.key: row for row in await store.lookup([_ALICE, Account("daily", "Alice")], 0)}
        assert "Alice" not in found
        assert "alice" in found or not others
        if of == "alice":
            assert found["alice"].persist


async def _check_sqlite(values: dict[str, object]) -> None:
    async with _fresh_store() as store:
        cursor = (await store.changes(None, 0)).cursor
        await _flush(store, 1)
        _put(values)
        before = await store.lookup([_ALICE], 0)
        await store.changes(cursor, 0)
        assert before or store.remarks.take()
        flushed = await _flush(store, 2)
        assert not flushed.rejected
        (row,) = await store.lookup([_ALICE], 0)
        counted = before[0].used if before and before[0].expiry == SOON else None
        if counted is not None:
            assert row.used == min(counted + 5, 4_294_967_295)
        elif not before or before[0].expiry > LATER or before[0].expiry < SOON:
            assert row.used >= 5
        assert (await store.lookup([Account("daily", "bob")], 0))[0].used == 10


async def _flush(store: Store, segment: int) -> Flushed:
    deltas = [Delta("daily", key, SOON, 5, 10, 10, LATER, now=SOON - 100) for key in ("alice", "bob")]
    return await store.flush("node", segment, lambda _: deltas)


def _execute(statement: str) -> None:
    with closing(sqlite3.connect(_FILE, isolation_level=None)) as connection:
        connection.execute(statement)


def _put(values: dict[str, object], key: str = "alice") -> None:
    connection = sqlite3.connect(_FILE, isolation_level=None)
    try:
        for column, value in values.items():
            try:
                connection.execute(f"UPDATE ratelimit SET {column} = ? WHERE sender = ?", (value, key))
            except (sqlite3.Error, ValueError, OverflowError):
                continue  # the file itself does not take it
    finally:
        connection.close()


def _values(data: bytes) -> Iterator[object]:
    """What a line says: JSON, else the bytes themselves where they are no text."""
    for line in data.split(b"\n")[:12]:
        try:
            value = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            try:
                value = line.decode()
            except UnicodeDecodeError:
                value = line
        yield value if isinstance(value, str | int | float | bytes | bool | None) else str(value)
