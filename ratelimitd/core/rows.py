"""What memory and a store exchange: rows as they are stored, and charges and quotas that are to be written.

`read` checks every row of every database: whoever may write to the table may write nonsense.
"""

import re
from collections.abc import Iterator, Sequence
from sys import intern
from typing import NamedTuple, TypeVar

from ratelimitd.core.windows import Period
from ratelimitd.text import escape

MAX_USED = 4_294_967_295
"""The width of the columns (INT UNSIGNED): counts stop there, and quotas, and so does the time of `until`."""
NO_BOUND = 1 << 62
"""Later than every window."""
NO_SEGMENT = 1 << 62
"""Stands for a recorded segment that is no number: above all that there can be, so that nothing is stored twice."""

COLUMNS_READ = 11
"""How many values a database gives for a row; `parts` are in another table."""

_WHOLE = re.compile(r"(-?[0-9]{1,19})(\.0*)?")
_SECONDS = re.compile(r"([0-9]{1,19})(\.[0-9]*)?")

T = TypeVar("T")


class Account(NamedTuple):
    """Whose count: one key under one limit."""

    limit: str
    key: str


class Row(NamedTuple):
    """One stored count. `expiry` and `updated` in seconds since 1970; expiry 0: never used.

    `configured` is the configured quota when the daemon last wrote the row, or None where somebody else created it: a
    quota that differs from it is an administrator's grant. `seen` is the quota that the daemon last saw in the window
    that ends at `expiry`: a quota that differs from it was given since, and by whom `updated` was written is no matter.
    `until` is when a quota ends that was given until a time, in seconds since 1970; 0: it was not.
    `in_parts` is what the daemon wrote as `used` where that is the sum of the `parts` of a sliding limit, or None where
    it was counted in one window. Parts are those that have not left: when each leaves, and what was used in it; the
    last to leave stands last.
    """

    limit: str
    key: str
    quota: int
    configured: int | None
    persist: bool
    used: int
    expiry: int
    updated: int
    seen: int | None = None
    until: int = 0
    in_parts: int | None = None
    parts: tuple[tuple[int, int], ...] = ()

    @property
    def counts_in_parts(self) -> bool:
        """Whether its parts say what was used. A `used` that somebody has set counts as one window that ends at
        `expiry`, as one does that was counted so."""
        return self.used == self.in_parts

    def in_window(self, now: int, period: Period) -> "Row":
        """The same where the limit's windows slide no more: what its parts have is used in the present window."""
        latest = period.latest_part(now)
        used = sum(used for leave, used in self.parts if now < leave <= latest)
        expiry = period.end(now) if used else 0
        return self._replace(used=min(used, MAX_USED), expiry=expiry, in_parts=None, parts=())

    def quota_at(self, now: int, configured: int) -> int:
        """The quota that applies: a persistent one, else a grant until its end, else one in its window, else the
        configured one."""
        if self.persist or self.until > now:
            return self.quota
        if self.quota == self.configured or (self.until and not self._given_since(self.until)):
            return configured
        if self.expiry > now:
            return self.quota
        # A grant made after its window ended is meant for the one that begins with the next mail.
        return self.quota if self._given_since(self.expiry) else configured

    def end_of_quota(self, now: int) -> int:
        """When the quota ends that was given until a time; 0: it was not, or has ended."""
        return self.until if self.until > now else 0

    def _given_since(self, end: int) -> bool:
        """Whether the quota was given after an end, and is not the one that ended then."""
        return self.quota != self.seen and self.updated >= end


class Delta(NamedTuple):
    """Recipients to add to the window of a count that ends at `expiry`.

    `quota` is what the row gets where this delta begins the window; `configured` is what the configuration says. A row
    whose window ends after `latest`, the end of the next window, is treated as if it had none: this delta replaces it.
    A window that ends less than `apart_s` before or after the row's is the same to a node in another time zone: its
    recipients are added, and the later end holds. If both run at `now`, it is the same up to `overlap_s`; then the
    row's end holds where the delta's is later by more than `apart_s` (Period.common_end).
    Of a `sliding` limit it is a part that leaves at `expiry`: its recipients are added to that part alone.
    """

    limit: str
    key: str
    expiry: int
    used: int
    quota: int
    configured: int
    latest: int = NO_BOUND
    apart_s: int = 1
    overlap_s: int = 1
    now: int = NO_BOUND
    sliding: bool = False

    @property
    def values(self) -> tuple[object, ...]:
        """For a statement: limit, key, expiry, used, quota, configured, seen; a part's `used` is for its own row."""
        used = 0 if self.sliding else min(self.used, MAX_USED)
        return (self.limit, self.key, self.expiry, used, self.quota, self.configured, self.quota)


