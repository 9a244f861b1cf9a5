"""The largest of many, as they come: no more are kept than are shown."""

from heapq import heappush, heappushpop
from typing import Generic, TypeVar

T = TypeVar("T")


class Largest(Generic[T]):
    """At most `count` items, those with the largest numbers; of equal ones those that came first."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._heap: list[tuple[int, int, T]] = []  # the least one first
        self._added = 0

    def takes(self, number: int) -> bool:
        """Whether an item with this number would be kept now."""
        return len(self._heap) < self._count or number > self._heap[0][0]

    def add(self, number: int, item: T) -> None:
        """Keep an item, if it is one of the largest."""
        self._added += 1
        entry = (number, -self._added, item)
        if len(self._heap) < self._count:
            heappush(self._heap, entry)
        elif self.takes(number):
            heappushpop(self._heap, entry)

    def items(self) -> list[T]:
        """The largest first."""
        return [item for _, _, item in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]
