"""How long answers took."""

from bisect import bisect_left
from collections.abc import Iterator

BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds of the latency histogram's buckets."""


class Histogram:
    """Durations in seconds; `total_s` is their sum."""

    def __init__(self) -> None:
        self.total_s = 0.0
        self._counts = [0] * (len(BOUNDS_S) + 1)

    def observe(self, seconds: float, times: int = 1) -> None:
        """Count a duration, of as many requests."""
        self._counts[bisect_left(BOUNDS_S, seconds)] += times
        self.total_s += seconds * times

    def cumulative(self) -> Iterator[tuple[str, float]]:
        """For each bound, and `+Inf`, how many took no longer."""
        count = 0
        for bound, own in zip((*map(str, BOUNDS_S), "+Inf"), self._counts, strict=True):
            count += own
            yield bound, float(count)
