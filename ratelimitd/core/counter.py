"""One account's count in one window.

When its window is over a new Counter takes its place; the old one is kept by the deltas that are not stored yet
(pending.py), so that a delta always knows its window. A limit's counters are kept by its Meter (counters.py).
"""

from typing import TYPE_CHECKING

from msgspec import Struct

from ratelimitd.core.knowledge import Knowledge
from ratelimitd.core.limits import Limit
from ratelimitd.core.parts import Parts
from ratelimitd.core.quotas import Held, Source

if TYPE_CHECKING:
    from ratelimitd.core.counters import Meter

Window = tuple[str, int, str]
"""A limit's name, the end of its window in seconds since 1970, a key: what a charge went to."""


READ = 8
"""A counter's `basis` is at least that where it is known, or assumed, what its account has used."""
PLAIN = 32
"""At least that where it is valid until `expiry`: its window does not slide, its quota has no end of its own."""
_SOURCES, _KNOWLEDGE = tuple(Source), tuple(Knowledge)


def basis(source: Source = Source.CONFIGURED, knowledge: Knowledge = Knowledge.STORED) -> int:
    """What the quota and the use are based on, of a counter in a fixed window."""
    return knowledge * READ + source + (PLAIN if knowledge and source is not Source.TIMED else 0)


class Counter(Struct, eq=False, gc=False):
    """One account's count in the window that ends at `expiry`. `used` includes what is not stored yet.

    There may be a million: six fields are 64 bytes, a seventh is 16 more. What few accounts have, the meter keeps.

    Under a sliding limit the window is a part, and the account's latest counter has what was used in its other `parts`:
    `used` is the sum of all, `expiry` the time at which its own part leaves. Of the counters that were the account's
    before, `earlier` has those that may have charges that are not stored yet.

    The garbage collector does not track these (gc=False). Their meter is kept by the policy, which calls `forget`
    before it lets one go.
    """

    meter: "Meter"
    key: str
    expiry: int
    quota: int
    used: int = 0
    basis: int = basis()  # of quota and use: `source` and `knowledge` in one; below READ: UNREAD

    @property
    def limit(self) -> Limit:
        """The limit that it counts for, as configured now."""
        return self.meter.limit

    @property
    def source(self) -> Source:
        """Where the quota comes from."""
        return _SOURCES[self.basis % READ]

    @source.setter
    def source(self, source: Source) -> None:
        self._rest_on(source, self.knowledge)

    @property
    def knowledge(self) -> Knowledge:
        """What `used` is based on."""
        return _KNOWLEDGE[self.basis % PLAIN // READ]

    @knowledge.setter
    def knowledge(self, knowledge: Knowledge) -> None:
        self._rest_on(self.source, knowledge)

    def _rest_on(self, source: Source, knowledge: Knowledge) -> None:
        self.basis = basis(source, knowledge)

    @property
    def valid_until(self) -> int:
        """Until when it holds: the end of its window, or of its quota where that is earlier."""
        until = self.until
        return min(self.expiry, until) if until else self.expiry

    @valid_until.setter
    def valid_until(self, time: int) -> None:
        raise AttributeError("only under a sliding limit it is set")

    def holds(self, now: int) -> bool:
        """Whether it may be charged at `now` as it is."""
        return self.basis >= READ and self.valid_until > now

    @property
    def parts(self) -> Parts | None:
        """None: what it counts is one window (but see PartsCounter)."""
        return None

    @parts.setter
    def parts(self, parts: Parts | None) -> None:
        raise AttributeError("only under a sliding limit are there parts")

    @property
    def is_new(self) -> bool:
        """Whether the account has no row, and was not charged: its first charge is logged as INSERT."""
        return self.key in self.meter.new

    @property
    def earlier(self) -> "tuple[Counter, ...]":
        """See above."""
        return self.meter.earlier.get(self, ())

    @earlier.setter
    def earlier(self, counters: "tuple[Counter, ...]") -> None:
        if counters:
            self.meter.earlier[self] = counters
        else:
            self.meter.earlier.pop(self, None)

    @property
    def window(self) -> Window:
        """What it counts, as memo and journal know it."""
        return self.meter.limit.name, self.expiry, self.key

    @property
    def lasts_until(self) -> int:
        """When its window ends; of a sliding limit, when its part does, or the first of the others leaves."""
        parts = self.parts
        return self.expiry if parts is None else min(self.meter.limit.period.open_until(self.expiry), parts.first)

    @property
    def ends(self) -> int:
        """When nothing of what was used counts any more."""
        parts = self.parts
        return self.expiry if parts is None else max(self.expiry, parts.last)

    @property
    def until(self) -> int:
        """When its quota ends that was given until a time; 0: it was not."""
        return self.meter.untils.get(self.key, 0) if self.source is Source.TIMED else 0

    def give(self, held: Held) -> None:
        """Set the quota, its source and its end; nothing else does. Notices are due again where the quota changes."""
        if held.until:
            self.meter.untils[self.key] = held.until
        elif self.source is Source.TIMED:
            self.meter.untils.pop(self.key, None)
        self.source = held.source
        if held.quota != self.quota:
            self.quota = held.quota
            self.meter.notices.pop(self, None)

    @property
    def notice_at(self) -> int:
        """The use from which the Watcher looks at it."""
        return self.meter.notices.get(self, self.meter.first_notice(self.quota))

    @notice_at.setter
    def notice_at(self, use: int) -> None:
        self.meter.notices[self] = use

    def end(self) -> None:
        """Be no account's any more: another takes its place, or none does."""
        self.basis %= READ
        self.meter.earlier.pop(self, None)
        self.meter.notices.pop(self, None)


class PartsCounter(Counter, eq=False, gc=False):
    """The same under a sliding limit, with `parts`: 80 bytes.

    It is valid until its part is over, a part before leaves, or its quota ends; 0: it is over.
    """

    parts: Parts | None = None
    valid_until: int = 0

    def __post_init__(self) -> None:
        self.basis %= PLAIN
        self.valid_until = self.expiry

    def _rest_on(self, source: Source, knowledge: Knowledge) -> None:
        self.basis = basis(source, knowledge) % PLAIN

    def give(self, held: Held) -> None:
        """Set the quota, its source and its end."""
        Counter.give(self, held)
        if self.valid_until:
            end = self.lasts_until
            self.valid_until = min(end, held.until) if held.until else end
