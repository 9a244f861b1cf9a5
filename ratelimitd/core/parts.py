"""The parts of a sliding window: what was used in each, and when it leaves. Whose they are is not known here."""

from array import array
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Numbers = array[int]
else:
    Numbers = array

NEVER = 1 << 62
"""Nothing leaves as late, and no count is as high."""


class Parts(Numbers):
    """What was used in the parts of one account's window, the first to leave first: a time, a count, a time, ...

    An array: there may be a million of these, and a dictionary takes three times the memory.
    """

    __slots__ = ()

    @classmethod
    def of(cls, pairs: Iterable[tuple[int, int]] = ()) -> "Parts":
        """Parts of times at which they leave, in order, and counts."""
        return cls("q", list(chain.from_iterable(pairs)))

    def pairs(self) -> Iterator[tuple[int, int]]:
        """When each leaves, and what was used in it."""
        return zip(self[::2], self[1::2], strict=True)

    @property
    def total(self) -> int:
        """What was used in all of them."""
        return sum(self[1::2])

    @property
    def first(self) -> int:
        """When the first one leaves."""
        return self[0] if self else NEVER

    @property
    def last(self) -> int:
        """When the last one leaves; 0 where there are none."""
        return self[-2] if self else 0

    def add(self, leave: int, used: int) -> None:
        """Add what was used in the part that leaves then."""
        place = len(self)
        while place and self[place - 2] > leave:
            place -= 2
        if place and self[place - 2] == leave:
            self[place - 1] += used
        else:
            self[place:place] = array("q", (leave, used))

    def take(self, leave: int) -> None:
        """Leave out the part that leaves then, if there is one."""
        for place in range(0, len(self), 2):
            if self[place] == leave:
                del self[place : place + 2]
                return

    def keep(self, now: int, latest: int) -> None:
        """Leave out those that have left at `now`, and those that leave after `latest`."""
        begin, end = 0, len(self)
        while begin < end and self[begin] <= now:
            begin += 2
        while begin < end and self[end - 2] > latest:
            end -= 2
        del self[end:]
        del self[:begin]
