"""When a notice is due: which shares of a quota an account has reached, each once per window.

Pure: the decision on a request calls `Watch.look`, which appends to a bounded queue, which the notifier empties.
The id of a notice is the same wherever and however often it is sent: a receiver can recognise a repetition.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ratelimitd.core.counters import Counter
from ratelimitd.core.parts import NEVER
from ratelimitd.core.standing import reset


@dataclass(frozen=True, slots=True)
class Notice:
    """An account has reached `percent` of its quota; it is not notified of that again before `expiry`, the end of the
    window. `reset` is when it may send again, in `timezone`, with its offset."""

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
    """Which notices were queued already, and the queue of those that are to be sent.

    `wake` is called when something is queued. `notified` has the ids of all notices, with the end of their window;
    `dropped` counts notices that found `max_waiting` others in the queue.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self.queue: deque[Notice] = deque()
        self.notified: dict[str, int] = {}
        self.dropped = 0
        self.max_waiting = 0
        self._wake = wake
        self._percents: Mapping[str, Sequence[int]] = {}

    def configure(self, percents: Mapping[str, Iterable[int]], max_waiting: int) -> None:
        """Set the percentages of quota, by the name of the limit, and how many notices may wait."""
        self._percents = {limit: sorted(set(of_limit)) for limit, of_limit in percents.items()}
        self.max_waiting = max_waiting

    def restore(self, notified: Mapping[str, int]) -> None:
        """Take the notices of earlier runs: their ids, and the ends of their windows."""
        self.notified = dict(notified)

    def notice_percent(self, limit: str) -> int:
        """The least share that a limit has a notice of; NEVER: it has none."""
        return next(iter(self._percents.get(limit, ())), NEVER)

    def look(self, counter: Counter, refused: bool = False) -> None:
        """Queue the shares that the account has reached and was not notified of; set the count at which to look again.

        A refusal has reached 100 per cent, even where the request was too large for what was left.
        """
        quota = counter.quota
        reached = max(counter.used, quota) if refused else counter.used
        for percent in self._percents.get(counter.meter.limit.name, ()) if quota else ():
            threshold = -(-quota * percent // 100)
            if reached < threshold:
                counter.notice_at = threshold
                return
            notice_id = identify(counter, percent)
            if notice_id in self.notified:
                continue
            if len(self.queue) >= self.max_waiting:
                self.dropped += 1
                counter.notice_at = threshold  # the account's next mail tries again
                return
            self.notified[notice_id] = _expiry(counter)
            self.queue.append(_notice(notice_id, percent, counter))
            self._wake()
        counter.notice_at = NEVER

    def forget_ended(self, now: int) -> None:
        """Forget the notices of windows that are over at `now` (seconds since 1970)."""
        self.notified = {notice_id: expiry for notice_id, expiry in self.notified.items() if expiry > now}


def identify(counter: Counter, percent: int) -> str:
    """The id of a notice: a digest of the limit, the window, the key and the percentage."""
    text = f"{counter.meter.limit.name}\0{_expiry(counter)}\0{counter.key}\0{percent}"
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
        _expiry(counter),
        limit.period.describe(reset(counter)),
    )


def _expiry(counter: Counter) -> int:
    return counter.limit.period.notified_until(counter.expiry)
