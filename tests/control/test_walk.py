"""Who walks over what is not stored yet takes a slice at a time, also of a closed segment with very many accounts."""

from collections.abc import Iterator

from ratelimitd.core.counters import Counter
from ratelimitd.sync.walk import SLICE, walk_charged
from tests.core.build import NOON, charge, limit, policy


class Watched(dict[Counter, int]):
    """Counts what is taken of it."""

    taken = 0

    def __iter__(self) -> Iterator[Counter]:
        for counter in super().__iter__():
            self.taken += 1
            yield counter


async def test_a_closed_segment_is_not_copied_and_what_is_charged_meanwhile_ends_nothing() -> None:
    asked = policy(limit(10))
    (meter,) = asked.meters
    pending = asked.pending

    def send(first: int, count: int) -> list[Counter]:
        counters = [meter.accept(f"user{i}", None, 0, NOON) for i in range(first, first + count)]
        for counter in counters:
            charge(pending, counter, 1)
        return counters

    closed = send(0, 3 * SLICE)
    pending.open.deltas = watched = Watched(pending.open.deltas)
    pending.close(2)
    opened = send(3 * SLICE, SLICE)
    found: list[Counter] = []
    async for counters in walk_charged(pending):
        found += counters
        assert watched.taken == min(len(found), len(closed))
        send(4 * SLICE + len(found), 1)
        if len(found) == SLICE:
            pending.close(3)  # a flush begins
    assert found[: 3 * SLICE] == closed
    assert found[3 * SLICE :][: len(opened)] == opened
