"""What is charged and not stored yet: deltas by segment, as the journal's files hold them."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, takewhile

from ratelimitd.core.counters import Counter, Knowledge, Meter
from ratelimitd.core.quotas import Source
from ratelimitd.core.rows import Delta, Known
from ratelimitd.core.standing import each_part

ACCOUNTS = 5_000
"""A flush's worth: where so many are charged and not stored, it does not wait for its interval, and a segment that has
so many is closed. A transaction stores no more, unless one segment has; its memory grows with their number."""


class Segment:
    """The charges between two flushes: what one file of the journal holds.

    It may replace several: then it stands for the segments `first` to `number` of the run `node`.
    """

    __slots__ = ("deltas", "first", "node", "number")

    def __init__(self, number: int, node: str = "", deltas: dict[Counter, int] | None = None, first: int = 0) -> None:
        self.number = number
        self.first = first or number
        self.node = node
        self.deltas: dict[Counter, int] = {} if deltas is None else deltas

    @property
    def recipients(self) -> int:
        """Recipients in all."""
        return sum(self.deltas.values())


class Pending:
    """What is not stored yet: the segment that charges go to, and the closed ones, oldest first.

    `generation` rises whenever closed segments are forgotten or merged: what a reader knows of them is outdated then.
    """

    def __init__(self, number: int = 1) -> None:
        self.open = Segment(number)
        self.closed: list[Segment] = []
        self.generation = 0

    def begin(self, number: int, node: str) -> None:
        """Have charges go to a new segment of a run, in place of one that holds none."""
        self.open = Segment(number, node)

    def of(self, counter: Counter, stored: Mapping[str, int] | None = None) -> int:
        """The counter's recipients that are not stored yet; `stored`: the last stored segment of each run, where the
        store has more than `self.stored` was called for."""
        known = stored or {}
        closed = sum(s.deltas.get(counter, 0) for s in self.closed if s.number > known.get(s.node, 0))
        return self.open.deltas.get(counter, 0) + closed

    def counters(self) -> set[Counter]:
        """Those that have recipients that are not stored yet."""
        return set().union(*[segment.deltas for segment in (*self.closed, self.open)])

    def by_window(self, counter: Counter, stored: Mapping[str, int] | None = None) -> dict[int, int]:
        """The same by the end of each window that the account has charges in: under a sliding limit there are many."""
        found: dict[int, int] = {}
        for one in (counter, *counter.earlier):
            if unstored := self.of(one, stored):
                found[one.expiry] = found.get(one.expiry, 0) + unstored
        return found

    def earliest(self, last: int) -> list[Segment]:
        """The closed segments of the earliest run, up to a number."""
        run = self.closed[0].node if self.closed else ""
        return [*takewhile(lambda one: one.node == run and one.number <= last, self.closed)]

    def close(self, next_number: int) -> None:
        """Close the open segment and begin the next: O(1), nothing is copied."""
        self.closed.append(self.open)
        self.open = Segment(next_number, self.open.node)

    def restore(self, segment: Segment) -> None:
        """Add a closed segment, later than those that are there."""
        self.closed.append(segment)

    def stored(self, number: int) -> None:
        """Forget the closed segments up to a number: the store has them."""
        self.closed = [segment for segment in self.closed if segment.number > number]
        self.generation += 1

    def merged(self, segments: Sequence[Segment], whole: Segment) -> None:
        """Put one segment in the place of closed ones, one after the other, which it was made of."""
        first = self.closed.index(segments[0])
        self.closed = [*self.closed[:first], whole, *self.closed[first + len(segments) :]]
        self.generation += 1

    @property
    def recipients(self) -> int:
        """Recipients in all segments."""
        return sum(segment.recipients for segment in (*self.closed, self.open))

    def __len__(self) -> int:
        return len(self.open.deltas) + sum(len(segment.deltas) for segment in self.closed)


def first(segments: Sequence[Segment], accounts: int) -> Sequence[Segment]:
    """The first of them, with so many accounts at most, but one at least. Called again with others behind them, it has
    at least the same."""
    in_all = [*accumulate(len(segment.deltas) for segment in segments)]
    return segments[: max(1, bisect_right(in_all, accounts))]


def joined(segments: Sequence[Segment], now: int, *, every: bool = False) -> Segment:
    """One segment for several of one run. Of an account's windows the last is kept: a store would drop the others.

    Under a sliding limit every part is kept that has not left. `every`: all windows are kept, for the store keeps them,
    too. Windows that are none (Period.plausible) are left out.
    """
    deltas = {c: n for c, n in _totals(segments).items() if c.limit.period.plausible(c.expiry, now)}
    if every:
        return Segment(segments[-1].number, segments[-1].node, deltas, segments[0].first)
    last: dict[tuple[Meter, str], Counter] = {}
    for counter in deltas:
        other = last.setdefault((counter.meter, counter.key), counter)
        if other.expiry < counter.expiry:
            last[counter.meter, counter.key] = counter
    kept = {c: n for c, n in deltas.items() if _is_one(c, last[c.meter, c.key].expiry, now)}
    return Segment(segments[-1].number, segments[-1].node, kept, segments[0].first)


def _is_one(counter: Counter, last: int, now: int) -> bool:
    """Whether a counter's window is one with the last of its account, or a part of it."""
    period = counter.limit.period
    if counter.limit.sliding:
        return counter.expiry > now
    return last < counter.expiry + period.apart_s or period.common_end(last, counter.expiry, now) > 0


def merge(segments: Iterable[Segment], after: int, now: int) -> Iterator[Delta]:
    """One delta per account and window, of the segments after a number. Not sorted.

    Windows that are none (Period.plausible) are left out: a store would keep them for years.
    """
    for counter, recipients in _totals(s for s in segments if s.number > after).items():
        limit = counter.meter.limit
        period = limit.period
        latest = period.latest(now)
        if counter.expiry <= latest:
            base = counter.meter.base(counter.key).quota
            quota = counter.quota if counter.source is Source.GRANTED else base
            yield Delta(
                limit.name, counter.key, counter.expiry, recipients, quota, base,
                latest, period.apart_s, period.overlap_s(now), now, limit.sliding,
            )  # fmt: skip


def known(counter: Counter, unstored: Mapping[int, int], now: int) -> list[Known]:
    """What memory knows to be stored of an account: its row, under a sliding limit its parts; nothing where the
    configuration says as much. `unstored`: what is not, by the ends of windows."""
    if counter.knowledge is not Knowledge.STORED:
        return []
    limit, period, key = counter.limit, counter.limit.period, counter.key
    base, latest = counter.meter.base(key).quota, period.latest(now)
    found: list[Known] = []
    for end, recipients in each_part(counter):
        used = max(0, recipients - unstored.get(end, 0)) if now < end <= latest else 0
        if used or (end == counter.expiry and not counter.source.is_base):
            delta = Delta(limit.name, key, end, used, counter.quota, base, latest, period.apart_s)
            delta = delta._replace(sliding=limit.sliding)
            found.append(Known(delta, counter.source is Source.PERSISTENT, counter.until))
    return found


def _totals(segments: Iterable[Segment]) -> Mapping[Counter, int]:
    """Recipients per account and window."""
    first, *others = [*segments] or [Segment(0)]
    if not others:
        return first.deltas
    total = dict(first.deltas)
    for segment in others:
        for counter, recipients in segment.deltas.items():
            total[counter] = total.get(counter, 0) + recipients
    return total
