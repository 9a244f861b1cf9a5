"""What accounts use in a window of a limit, of a log's mails in the order of time.

Of an account there is its running window and the most that it used in any. Windows that are over are known by their
number alone, for each use.
"""

from collections import Counter as Counts

from ratelimitd.core.counters import Counter
from ratelimitd.core.windows import Sliding
from ratelimitd.ctl.distribution import Distribution


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

    def distribution(self) -> Distribution:
        """What was used in windows, and by accounts."""
        windows = Counts(self._windows)
        windows.update(used for _, used in self._running.values())
        return Distribution(windows, Counts(self.most.values()))
