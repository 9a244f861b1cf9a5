"""The counts of a limit whose windows slide, in memory.

What an account uses in a part of the window is a Counter of its own (counters.py), as journal and store know it by the
time at which the part leaves. The latest one has what was used in the parts before. Once its part is over, or something
leaves, the next request finds it no longer valid, and `find` goes on from there, without a timer. A clock that is put
back takes nothing away: charges go on to the latest part. How the store keeps parts is not known here.
"""

from collections.abc import Mapping

from ratelimitd.core.counter import PartsCounter, basis
from ratelimitd.core.counters import NOTHING, Counter, Knowledge, Meter
from ratelimitd.core.limits import Limit
from ratelimitd.core.parts import NEVER, Parts
from ratelimitd.core.quotas import Held, Source, of_row
from ratelimitd.core.rows import Row


class SlidingMeter(Meter):
    """One sliding limit's counters, by key."""

    begun_again: int
    kind = PartsCounter

    def configure(self, limit: Limit, notice_percent: int = NEVER) -> None:
        """Apply this limit from now on. What is counted leaves when it was to leave, also if the length is another."""
        other_parts = limit.period.name != self.limit.period.name
        super().configure(limit, notice_percent)
        if other_parts:
            for counter in self.counters.values():
                counter.valid_until = 0

    def find(self, key: str, now: int) -> Counter | None:
        """The account's counter in the present part, or None where the store must be asked first."""
        counter = self.counters.get(key)
        if counter is None or not counter.knowledge:
            return None
        if counter.valid_until <= now:
            counter = self._go_on(counter, now)
        if counter.expiry > self.limit.period.latest(now):
            self.begun_again += 1
            self.epoch.end()
            self._next(counter, now).knowledge = Knowledge.UNREAD
            return None
        return counter

    def assume(self, key: str, now: int) -> Counter:
        """The account's counter while the store cannot be asked."""
        counter = self.counters.get(key)
        if counter is None:
            counter = self._begin(key, now)
            self.new.add(key)
            counter.knowledge = Knowledge.UNREAD
        else:
            counter = self._present(counter, now)
        return self._assumed(counter)

    def accept(
        self, key: str, row: Row | None, pending: int, now: int, unstored: Mapping[int, int] = NOTHING
    ) -> Counter:
        """Take over what the store says. `unstored`: how many of the account's recipients are not stored yet, by the
        time at which their parts leave; `pending`: those of its latest one, where there are no others."""
        counter = self.counters.get(key)
        if counter is not None and pending and not unstored:
            unstored = {counter.expiry: pending}
        counter = self._present(counter, now) if counter is not None else self._begin(key, now)
        latest = self.limit.period.latest(now)
        used = _stored(row)
        for leave, recipients in unstored.items():
            used[leave] = used.get(leave, 0) + recipients
        if used and (min(used) <= now or max(used) > latest):
            self.begun_again += max(used) > latest
            used = {leave: recipients for leave, recipients in used.items() if now < leave <= latest}
        before = counter.used - (counter.parts.total if counter.parts is not None else 0)
        counter.used = sum(used.values())
        if used.pop(counter.expiry, 0) < before:  # reset, or an administrator has put it back
            self.epoch.end()
        counter.parts = Parts.of(sorted(used.items()))
        counter.earlier = tuple([one for one in counter.earlier if unstored.get(one.expiry)])
        counter.knowledge = Knowledge.STORED
        self._note_new(key, row is None and not any(unstored.values()))
        counter.give(of_row(row, self.base(key), now, now))
        return counter

    def replay(self, key: str, expiry: int, now: int) -> Counter:
        """A counter for what the journal has of an account's part, for `charge_again`; the latest is the account's."""
        counter = PartsCounter(
            self, key, expiry, self.limit.configured_quota(key), basis=basis(knowledge=Knowledge.UNREAD)
        )
        counter.valid_until = 0
        if not self.limit.period.plausible(expiry, now):
            self.begun_again += 1
        elif expiry > now:
            current = self.counters.get(key)
            if current is None:
                counter.parts = Parts.of()
                self.counters[key] = counter
            elif current.expiry < expiry:
                self._succeed(current, counter)
                counter.earlier = (*[one for one in counter.earlier if one is not current], current)
            else:
                current.earlier = (*current.earlier, counter)
        return counter

    def charge_again(self, counter: Counter, recipients: int) -> None:
        """Charge a counter of `replay`."""
        current = self.counters.get(counter.key)
        if current is not None and any(counter is one for one in current.earlier):
            assert current.parts is not None
            current.parts.add(counter.expiry, recipients)
            current.used += recipients
        else:
            counter.used += recipients

    def _begin(self, key: str, now: int) -> Counter:
        counter = super()._begin(key, now)
        counter.parts = Parts.of()
        counter.valid_until = counter.lasts_until
        return counter

    def _present(self, counter: Counter, now: int) -> Counter:
        """The account's counter as it is now, known or not."""
        if counter.expiry > self.limit.period.latest(now):
            return self._next(counter, now)
        return self._go_on(counter, now) if counter.valid_until <= now else counter

    def _go_on(self, counter: Counter, now: int) -> Counter:
        """The account's counter at `now`, in place of one that is no longer valid."""
        period, parts, until = self.limit.period, counter.parts, counter.until
        assert parts is not None
        if not counter.valid_until or period.open_until(counter.expiry) <= now:
            return self._next(counter, now)
        counter.used -= parts.total
        parts.keep(now, period.latest(now))
        counter.used += parts.total
        ended = counter.source is Source.TIMED and until <= now
        counter.give(self.base(counter.key) if ended else Held(counter.quota, counter.source, until))
        return counter

    def _next(self, over: Counter, now: int) -> Counter:
        """The counter of the part of now, in place of an account's latest one."""
        period, source, until = self.limit.period, over.source, over.until
        counter = PartsCounter(self, over.key, period.end(now), over.quota, basis=over.basis)
        self._succeed(over, counter)
        assert counter.parts is not None
        counter.parts.keep(now, period.latest(now))
        counter.used = counter.parts.total
        counter.parts.take(counter.expiry)
        counter.earlier = tuple([one for one in counter.earlier if now < one.expiry <= period.latest(now)])
        holds = {Source.PERSISTENT: True, Source.TIMED: until > now, Source.GRANTED: counter.used > 0}
        held = Held(over.quota, source, until) if holds.get(source) else self.base(over.key)
        counter.valid_until = counter.lasts_until
        counter.give(held)
        return counter

    def _succeed(self, over: Counter, counter: Counter) -> None:
        """Have a counter take the place of an account's latest one, with what was used in all parts."""
        assert over.parts is not None
        in_its_own = over.used - over.parts.total
        counter.parts, counter.earlier, counter.used = over.parts, over.earlier, over.used
        if in_its_own:
            counter.parts.add(over.expiry, in_its_own)
            counter.earlier = (*over.earlier, over)
        over.parts = None
        over.end()
        if over.source is Source.TIMED:
            self.untils.pop(over.key, None)
        self.counters[over.key] = counter


def _stored(row: Row | None) -> dict[int, int]:
    """The parts of a row; what it has used in one window is one, until that window ends."""
    if row is None:
        return {}
    if row.counts_in_parts:
        return dict(row.parts)
    return {row.expiry: row.used} if row.used else {}
