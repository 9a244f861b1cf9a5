"""What stands in ratelimit_history, in every store: what each account used in each window, and parts of sliding ones.

A row there is one window of an account, by its end; of a sliding limit it is one part, by the time at which it leaves.
Here is decided what must be kept and what a row of the table `ratelimit` becomes; the databases are not known here.
"""

import re
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from enum import Enum, auto
from itertools import islice
from typing import NamedTuple

from ratelimitd.core.limits import Limit
from ratelimitd.core.rows import MAX_USED, NO_BOUND, Account, Delta, Known, Row, shown
from ratelimitd.stores.doubts import Doubts
from ratelimitd.stores.remarks import Remarks

STEP = 1000
"""Old rows that go in one transaction."""
LEFT_S = 3600
"""A part stays for so long after it has left: nodes' clocks differ."""
FAR_S = 3 * 366 * 86_400
"""No window, and no part, ends later than this from now."""
CHUNK = 50
"""Accounts of a sliding limit that are read at once: each has up to 61 parts."""
SETTLED = 500
"""Rows that are settled for good in one transaction."""
_DAY_S = 86_400
_DIGITS = re.compile(r"[0-9]{1,18}")

Values = tuple[str, str, int, int]
"""A row of the history: limit, key, the window's end, used."""
Parts = dict[int, int]
"""What was used in each part, by the time at which it leaves."""
Stood = tuple[tuple[int, int], ...]
"""The same as a row has it: the last to leave stands last."""


class Kept(NamedTuple):
    """What is kept: `history_days` of all limits (0: nothing), and the parts of the `sliding` ones, by name."""

    history_days: int = 0
    sliding: Collection[str] = frozenset()

    @classmethod
    def of(cls, limits: Iterable[Limit], history_days: int) -> "Kept":
        """What these limits need."""
        return cls(history_days, frozenset(limit.name for limit in limits if limit.sliding))

    @property
    def is_needed(self) -> bool:
        """Whether anything is kept."""
        return self.history_days > 0 or bool(self.sliding)

    def includes(self, delta: Delta) -> bool:
        """Whether a delta is kept."""
        return delta.sliding or self.history_days > 0

    def gone(self, now: int) -> int:
        """Rows whose end is not after this may go."""
        return now - max(self.history_days * _DAY_S, LEFT_S)


class How(Enum):
    """What comes of deltas: they are added, or are the least that is to stand there, or are nothing but the occasion
    to settle a row for good: what leaves too late to count never will."""

    ADD = auto()
    AT_LEAST = auto()
    FOR_GOOD = auto()


class Charges:
    """What a transaction adds to accounts that count in parts: `settle` says what comes of it.

    `doubts` are of the rows of the history that it writes.
    """

    def __init__(self) -> None:
        self.doubts: Doubts[Values] = Doubts("the table of the history")
        self._of: dict[tuple[str, int, int], dict[str, list[Delta]]] = {}

    def add(self, deltas: Iterable[Delta]) -> None:
        """Note deltas of sliding limits, or of fixed ones that slid before."""
        for delta in deltas:
            accounts = self._of.setdefault((delta.limit, delta.now, delta.latest), {})
            accounts.setdefault(delta.key, []).append(delta)

    def take(self, batch: Sequence[Delta], refused: Iterable[tuple[Delta, str]]) -> list[Values]:
        """Note a batch of sliding limits, without what was refused; of others, what is to be added to their rows."""
        without = {delta for delta, _ in refused}
        stored = [delta for delta in batch if delta not in without] if without else batch
        if not batch[0].sliding:
            return values_of(stored)
        self.add(stored)
        return []

    def join(self, rows: Iterable[Row], deltas: Iterable[Delta]) -> None:
        """Note those of the deltas of fixed limits whose rows count in parts: these limits slid before."""
        slid = {(row.limit, row.key) for row in rows if row.in_parts is not None}
        if slid:
            self.add(delta for delta in deltas if not delta.sliding and (delta.limit, delta.key) in slid)

    def chunks(self) -> Iterator["Chunk"]:
        """Some accounts of one limit at a time, in the order of their keys."""
        for (limit, now, latest), accounts in sorted(self._of.items(), key=lambda item: item[0]):
            keys = iter(accounts)  # which batches.py has sorted
            while some := list(islice(keys, CHUNK)):
                yield Chunk(limit, now, latest, {key: accounts[key] for key in some})


