"""What accounts use in a window of a limit, as a distribution; and which quota would have refused how many of them.

Of an account there is its running window and the most that it used in any. Windows that are over are known by their
number alone, for each use.
"""

from collections.abc import Sequence

from ratelimitd.core.counters import Counter
from ratelimitd.core.windows import Sliding
from ratelimitd.ctl.answers import Bucket
from ratelimitd.ctl.buckets import histogram

PERCENTS = (50, 90, 99, 100)
SHARES = {"1%": 100, "0.1%": 1000, "0": 0}
"""Which part of the accounts a quota may refuse: one in so many; 0: none."""


class Uses:
    """The uses of one limit's accounts."""

    def __init__(self) -> None:
        self.recipients = 0
        self.most: dict[str, int] = {}  # in a window, of each account
        self._windows: dict[int, int] = {}  # how many windows had each use, of those that are over
        self._running: dict[str, tuple[int | str, int]] = {}  # of each account: its window, and what was used in it

    def add(self, counter: Counter, recipients: int, now: int, transaction: str) -> None:
        """Count what a counter was charged. Of a sliding limit the window is the last `period` at any moment: what
        counts is the most in each period. Of a limit of one message it is the SMTP transaction."""
        key, used, limit = counter.key, counter.used, counter.limit
        self.recipients += recipients
        if used > self.most.get(key, 0):
            self.most[key] = used
        period = limit.period
        window: int | str = counter.expiry
        if limit.of_message:
            window = transaction
        elif isinstance(period, Sliding):
            window = now // period.length_s
        before = self._running.get(key)
        if before is not None:
            if before[0] != window:
                self._over(before[1])
            elif before[1] > used:
                used = before[1]
        self._running[key] = window, used

    def _over(self, used: int) -> None:
        self._windows[used] = self._windows.get(used, 0) + 1

    def quantiles(self) -> dict[str, int]:
        """What was used in a window: in half of all windows no more than this, in 90 % of them, and so on."""
        return dict(zip(map(str, PERCENTS), _at(self._all_windows(), PERCENTS), strict=True))

    def quota_for(self) -> dict[str, int]:
        """The least quota that would have refused no more than this part of the accounts."""
        most = sorted(self.most.values(), reverse=True)
        return {name: most[len(most) // one_in if one_in else 0] if most else 0 for name, one_in in SHARES.items()}

    def histogram(self) -> list[Bucket]:
        """How often how much was used."""
        return histogram(self._all_windows(), self.most.values())

    def _all_windows(self) -> dict[int, int]:
        """How many windows had each use."""
        windows = dict(self._windows)
        for _, used in self._running.values():
            windows[used] = windows.get(used, 0) + 1
        return windows


def _at(windows: dict[int, int], percents: Sequence[int]) -> list[int]:
    """The uses at these places of all windows in order."""
    total, passed = sum(windows.values()), 0
    found: list[int] = []
    wanted = [-(-total * percent // 100) for percent in percents]
    for used in sorted(windows):
        passed += windows[used]
        while len(found) < len(wanted) and wanted[len(found)] <= passed:
            found.append(used)
    return found or [0] * len(percents)
