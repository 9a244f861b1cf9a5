"""The counts in memory: what is known of every account, and what of it is not stored yet.

A Counter is one account's count in one window. When its window is over a new Counter takes its place; the old one
lives on in the deltas that are not stored yet, so that a delta always knows its window. No clock, no I/O.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from itertools import islice

from msgspec import Struct

from ratelimitd.core.limits import Limit
from ratelimitd.core.rows import Delta, Row

NEVER = 1 << 62
"""No count gets there."""
KEPT_LOGINS = 8192
MAX_KEPT_CHARACTERS = 255
"""Of longer logins no counter is kept by login; what is kept of all for a limit takes 4 MB at most."""


class Knowledge(IntEnum):
    """What a counter's `used` is based on."""

    UNREAD = 0  # charges from the journal alone, or it is its account's no more: the table is to be asked
    ASSUMED = 1  # the store could not be asked: the configured quota and a use of 0
    STORED = 2  # the stored count, and what was charged since


class Counter(Struct, eq=False, gc=False):
    """One account's count in the window that ends at `expiry`. `used` includes what is not stored yet.

    The garbage collector does not walk these (gc=False): there may be a million, and their table lives for ever.
    """

    table: "Table"
    key: str
    expiry: int
    quota: int
    used: int = 0
    persist: bool = False
    granted: bool = False  # the quota is an administrator's, for this window only
    is_new: bool = False  # no row of it is known: its first charge is the account's INSERT
    knowledge: Knowledge = Knowledge.STORED
    notice_at: int = 0  # the use at which Policy.look is to be called

    def __post_init__(self) -> None:
        self.notice_at = self.table.notice_from


class Table:
    """The counters of one limit, by key."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.counters: dict[str, Counter] = {}
        self.by_login: dict[str, Counter] = {}  # of the latest logins, where the key depends on the login alone
        self.window = ""  # window_of(window_end): mostly that of all charges
        self.window_end = -1
        self.decisions: dict[str, int] = {}  # by status
        self.notice_from = NEVER  # 0 where somebody is to be told of the accounts' use

    def window_of(self, expiry: int) -> str:
        """What the journal writes before a key: the limit and the window."""
        self.window_end = expiry
        self.window = f"\0{self.limit.name}\0{expiry}\0"
        return self.window

    def tell(self, wanted: bool) -> None:
        """Whether somebody is to be told when accounts reach a share of their quota."""
        self.notice_from = 0 if wanted else NEVER
        for counter in self.counters.values():
            counter.notice_at = self.notice_from

    def follow(self, keys: Iterable[str]) -> None:
        """Give these accounts the quota that is configured now, but for those that the database gave theirs."""
        for key in keys:
            counter = self.counters.get(key)
            if counter is None or counter.persist or counter.granted:
                continue
            quota = self.limit.configured_quota(key)
            if quota != counter.quota:
                counter.quota = quota
                counter.notice_at = self.notice_from

    def find(self, key: str, now: int) -> Counter | None:
        """The account's counter in the window of now, or None where the store is to be asked first."""
        counter = self.counters.get(key)
        if counter is None or not counter.knowledge:
            return None
        return counter if counter.expiry > now else self._renew(counter, now)

    def keep(self, login: str, counter: Counter) -> None:
        """Have the counter of a login at hand; it serves as long as its window lasts and its knowledge is something."""
        if self.limit.of_login and len(login) <= MAX_KEPT_CHARACTERS:
            if len(self.by_login) >= KEPT_LOGINS:
                self.by_login.clear()
            self.by_login[login] = counter

    def stand_in(self, key: str) -> Counter:
        """In place of an account's counter that is not known yet; kept nowhere."""
        return Counter(self, key, 0, 0)

    def assume(self, key: str, now: int) -> Counter:
        """The account's counter while the store cannot be asked."""
        counter = self.counters.get(key)
        if counter is None:
            counter = self._begin(key, now)
            counter.is_new = True
            counter.knowledge = Knowledge.ASSUMED
        elif not counter.knowledge:
            counter.knowledge = Knowledge.ASSUMED
        return counter

    def accept(self, key: str, row: Row | None, pending: int, now: int) -> Counter:
        """Take over what the store says. `pending` is what the account's counter holds that is not stored yet."""
        counter = self.counters.get(key)
        window = row.expiry if row is not None else 0
        is_new = row is None and not pending
        known_until = counter.expiry if counter is not None else 0
        if counter is None or known_until <= now or window > known_until or (not pending and window != known_until):
            # The stored window counts while it lasts, whoever began it; a delta of another one is the store's to drop.
            counter, pending = self._begin(key, now), 0
            if window > now:
                counter.expiry = window
        counter.knowledge = Knowledge.STORED
        counter.is_new = is_new
        counter.used = pending + (row.used if row is not None and window == counter.expiry else 0)
        configured = self.limit.configured_quota(key)
        # Where the counter's window is later than the row's, for the clock was put back, the row's has ended.
        ended = row is not None and window < counter.expiry
        quota = configured if row is None else row.quota_at(max(now, window) if ended else now, configured)
        if quota != counter.quota:
            counter.quota = quota
            counter.notice_at = self.notice_from
        counter.persist = row is not None and row.persist
        counter.granted = not counter.persist and counter.quota != configured
        return counter

    def apart(self, key: str, row: Row | None, now: int) -> Counter:
        """The counter that would be kept for the account, kept nowhere: for those who only want to know."""
        other = Table(self.limit)
        counter = other.assume(key, now) if row is None else other.accept(key, row, 0, now)
        counter.table = self  # else the two hold each other, and the garbage collector does not see it
        return counter

    def drop_ended(self, keys: Iterable[str], now: int, pending: "Pending") -> None:
        """Forget those accounts whose window is over and stored."""
        for key in keys:
            counter = self.counters.get(key)
            if counter is not None and counter.expiry <= now and not pending.of(counter):
                self._remove(key)

    def evict(self, at_most: int, pending: "Pending") -> int:
        """Forget up to so many accounts that are stored, those known longest first; how many were forgotten.

        They are looked up again at their next mail. What is not stored yet is never forgotten.
        """
        stored = (key for key, c in self.counters.items() if not pending.of(c))
        evicted = list(islice(stored, at_most))
        for key in evicted:
            self._remove(key)
        return len(evicted)

    def _remove(self, key: str) -> None:
        self.counters.pop(key).knowledge = Knowledge.UNREAD

    def _begin(self, key: str, now: int) -> Counter:
        replaced = self.counters.get(key)
        if replaced is not None:
            replaced.knowledge = Knowledge.UNREAD
        counter = Counter(self, key, self.limit.period.end(now), self.limit.configured_quota(key))
        self.counters[key] = counter
        return counter

    def _renew(self, ended: Counter, now: int) -> Counter:
        knowledge = ended.knowledge
        counter = self._begin(ended.key, now)
        counter.is_new = ended.is_new
        counter.knowledge = knowledge
        if ended.persist:
            counter.persist = True
            counter.quota = ended.quota
        return counter


