"""Rows that were counted in windows of another kind than their limit has now: settled once, after a start and a reload.

Until then such a row is read by the limit's present window; afterwards it says itself which window that was. So what an
account used before counts in that window alone, also if nobody asks for the account before the window is over.
"""

from ratelimitd.core.limits import Limit
from ratelimitd.core.policy import Policy
from ratelimitd.core.rows import Delta
from ratelimitd.stores import Store
from ratelimitd.stores.history import LEFT_S


class Settling:
    """What is to be settled, and how far that is done."""

    def __init__(self, store: Store, policy: Policy) -> None:
        self._store = store
        self._policy = policy
        self._kinds: dict[str, str] = {}
        self._due: dict[str, tuple[Delta, int]] = {}  # by limit; and the id of the last row that is settled

    def configure(self, now: int) -> None:
        """Take the limits as they are from `now` on, in seconds since 1970."""
        limits = {limit.name: limit for limit in (meter.limit for meter in self._policy.meters) if not limit.of_message}
        for name, limit in limits.items():
            if self._kinds.get(name) != limit.period.name:
                # Who starts does not know of a change: other nodes' clocks may be ahead.
                self._due[name] = _nothing(limit, now, 0 if name in self._kinds else LEFT_S), 0
        self._kinds = {name: limit.period.name for name, limit in limits.items()}
        self._due = {name: due for name, due in self._due.items() if name in limits}

    @property
    def is_due(self) -> bool:
        """Whether anything is left."""
        return bool(self._due)

    async def step(self) -> None:
        """Settle some rows. Raises StoreError; the same is due then."""
        name, (present, after) = next(iter(self._due.items()))
        last = await self._store.settle(present, after)
        if self._due.get(name) == (present, after):  # no reload meanwhile
            if last:
                self._due[name] = present, last
            else:
                del self._due[name]


def _nothing(limit: Limit, now: int, slack_s: int) -> Delta:
    """A charge of nothing to the limit's present window."""
    period = limit.period
    end = 0 if limit.sliding else period.end(now)
    latest = period.latest(now) + slack_s
    return Delta(
        limit.name, "", end, 0, 0, 0, latest, period.apart_s, period.overlap_s(now), now, limit.sliding
    )  # fmt: skip