class Chunk(NamedTuple):
    """Accounts of one limit, with what is added to each."""

    limit: str
    now: int
    latest: int
    deltas: Mapping[str, Sequence[Delta]]

    @property
    def accounts(self) -> list[Account]:
        """Whose they are."""
        return [Account(self.limit, key) for key in self.deltas]

    @property
    def slides(self) -> bool:
        """Whether the limit slides; otherwise it did before."""
        return next(iter(self.deltas.values()))[0].sliding

    def alone(self, there: Container[str]) -> list[Delta]:
        """The deltas that are added to their own rows alone: parts that have left count no more, nor do any of an
        account without a row; `there` are those that have one."""
        if not self.slides:
            return []
        each = ((key, delta) for key, deltas in self.deltas.items() for delta in deltas)
        return [delta for key, delta in each if delta.used and (delta.expiry <= self.now or key not in there)]

    def settle(self, row: Row, kept: Kept, *, how: How = How.ADD) -> "Settled":
        """What comes of a row, whose `parts` are all that leave after `now`, as they were.

        What leaves after `latest` does not count. Where the row did not count in parts, those that stand there go:
        somebody has set its use.
        """
        stood = dict(row.parts)
        row = as_it_counts(row, self.now)
        if not self.slides:
            return self._join(row, at_least=how is How.AT_LEAST, recorded=kept.history_days > 0)
        if row.counts_in_parts:
            parts = {leave: used for leave, used in row.parts if leave <= self.latest}
            later = [leave for leave in stood if leave > self.latest]
        else:  # counted in one window, which lasts as long as it would have
            parts, later = ({row.expiry: row.used} if row.used and self.now < row.expiry <= self.latest else {}), []
        for delta in self.deltas[row.key]:
            if delta.expiry > self.now:
                there = parts.get(delta.expiry, 0)
                used = max(there, delta.used) if how is How.AT_LEAST else there + delta.used
                parts[delta.expiry] = min(used, MAX_USED)
        used = min(sum(parts.values()), MAX_USED)
        written = {leave: parts[leave] for leave in sorted(parts) if stood.get(leave) != parts[leave]}
        if how is How.FOR_GOOD:
            later = []
        ends = [*parts, *later] or [delta.expiry for delta in self.deltas[row.key]]
        gone = sorted(stood.keys() - parts.keys() - set(later))
        return Settled(
            row._replace(used=used, expiry=max(ends), in_parts=used, parts=tuple(sorted(parts.items()))),
            written,
            gone,
            self._over(stood, gone, self.latest) if kept.history_days else {},
        )

    def _over(self, stood: Parts, gone: Iterable[int], latest: int) -> Parts:
        """What the history has of those that go because they would leave too late: as of now it is over."""
        late = sum(stood[leave] for leave in gone if leave > latest)
        return {self.now: min(late, MAX_USED)} if late else {}

    def _join(self, row: Row, *, at_least: bool, recorded: bool) -> "Settled":
        """What comes of a row of a limit that slides no more: what counts is used in the window of the deltas.

        `recorded`: the deltas stand in the history already, and this window's row there becomes all that it has.
        """
        deltas = [delta for delta in self.deltas[row.key] if delta.expiry > self.now]
        if not deltas:  # late ones alone
            return Settled(row, {}, [])
        end = max(delta.expiry for delta in deltas)
        latest = max(self.latest, self.now + 2 * deltas[0].overlap_s)
        stood = row.parts if row.counts_in_parts else ((row.expiry, row.used),)
        counted = {leave: used for leave, used in stood if self.now < leave <= latest}
        there, more = sum(counted.values()), sum(delta.used for delta in deltas)
        recorded = recorded and row.counts_in_parts  # then the deltas are among the parts
        used = min(there if recorded else max(there, more) if at_least else there + more, MAX_USED)
        then = row._replace(used=used, expiry=end, in_parts=None, parts=())
        if not recorded:
            return Settled(then, {}, [])
        gone = sorted({leave for leave, _ in stood if leave > self.now} - {end})
        return Settled(then, {end: used}, gone, self._over(dict(stood), gone, latest))


