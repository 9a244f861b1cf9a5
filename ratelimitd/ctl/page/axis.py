"""Where a number of recipients stands from left to right: each bucket is as wide as any other, so a picture shows uses
of one and of a million beside each other."""

from bisect import bisect_left, bisect_right
from itertools import islice, pairwise, takewhile

from ratelimitd.ctl.buckets import ends
from ratelimitd.ctl.page.drawing import short, text_px

_MOST_DECADES = 20
_LEAST_BUCKETS = 10


class Axis:
    """From the bucket of `least` to that of `greatest`, between two pixels. A use stands left of its upper end, so a
    quota's line parts what it admits from what it refuses."""

    def __init__(self, least: int, greatest: int, left: float, right: float) -> None:
        all_ends = [0, *takewhile(lambda end: end < greatest, ends())]
        all_ends.append(next(end for end in ends() if end >= max(1, greatest)))
        first = max(0, bisect_left(all_ends, max(1, least)) - 2)
        missing = _LEAST_BUCKETS - len(all_ends[first:])
        more = islice((end for end in ends() if end > all_ends[-1]), max(0, missing))
        self.ends = [*all_ends[first:], *more]
        self.left, self.right = left, right

    def at(self, value: float) -> float:
        """The pixel of a number; of one that is beyond the ends, that of the end."""
        value = min(max(value, self.ends[0]), self.ends[-1])
        i = min(bisect_right(self.ends, value), len(self.ends) - 1)
        low, high = self.ends[i - 1], self.ends[i]
        return self.left + (self.right - self.left) * (i - 1 + (value - low) / (high - low)) / (len(self.ends) - 1)

    def ticks(self) -> list[int]:
        """Round numbers that have room for their texts."""
        sets = [self.ends, [m * 10**k for k in range(_MOST_DECADES) for m in (1, 2, 5)]]
        sets += [[10**k for k in range(0, _MOST_DECADES, every)] for every in (1, 2, 3)]
        within = [[tick for tick in ticks if self.ends[0] < tick <= self.ends[-1]] for ticks in sets]
        return next((ticks for ticks in within if ticks and self._fit(ticks)), [])

    def _fit(self, ticks: list[int]) -> bool:
        places = [(self.at(tick), text_px(short(tick)) / 2 + 5) for tick in ticks]
        return all(b - a >= a_px + b_px for (a, a_px), (b, b_px) in pairwise(places))
