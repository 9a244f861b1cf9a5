"""When an account's owner or administrator is to be told: which shares of a quota were reached, each once per window.

Pure: the decision on a request calls `Watch.look`, which appends to a bounded queue; whoever delivers the notices
takes them from there. A notice's id is the same wherever and however often it is told, so that a receiver may
recognise a repetition.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ratelimitd.core.counters import NEVER, Counter


@dataclass(frozen=True, slots=True)
class Notice:
    """An account has reached `percent` of its quota in the window that ends at `expiry`, `reset` in local time."""

    id: str
    percent: int
    limit: str
    key: str
    used: int
    quota: int
    period: str
    expiry: int
    reset: str


class Watch:
    """What was told already, and the queue of what is to be told.

    `wake` is called when there is something in the queue; `told` has the ids of notices that were told, with the end of
    their window.
    """

    def __init__(self, max_waiting: int, wake: Callable[[], None]) -> None:
        self.queue: deque[Notice] = deque()
        self.told: dict[str, int] = {}
        self.dropped = 0
        self.max_waiting = max_waiting
        self._wake = wake
        self._at: Mapping[str, Sequence[int]] = {}

    def configure(self, at: Mapping[str, Sequence[int]]) -> None:
        """Set the percentages of quota, by the name of the limit; those of a limit ascend."""
        self._at = {limit: sorted(set(percents)) for limit, percents in at.items()}

    def watches(self, limit: str) -> bool:
        """Whether anything is to be told about a limit."""
        return bool(self._at.get(limit))

    def look(self, counter: Counter, refused: bool = False) -> None:
        """Queue what the account has reached and was not told; set the count at which to look again.

        A refusal tells of 100 per cent, also where the request was too large for what was left.
        """
        quota = counter.quota
        reached = max(counter.used, quota) if refused else counter.used
        for percent in self._at.get(counter.meter.limit.name, ()) if quota else ():
            threshold = -(-quota * percent // 100)
            if reached < threshold:
                counter.notice_at = threshold
                return
            notice_id = identify(counter, percent)
            if notice_id in self.told:
                continue
            if len(self.queue) >= self.max_waiting:
                self.dropped += 1
                counter.notice_at = threshold  # the account's next mail tries again
                return
            self.told[notice_id] = counter.expiry
            self.queue.append(_notice(notice_id, percent, counter))
            self._wake()
        counter.notice_at = NEVER

    def forget_ended(self, now: int) -> None:
        """Forget what was told about windows that are over."""
        self.told = {notice_id: expiry for notice_id, expiry in self.told.items() if expiry > now}


def identify(counter: Counter, percent: int) -> str:
    """The id of a notice: a digest of the limit, the window, the key and the percentage."""
    text = f"{counter.meter.limit.name}\0{counter.expiry}\0{counter.key}\0{percent}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _notice(notice_id: str, percent: int, counter: Counter) -> Notice:
    limit = counter.meter.limit
    return Notice(
        notice_id,
        percent,
        limit.name,
        counter.key,
        counter.used,
        counter.quota,
        limit.period.name,
        counter.expiry,
        limit.period.describe(counter.expiry),
    )
