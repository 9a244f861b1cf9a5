"""Deltas into the table `ratelimit` of a server's database, a batch in a transaction of the store's.

What becomes of a row, statements.py says.
"""

from collections.abc import Callable, Iterator, Sequence

import trio

from ratelimitd.core.rows import Account, Delta
from ratelimitd.errors import StoreError, StoreUnsuitable
from ratelimitd.stores import keys_by_limit, statements
from ratelimitd.stores.dialect import Dialect
from ratelimitd.stores.doubts import Doubts
from ratelimitd.stores.shared.session import DatabaseError, Missing, Session
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
    session: Session, sql: Callable[[str], str], d: Dialect, batch: Sequence[Delta], doubts: Doubts | None = None
) -> list[tuple[Delta, str]]:
    """Store a batch; the deltas that the database refuses, each with the reason. Raises StoreError.

    `doubts`: of the flush that the batch is a part of; without, whatever fails is at fault itself.
    """
    doubts = doubts or Doubts()
    rejected: list[tuple[Delta, str]] = []
    if not batch:
        await trio.lowlevel.checkpoint()
    for some in _once_each(batch):
        rejected += await _store(session, sql, d, some, doubts)
    return rejected


async def _store(
    session: Session, sql: Callable[[str], str], d: Dialect, chunk: Sequence[Delta], doubts: Doubts
) -> list[tuple[Delta, str]]:
    """A statement that fails changes nothing, so a bad record is found by halving the chunk."""
    upsert = sql(statements.upsert(d, chunk[0], len(chunk)))
    values = d.flat([delta.values for delta in chunk])
    try:
        await session.run_whole(upsert, values)
        doubts.took()
        return []
    except (StoreError, UnicodeEncodeError) as error:
        if not _is_bad_record(error):
            if not (_may_be_a_trigger_s(error) and await _is_sound(session, upsert, values)):
                raise
            if len(chunk) == 1:
                doubts.doubt(error)
        if len(chunk) == 1:
            return [(chunk[0], str(error))]
    half = len(chunk) // 2
    halves = chunk[:half], chunk[half:]
    return [refused for some in halves for refused in await _store(session, sql, d, some, doubts)]


def _is_bad_record(error: Exception) -> bool:
    return error.bad_record if isinstance(error, DatabaseError) else isinstance(error, UnicodeEncodeError)


def _may_be_a_trigger_s(error: Exception) -> bool:
    """Whether it is neither another transaction nor the server that made a statement fail."""
    if isinstance(error, DatabaseError):
        return not (error.conflict or error.elsewhere)
    return isinstance(error, (StoreUnsuitable, Missing))


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


async def _is_sound(session: Session, statement: str, values: Sequence[object]) -> bool:
    """Whether the server can explain it: it looks at tables and rights for that. A transaction may be over, if not."""
    try:
        await session.run(f"EXPLAIN {statement}", values)
    except (StoreUnsuitable, Missing):
        return False
    except DatabaseError as error:
        if error.conflict or error.elsewhere:
            raise
        return False
    return True
