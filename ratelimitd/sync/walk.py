"""Walks over all accounts in memory: a slice at a time, so that other tasks have their turn in between."""

from collections.abc import AsyncIterator, Sequence
from heapq import nlargest
from typing import TypeVar

import trio

from ratelimitd.core.counters import Counter, Meter
from ratelimitd.core.rows import slices

SLICE = 500
"""Accounts per turn: a millisecond or less."""

T = TypeVar("T")


async def walk(items: Sequence[T]) -> AsyncIterator[Sequence[T]]:
    """The items, SLICE at a time; other tasks have their turn after each."""
    for some in slices(items, SLICE):
        yield some
        await trio.lowlevel.checkpoint()


async def most_used(meter: Meter, count: int, now: int) -> list[Counter]:
    """The accounts of a limit that have used most in their present windows, at most `count`, most first."""
    best: list[Counter] = []
    async for counters in walk(list(meter.counters.values())):
        sending = [counter for counter in counters if counter.expiry > now and counter.used]
        best = nlargest(count, [*best, *sending], key=_used)
    return best


def _used(counter: Counter) -> int:
    return counter.used
