"""What accounts use under a limit, as a distribution; and which quota would have refused how many of them.

It is known by its numbers alone: how many windows had each use, and of how many accounts each use was the most. So it
takes as much memory as there are different uses, however many accounts there are.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ratelimitd.ctl.answers import Bucket
from ratelimitd.ctl.buckets import histogram

PERCENTS = (50, 90, 99, 100)
SHARES = {"1%": 100, "0.1%": 1000, "0": 0}
"""Which part of the accounts a quota may refuse: one in so many; 0: none."""


class Distribution(NamedTuple):
    """How many `windows` had each use, and how many `accounts` used it at most in a window."""

    windows: Mapping[int, int]
    accounts: Mapping[int, int]

    def quantiles(self) -> dict[str, int]:
        """What was used in a window: in half of all windows no more than this, in 90 % of them, and so on."""
        total = sum(self.windows.values())
        places = [-(-total * percent // 100) for percent in PERCENTS]
        return dict(zip(map(str, PERCENTS), _at(self.windows, sorted(self.windows), places), strict=True))

    def quota_for(self) -> dict[str, int]:
        """The least quota that would have refused no more than this part of the accounts."""
        total = sum(self.accounts.values())
        places = [total // one_in + 1 if one_in else 1 for one_in in SHARES.values()]
        by_place = sorted(places)
        found = dict(zip(by_place, _at(self.accounts, sorted(self.accounts, reverse=True), by_place), strict=True))
        return {name: found[place] for name, place in zip(SHARES, places, strict=True)}

    def histogram(self) -> list[Bucket]:
        """How often how much was used."""
        return histogram(self.windows, self.accounts)


def _at(numbers: Mapping[int, int], order: Sequence[int], places: Sequence[int]) -> Iterator[int]:
    """The uses at these places, the first one is 1, of all in an order; 0 where there are none."""
    passed, uses = 0, iter(order)
    used = 0
    for place in places:
        while passed < place and (following := next(uses, 0)):
            used = following
            passed += numbers[used]
        yield used
