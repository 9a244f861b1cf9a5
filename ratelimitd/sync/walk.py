"""Walks over all accounts in memory: a slice at a time, so that other tasks have their turn in between."""

from collections.abc import AsyncIterator, Sequence
from heapq import nlargest
from itertools import islice
from operator import itemgetter
from typing import TypeVar

import trio

from ratelimitd.core.counters import Counter, Meter
from ratelimitd.core.pending import Pending
from ratelimitd.core.rows import slices
from ratelimitd.core.standing import used_at

SLICE = 500
"""Accounts per turn: a millisecond or less."""
ROWS = 100
"""Rows per turn: 5 ms where each has all parts of a sliding limit, else a tenth of that."""
WITH_PARTS = 50
"""Accounts of a sliding limit per turn, where something is made of each of their parts."""

T = TypeVar("T")


async def walk(items: Sequence[T], size: int = SLICE) -> AsyncIterator[Sequence[T]]:
    """The items, some at a time; other tasks have their turn after each."""
    for some in slices(items, size):
        yield some
        await trio.lowlevel.checkpoint()


async def walk_charged(pending: Pending) -> AsyncIterator[Sequence[Counter]]:
    """The counters with charges that are not stored yet, of one segment after the other. Nobody charges to a closed one
    any more, so nobody copies it, either: with 200,000 accounts that takes longer than all slices together."""
    segments = (*pending.closed, pending.open)
    for segment in segments[:-1]:
        counters = iter(segment.deltas)
        while some := list(islice(counters, SLICE)):
            yield some
            await trio.lowlevel.checkpoint()
    async for last in walk(list(segments[-1].deltas)):
        yield last


async def most_used(meter: Meter, count: int, now: int, *, of_quota: bool = False) -> list[Counter]:
    """The accounts of a limit that have used most in their present windows, at most `count`, most first; `of_quota`:
    most of their quotas."""
    best: list[tuple[float, Counter]] = []
    async for counters in walk(list(meter.counters.values())):
        using = [
            (used / counter.quota if of_quota and counter.quota else 0 if of_quota else used, counter)
            for counter in counters
            if (used := used_at(counter, now))
        ]
        best = nlargest(count, [*best, *using], key=itemgetter(0))
    return [counter for _, counter in best]