def as_it_counts(row: Row, now: int) -> Row:
    """A row whose `parts` are all that leave after `now`; if it says that it counts in parts, but ends when none of
    them leaves, somebody has set that, and its use counts as one window."""
    if row.counts_in_parts and row.expiry > now and all(leave != row.expiry for leave, _ in row.parts):
        return row._replace(in_parts=None, parts=())
    return row


class Settled(NamedTuple):
    """A row as it is to be, the parts that are to be written, those that are to go, and what is to be added."""

    row: Row
    written: Parts
    gone: list[int]
    added: Parts = {}  # noqa: RUF012  it is never changed


def known_charges(known: Iterable[Known], kept: Kept, rows: Iterable[Row], now: int) -> tuple[Charges, list[Delta]]:
    """What is known of rows that count in parts, and of the others as far as that is kept in the history."""
    charges, fixed = Charges(), []
    charges.join(rows, [one._replace(now=now) for one, *_ in known])
    for one, *_ in known:
        if one.sliding:
            charges.add([one._replace(now=now)])
        elif one.used and kept.includes(one):
            fixed.append(one)
    return charges, fixed


def of_another_kind(present: Delta, after: int) -> tuple[object, ...]:
    """The values for `statements.others`: whose windows are none of the limit's, after a row's id."""
    parts_end_after = NO_BOUND if present.sliding else present.now
    return present.limit, after, present.latest, parts_end_after, SETTLED


def settling(present: Delta, rows: Iterable[Row]) -> Charges:
    """Charges of nothing, to these rows; but a clock that is behind the row's last change says nothing of it."""
    charges = Charges()
    charges.add(present._replace(key=row.key) for row in rows if 0 < row.updated <= present.now + LEFT_S)
    return charges


def values_of(deltas: Iterable[Delta]) -> list[Values]:
    """What a statement writes, in the order of the history's rows: all nodes take their locks in it. Deltas of one row
    are added, for a statement names each row once."""
    total: dict[tuple[str, str, int], int] = {}
    for delta in deltas:
        place = delta.key, delta.limit, delta.expiry
        total[place] = total.get(place, 0) + delta.used
    return [(limit, key, end, min(total[key, limit, end], MAX_USED)) for key, limit, end in sorted(total)]


def parts_of(limit: str, key: str, found: Sequence[tuple[object, object]], remarks: Remarks) -> Stood:
    """The parts of an account, from the database's values of `expiry` and `used`, without those that make no sense."""
    parts: Parts = {}
    for leave, used in found:
        end = leave if isinstance(leave, int) else _whole(leave)
        recipients = used if isinstance(used, int) else _whole(used)
        if recipients < 0 or end <= 0:
            say_odd(remarks, limit, key, leave, used)
        if end > 0:
            parts[end] = min(max(recipients, 0), MAX_USED)
    return tuple(sorted(parts.items()))


def _whole(value: object) -> int:
    """The number that a value is; NULL is 0, what is none is -1."""
    if value is None:
        return 0
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    return int(text) if _DIGITS.fullmatch(text) else -1


def say_odd(remarks: Remarks, limit: object, key: object, expiry: object, used: object) -> None:
    """Have it said that a row makes no sense."""
    remarks.add(
        "a row of the history makes no sense; it is not counted",
        limit=shown(limit), key=shown(key), expiry=shown(expiry), used=shown(used),
    )  # fmt: skip


def say_refused(remarks: Remarks, values: Values, reason: str) -> None:
    """Have it said that the database refuses a row."""
    limit, key, expiry, used = values
    remarks.add("the database refuses a row of the history; it is left out",
                limit=limit, key=shown(key), expiry=expiry, used=used, reason=shown(reason))  # fmt: skip
