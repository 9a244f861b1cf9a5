"""One account under a sliding limit, with a store of its parts, a journal, and a list of all its mails."""

from ratelimitd.core.counters import Counter, Meter
from ratelimitd.core.limits import Limit
from ratelimitd.core.memo import Memo
from ratelimitd.core.pending import Pending, Segment, joined, merge
from ratelimitd.core.policy import Policy
from ratelimitd.core.rows import Row
from ratelimitd.core.verdict import Verdict
from ratelimitd.core.watcher import Nobody
from ratelimitd.core.windows import Sliding
from ratelimitd.request import Request
from tests.core.build import NOON, request, row, rules

ALICE = "alice@example.com"


class Account:
    """What one account sends, at `now`; `mails`: the time, the recipients, and whether they were admitted."""

    def __init__(self, of: Limit) -> None:
        self.limit = of
        self.now = NOON
        self.history: dict[int, int] = {}  # the store: what was used, by the time at which the part leaves
        self.mails: list[tuple[int, int, bool]] = []
        self.memo = Memo(100, 100)
        self.policy = self._policy()

    def _policy(self) -> Policy:
        return Policy([self.limit], rules(), Pending(), self.memo, Nobody())

    @property
    def period(self) -> Sliding:
        assert isinstance(self.limit.period, Sliding)
        return self.limit.period

    @property
    def meter(self) -> Meter:
        (meter,) = self.policy.meters
        return meter

    @property
    def counter(self) -> Counter:
        return self.meter.counters[ALICE]

    @property
    def row(self) -> Row | None:
        """What a store that knows parts gives of the account."""
        if not self.history:
            return None
        parts = tuple(sorted((leave, used) for leave, used in self.history.items() if leave > self.now))
        sum_of_all = sum(used for _, used in parts)
        quota = self.limit.quota
        last = max(self.history)
        return row(ALICE, quota=quota, configured=quota, used=sum_of_all, expiry=last)._replace(
            in_parts=sum_of_all, parts=parts
        )

    def accept(self) -> Counter:
        """Have memory take over the row."""
        counter = self.meter.counters.get(ALICE)
        unstored = self.policy.pending.by_window(counter) if counter is not None else {}
        pending = unstored.get(counter.expiry, 0) if counter is not None else 0
        return self.meter.accept(ALICE, self.row, pending, self.now, unstored)

    def ask(self, asked: Request) -> Verdict:
        verdict = self.policy.decide(asked, self.now)
        if isinstance(verdict, Verdict):
            return verdict
        self.accept()
        return self.policy.decide_waiting(verdict, self.now)

    def send(self, recipients: int = 1) -> bool:
        """Send a mail; whether it was admitted."""
        instance = f"{len(self.mails)}.a"
        verdict = self.ask(request("DATA", recipient_count=recipients, instance=instance))
        self.mails.append((self.now, recipients, not verdict.refused))
        return not verdict.refused

    def listed(self, since: int) -> int:
        """What the list of all mails has that counts, later than a time."""
        return sum(n for at, n, admitted in self.mails if at > since and (admitted or self.limit.count_rejected))

    def flush(self) -> None:
        """Store what is not stored yet, in a database that keeps parts."""
        pending = self.policy.pending
        number = pending.open.number
        pending.close(number + 1)
        some = False
        for delta in merge(pending.closed, 0, self.now):
            assert delta.sliding
            self.history[delta.expiry] = self.history.get(delta.expiry, 0) + delta.used
            some = True
        pending.stored(number)
        if some and ALICE in self.meter.counters:
            self.accept()

    def condense(self) -> None:
        """Merge closed segments, as during an outage."""
        pending = self.policy.pending
        pending.close(pending.open.number + 1)
        closed = [*pending.closed]
        pending.merged(closed, joined(closed, self.now))

    def kill(self) -> None:
        """Begin again with what the journal has."""
        before = self.policy.pending
        self.policy = self._policy()
        left = [
            [(counter.window, recipients) for counter, recipients in segment.deltas.items()]
            for segment in (*before.closed, before.open)
        ]
        for number, charges in enumerate(left, 1):
            made = [(self.meter.replay(key, end, self.now), recipients) for (_, end, key), recipients in charges]
            for counter, recipients in made:
                counter.meter.charge_again(counter, recipients)
            self.policy.pending.restore(Segment(number, "earlier", dict(made)))
        self.policy.pending.begin(len(left) + 1, "this")

    def evict(self) -> None:
        self.meter.evict(10, self.policy.pending)

    def sweep(self) -> None:
        self.meter.drop_ended([*self.meter.counters], self.now, self.policy.pending)
