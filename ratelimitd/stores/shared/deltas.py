"""Deltas into the table `ratelimit` of a server's database, a batch in a transaction of the store's.

What becomes of a row, statements.py says.
"""

from collections.abc import Callable, Iterator, Sequence

import trio

from ratelimitd.core.rows import Account, Delta
from ratelimitd.stores import keys_by_limit, statements
from ratelimitd.stores.dialect import Dialect
from ratelimitd.stores.shared.session import DatabaseError, Session
from ratelimitd.stores.shared.values import text


async def odd(session: Session, sql: Callable[[str], str], d: Dialect, batch: Sequence[Delta]) -> list[Account]:
    """Those of the accounts whose row has a use, or an end of the window, that is no number. Raises StoreError.

    All are locked: none becomes odd before the batch is stored.
    """
    found: list[Account] = []
    for limit, keys in keys_by_limit(Account(delta.limit, delta.key) for delta in batch).items():
        values = (limit, *d.spread(keys))
        await session.run(sql(statements.lock(d, len(keys))), values)
        rows = await session.run(sql(statements.odd(d, len(keys))), values)
        found += [Account(limit, str(text(key))) for (key,) in rows]
    return found


async def store(
    session: Session, sql: Callable[[str], str], d: Dialect, batch: Sequence[Delta]
) -> list[tuple[Delta, str]]:
    """Store a batch; the deltas that the database refuses, each with the reason. Raises StoreError."""
    rejected: list[tuple[Delta, str]] = []
    if not batch:
        await trio.lowlevel.checkpoint()
    for some in _once_each(batch):
        rejected += await _store(session, sql, d, some)
    return rejected


async def _store(
    session: Session, sql: Callable[[str], str], d: Dialect, chunk: Sequence[Delta]
) -> list[tuple[Delta, str]]:
    """A statement that fails changes nothing, so a bad record is found by halving the chunk."""
    upsert = sql(statements.upsert(d, chunk[0], len(chunk)))
    try:
        await session.run_whole(upsert, d.flat([delta.values for delta in chunk]))
        return []
    except (DatabaseError, UnicodeEncodeError) as error:
        if isinstance(error, DatabaseError) and not error.bad_record:
            raise
        if len(chunk) == 1:
            return [(chunk[0], str(error))]
    half = len(chunk) // 2
    return await _store(session, sql, d, chunk[:half]) + await _store(session, sql, d, chunk[half:])


def _once_each(batch: Sequence[Delta]) -> Iterator[Sequence[Delta]]:
    """A batch in as many turns as an account stands in it, in its order: no statement names a row twice."""
    turns: list[list[Delta]] = []
    times: dict[str, int] = {}
    for delta in batch:
        turn = times[delta.key] = times.get(delta.key, -1) + 1
        if turn == len(turns):
            turns.append([])
        turns[turn].append(delta)
    yield from turns
