"""The order in which every store writes deltas: batches of one limit, by key, and no step takes long.

The order is the same on all nodes, so that two flushes take their locks one after the other. Sorting everything in one
call would hold the interpreter, and with it every reply, for some 50 ms at 50,000 accounts.
"""

from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from operator import attrgetter

from ratelimitd.core.rows import Delta

SLICE = 1000
"""Deltas that are sorted in one call: less than a millisecond."""

_KEY = attrgetter("key")


def batches(deltas: Iterable[Delta], size: int) -> Iterator[Sequence[Delta]]:
    """The deltas, at most `size` at a time, all of a batch with one limit and one `latest`.

    Batches without deltas are among them: pauses, in which others may have their turn.
    """
    runs: dict[tuple[str, int], list[list[Delta]]] = {}
    for number, delta in enumerate(deltas, 1):
        of_limit = runs.setdefault((delta.limit, delta.latest), [[]])
        of_limit[-1].append(delta)
        if len(of_limit[-1]) == SLICE:
            of_limit[-1].sort(key=_KEY)
            of_limit.append([])
        if number % size == 0:
            yield ()
    for _, of_limit in sorted(runs.items()):
        of_limit[-1].sort(key=_KEY)
        yield from _slices(merge(*of_limit, key=_KEY), size)


def _slices(deltas: Iterable[Delta], size: int) -> Iterator[Sequence[Delta]]:
    batch: list[Delta] = []
    for delta in deltas:
        batch.append(delta)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