class Segment:
    """The charges between two flushes: what one file of the journal holds.

    It stands for the segments `first` to `number` of the run `node`. `unwritten`: the file lacks some of it.
    """

    __slots__ = ("deltas", "first", "node", "number", "unwritten")

    def __init__(self, number: int, node: str = "", deltas: dict[Counter, int] | None = None, first: int = 0) -> None:
        self.number = number
        self.first = first or number
        self.node = node
        self.deltas: dict[Counter, int] = {} if deltas is None else deltas
        self.unwritten = False

    @property
    def recipients(self) -> int:
        """Recipients in all."""
        return sum(self.deltas.values())


class Pending:
    """What is not stored yet: the segment that charges go to, and the closed ones, oldest first."""

    def __init__(self, number: int = 1) -> None:
        self.open = Segment(number)
        self.closed: list[Segment] = []

    def begin(self, number: int, node: str) -> None:
        """Begin the first segment of a run; those that were closed before are earlier runs'."""
        self.open = Segment(number, node)

    def of(self, counter: Counter, stored: Mapping[str, int] | None = None) -> int:
        """The counter's recipients that are not stored yet; `stored` says up to which segment of each run they are."""
        known = stored or {}
        closed = sum(s.deltas.get(counter, 0) for s in self.closed if s.number > known.get(s.node, 0))
        return self.open.deltas.get(counter, 0) + closed

    def close(self, next_number: int) -> None:
        """Close the open segment and begin the next: O(1), nothing is copied."""
        self.closed.append(self.open)
        self.open = Segment(next_number, self.open.node)

    def stored(self, number: int) -> None:
        """Forget the closed segments up to a number: the store has them."""
        self.closed = [segment for segment in self.closed if segment.number > number]

    @property
    def recipients(self) -> int:
        """Recipients in all segments."""
        return sum(segment.recipients for segment in (*self.closed, self.open))

    def __len__(self) -> int:
        return len(self.open.deltas) + sum(len(segment.deltas) for segment in self.closed)


def joined(segments: Sequence[Segment]) -> Segment:
    """One segment for several of one run. Of an account's windows the last is left: a store would drop the others."""
    deltas = _totals(segments)
    last: dict[tuple[Table, str], Counter] = {}
    for counter in deltas:
        other = last.setdefault((counter.table, counter.key), counter)
        if other.expiry < counter.expiry:
            last[counter.table, counter.key] = counter
    kept = {c: n for c, n in deltas.items() if c.expiry == last[c.table, c.key].expiry}
    whole = Segment(segments[-1].number, segments[-1].node, kept, segments[0].first)
    whole.unwritten = True
    return whole


def merge(segments: Iterable[Segment], after: int) -> Iterator[Delta]:
    """One delta per account and window, of the segments that come after a number. Not sorted."""
    for counter, recipients in _totals(s for s in segments if s.number > after).items():
        limit = counter.table.limit
        configured = limit.configured_quota(counter.key)
        quota = counter.quota if counter.granted else configured
        yield Delta(limit.name, counter.key, counter.expiry, recipients, quota, configured)


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
