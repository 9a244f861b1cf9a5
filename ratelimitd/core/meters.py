"""Which meter a limit has, and how accounts go from one to another where a reload changes what its windows are."""

from collections.abc import Container, Sequence

from ratelimitd.core.counter import PartsCounter
from ratelimitd.core.counters import Counter, Meter
from ratelimitd.core.dues import MessageMeter
from ratelimitd.core.epoch import Epoch
from ratelimitd.core.limits import Limit
from ratelimitd.core.parts import Parts
from ratelimitd.core.pending import Pending
from ratelimitd.core.quotas import Held
from ratelimitd.core.sliding import SlidingMeter
from ratelimitd.core.standing import each_part


def meters_of(
    limits: Sequence[Limit], before: Sequence[Meter], epoch: Epoch, now: int, pending: Pending
) -> tuple[list[Meter], dict[str, Meter]]:
    """The meters of these limits, and those of `before` that are none of theirs, by name; `epoch` is for new ones.

    `pending` has what is not stored of their accounts.
    """
    known = {meter.limit.name: meter for meter in before if not meter.limit.of_message}
    of_message = {meter.limit.name: meter for meter in before if meter.limit.of_message}
    meters: list[Meter] = []
    for limit in limits:
        if limit.of_message:
            meters.append(of_message.get(limit.name, MessageMeter(limit, epoch)))
        else:
            meters.append(meter_of(limit, known.pop(limit.name, None), epoch, now, pending))
    return meters, known


def meter_of(limit: Limit, before: Meter | None, epoch: Epoch, now: int, pending: Pending) -> Meter:
    """The meter of a limit: the one before, if there is one and the limit's windows are of the same kind.

    Otherwise a new one has its accounts, and the one before is of no use any more.
    """
    if before is not None and isinstance(before, SlidingMeter) == limit.sliding:
        return before
    meter = SlidingMeter(limit, epoch) if limit.sliding else Meter(limit, epoch)
    if before is not None:
        _hand_over(before, meter)
        before.configure(limit)  # what is not stored yet of earlier windows still belongs to it
        unstored = pending.counters()
        for counter in [*meter.counters.values()]:
            if limit.sliding:
                _slide(counter, unstored)
            else:
                _fix(counter, now, unstored)
    return meter


def _hand_over(before: Meter, meter: Meter) -> None:
    meter.counters, before.counters = before.counters, {}
    meter.bases, meter.untils, meter.decisions = before.bases, before.untils, before.decisions
    meter.begun_again, meter.new, meter.earlier = before.begun_again, before.new, before.earlier
    for counter in meter.counters.values():
        for one in (counter, *counter.earlier):
            one.meter = meter
    before.new, before.earlier = set(), {}


def _slide(counter: Counter, unstored: Container[Counter]) -> None:
    """What was used counts until the window would have ended."""
    meter, key = counter.meter, counter.key
    sliding = PartsCounter(meter, key, counter.expiry, counter.quota, counter.used, counter.basis, parts=Parts.of())
    sliding.valid_until = 0
    sliding.earlier = _kept(counter, unstored)
    counter.end()
    meter.counters[key] = sliding


def _fix(counter: Counter, now: int, unstored: Container[Counter]) -> None:
    """What counts now is used in the present window."""
    meter, until, period = counter.meter, counter.until, counter.meter.limit.period
    used = sum(used for leave, used in each_part(counter) if now < leave <= period.latest_part(now))
    fixed = Counter(meter, counter.key, period.end(now), counter.quota, used)
    fixed.knowledge = counter.knowledge
    fixed.earlier = _kept(counter, unstored)
    for one in fixed.earlier:
        if one.expiry > now:
            one.expiry = fixed.expiry
    counter.parts = None
    counter.end()
    meter.counters[counter.key] = fixed
    fixed.give(Held(counter.quota, counter.source, until))


def _kept(counter: Counter, unstored: Container[Counter]) -> tuple[Counter, ...]:
    """Of an account's counters those that another one's `earlier` has: one that is stored would only take memory."""
    return tuple([one for one in (*counter.earlier, counter) if one in unstored])
