"""Deltas into the table `ratelimit` of a server's database, a batch in a transaction of the store's.

What becomes of a row, statements.py says.
"""

from collections.abc import Callable, Iterator, Sequence

import trio

from ratelimitd.core.rows import Account, Delta
from ratelimitd.errors import StoreError
from ratelimitd.stores import keys_by_limit, statements
from ratelimitd.stores.dialect import Dialect
from ratelimitd.stores.doubts import Doubts
from ratelimitd.stores.shared.blame import is_record_s, takes_one
from ratelimitd.stores.shared.session import Session
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
    session: Session,
    sql: Callable[[str], str],
    d: Dialect,
    batch: Sequence[Delta],
    doubts: Doubts[Delta] | None = None,
) -> list[tuple[Delta, str]]:
    """Store a batch; the deltas that the database refuses, each with the reason. Raises StoreError.

    `doubts`: of the flush that the batch is a part of; without, whatever fails is at fault itself.
    """
    rejected: list[tuple[Delta, str]] = []
    if not batch:
        await trio.lowlevel.checkpoint()
    for some in _once_each(batch):
        rejected += await _store(session, sql, d, some, doubts)
    return rejected


async def _store(
    session: Session, sql: Callable[[str], str], d: Dialect, chunk: Sequence[Delta], doubts: Doubts[Delta] | None
) -> list[tuple[Delta, str]]:
    """A statement that fails changes nothing, so a bad record is found by halving the chunk."""
    upsert = sql(statements.upsert(d, chunk[0], len(chunk)))
    values = d.flat([delta.values for delta in chunk])
    try:
        await session.run_whole(upsert, values, len(chunk))
        if doubts:
            doubts.took()
        return []
    except (StoreError, UnicodeEncodeError) as error:
        if not await is_record_s(session, error, upsert, values, doubts.sound if doubts else None):
            raise
        if len(chunk) == 1:
            if doubts and not isinstance(error, UnicodeEncodeError):
                doubts.doubt(chunk[0][:2], chunk[0], error)
                if doubts.are_many:
                    await decide(session, sql, d, doubts)
            return [(chunk[0], str(error))]
    half = len(chunk) // 2
    halves = chunk[:half], chunk[half:]
    return [refused for some in halves for refused in await _store(session, sql, d, some, doubts)]


async def decide(session: Session, sql: Callable[[str], str], d: Dialect, doubts: Doubts[Delta]) -> None:
    """Find out whether the records are at fault, or the table: then it raises TableRefuses. Raises StoreError."""
    if doubts.there_are:
        one = doubts.example
        there = await session.run(sql(statements.SOME))
        others = doubts.others(str(text(key)) for (key,) in there)
        upsert = sql(statements.upsert(d, one))
        records = [one._replace(key=key, used=0).values for key in others]
        doubts.decide(takes_one=await takes_one(session, upsert, [d.flat([values]) for values in records]))


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