class Known(NamedTuple):
    """What memory knows to be stored of an account: `delta.used` recipients, and its quota, which may `persist`, or end
    at `until` (seconds since 1970; 0: no such end). Of a sliding limit there is one for each part."""

    delta: Delta
    persist: bool
    until: int = 0


class Grant(NamedTuple):
    """A quota that an administrator gives: for good (`persist`), until a time (`until`, in seconds since 1970), or,
    with neither, until `expiry`, the end of the window.

    `latest` as in a Delta.
    """

    limit: str
    key: str
    quota: int
    configured: int
    persist: bool
    expiry: int
    latest: int = NO_BOUND
    until: int = 0

    @property
    def values(self) -> tuple[object, ...]:
        """For a statement: limit, key, quota, configured, persist, expiry, seen, until."""
        return (*self[:6], self.quota, self.until or None)


class Unreadable(NamedTuple):
    """A row that makes no sense: whose it is, as far as that can be said in a log line, and why."""

    limit: str
    key: str
    reason: str

    @property
    def of_use(self) -> bool:
        """Whether nobody can tell what was used in which window."""
        return self.reason.startswith(("used is ", "expiry is "))


class _Odd(ValueError):
    """A value has no plain meaning."""


def read(values: Sequence[object]) -> Row | Unreadable:
    """The row of a database's values, in the order of `Row` without `parts`, or why they are none.

    A value that has a plain meaning gets it: NULL is 0, a negative quota is unlimited, "12" is 12. Names that are no
    text are bytes, or have surrogates for what is not UTF-8. No number is greater than one that can be written back.
    """
    try:
        limit, key, quota, configured, persist, used, expiry, updated, seen, until, in_parts = values
    except ValueError:
        return Unreadable("", "", f"it has {len(values)} values, not {COLUMNS_READ}")
    try:
        if type(limit) is not str or type(key) is not str or not (key.isascii() and limit.isascii()):
            limit, key = _text("limit_name", limit), _text("sender", key)
        return Row(
            intern(limit),
            key,
            _quota("quota", quota),
            None if configured is None else _quota("configured", configured),
            (persist if type(persist) is int else _whole("persist", persist)) == 1,
            min(_count("used", used), MAX_USED),
            min(_count("expiry", expiry), NO_BOUND),
            min(updated, NO_BOUND) if type(updated) is int else seconds(updated),
            None if seen is None else _quota("seen", seen),
            0 if until is None else min(_count("until", until), MAX_USED),
            None if in_parts is None else min(_count("in_parts", in_parts), MAX_USED),
        )
    except _Odd as error:
        return Unreadable(shown(limit), shown(key), str(error))


def _text(column: str, value: object) -> str:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _Odd(f"{column} is not UTF-8") from None
        return value
    raise _Odd(f"{column} is no text")


def _whole(column: str, value: object) -> int:
    """The whole number that a value is, or says in digits: 12.00 is one, as columns of decimals or floats have it."""
    if isinstance(value, int):
        return int(value)
    if value is None:
        return 0
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    digits = _WHOLE.fullmatch(text)
    if digits is None:
        raise _Odd(f'{column} is "{shown(value)}"')
    return int(digits[1])


def _quota(column: str, value: object) -> int:
    number = value if type(value) is int else _whole(column, value)
    return min(max(number, 0), MAX_USED)


def _count(column: str, value: object) -> int:
    number = value if type(value) is int else _whole(column, value)
    if number < 0:
        raise _Odd(f"{column} is {number}")
    return number


def seconds(updated: object) -> int:
    """The whole second of a row's `updated`, in seconds since 1970; 0 where it is no time."""
    text = updated.decode("ascii", "replace") if isinstance(updated, bytes) else str(updated)
    found = _SECONDS.fullmatch(text)
    return min(int(found[1]), NO_BOUND) if found else 0


def shown(value: object) -> str:
    """A value as a log line shows it, with nothing in it that is not printable, and not all of a long one."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return escape(text[:100].encode("utf-8", "replace").decode())


def slices(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The items, `size` at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
