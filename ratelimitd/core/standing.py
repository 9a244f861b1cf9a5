"""How an account stands, read from its counter for people: what counts at a time, and when more is admitted.

Nothing is changed here. A counter shows what was true when it was last asked for; that may be long ago. Of an account
that is not in memory there is a counter `apart`.
"""

from ratelimitd.core.counters import Counter, Meter
from ratelimitd.core.rows import Row


def apart(meter: Meter, key: str, row: Row | None, now: int) -> Counter:
    """The counter that the meter's `accept` would keep for the account, for display only: it is not kept."""
    other = type(meter)(meter.limit)
    other.bases = meter.bases
    counter = other.assume(key, now) if row is None else other.accept(key, row, 0, now)
    other.forget()
    return counter


def each_part(counter: Counter) -> list[tuple[int, int]]:
    """When each part leaves, the first one first, and what was used in it; of a fixed window there is one."""
    if counter.parts is None:
        return [(counter.expiry, counter.used)]
    own = counter.expiry, counter.used - counter.parts.total
    return sorted([own, *counter.parts.pairs()])


def used_at(counter: Counter, now: int) -> int:
    """What counts at a time."""
    if counter.parts is None:
        return counter.used if counter.expiry > now else 0
    if now < counter.valid_until:
        return counter.used
    return sum(used for leave, used in each_part(counter) if leave > now)


def admits_again(counter: Counter) -> int:
    """When one more recipient is admitted under a sliding limit; 0: now, or the window is fixed."""
    left = counter.used
    if counter.parts is None or not counter.quota or left < counter.quota:
        return 0
    for leave, used in each_part(counter):
        left -= used
        if left < counter.quota:
            return leave
    return counter.ends


def reset(counter: Counter) -> int:
    """When the window ends; of a sliding limit, when one more recipient is admitted, or, where one is now, when all has
    left."""
    return admits_again(counter) or counter.ends
