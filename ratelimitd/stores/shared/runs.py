"""The runs of daemons that have stored something in a server's database: the last segment of each; who is forgotten."""

from collections.abc import Callable, Collection
from contextlib import suppress

from ratelimitd.errors import StoreUnsuitable
from ratelimitd.stores import RUNS_KEPT_DAYS, recorded_segment, statements
from ratelimitd.stores.dialect import Dialect
from ratelimitd.stores.shared.reading import LOCK
from ratelimitd.stores.shared.session import Session

_DAY_S = 86_400


async def begin(session: Session, sql: Callable[[str], str], d: Dialect, node: str) -> int:
    """Begin a transaction with a lock on a run's row; the segment recorded in it."""
    select = sql(statements.RECORDED + LOCK)
    await session.begin()
    found = await session.run(select, (node,))
    if not found:  # a row that does not exist cannot be locked
        await session.rollback()
        await session.run(sql(statements.note_run(d)), (node,))
        await session.begin()
        found = await session.run(select, (node,))
    return recorded_segment(found)


async def forget(session: Session, sql: Callable[[str], str], d: Dialect, but: Collection[str], now: int) -> None:
    """Forget those that have stored nothing for RUNS_KEPT_DAYS at `now`, in seconds since 1970, except some."""
    ended = sql(statements.ended_runs(d))
    with suppress(StoreUnsuitable):  # an account without the right to delete leaves a small row per run
        # One by one: a DELETE that scans the table would wait for every node that is flushing.
        for (node,) in await session.run(ended, (now, RUNS_KEPT_DAYS * _DAY_S)):
            if node not in but:
                await session.run(sql(statements.FORGET_RUN), (node,))
