"""Where counts are kept: the Store protocol, which every backend fulfils and one conformance suite tests.

Mail never waits for a store, but for the one lookup of a new account. Every operation may fail with StoreError at any
time, and may be tried again.
"""

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple, Protocol

from ratelimitd.core.rows import MAX_USED as MAX_USED
from ratelimitd.core.rows import NO_SEGMENT as NO_SEGMENT
from ratelimitd.core.rows import Account, Delta, Grant, Known, Row
from ratelimitd.errors import StoreError
from ratelimitd.stores.history import Kept
from ratelimitd.stores.past import Past
from ratelimitd.stores.remarks import Remarks
from ratelimitd.stores.survey import Rename, Survey

RUNS_KEPT_DAYS = 62
"""A run is forgotten this long after its last flush, unless its journal is still there."""

COLUMNS = (
    *("id", "sender", "limit_name", "persist", "quota", "configured", "seen", "until"),
    *("used", "in_parts", "updated", "expiry"),
)
NONSENSE = (LookupError, ValueError, TypeError, ArithmeticError, AttributeError, RecursionError, MemoryError)
"""What comes of a value, or of an answer, that is another than can be: too large, too deep, too few, a text in place of
a number.
"""
_SEGMENT = re.compile("[0-9]{1,18}")
_QUOTED = re.compile(r"([\"`])([a-z_]+)\1")
_SUFFIXES = ("node", "aside", "updated", "touched", "default", "window", "history", "ended", "touch", "counts", "dates")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,47}")


class Flushed(NamedTuple):
    """What a flush did: the rows as they are now, and the deltas that the database refused, with its reason."""

    rows: list[Row]
    rejected: list[tuple[Delta, str]]


class ZoneWindow(NamedTuple):
    """When the present window of a limit ends in a time zone, in seconds since 1970."""

    limit: str
    timezone: str
    expiry: int


class Cursor(NamedTuple):
    """Up to where changes were taken over: a time of the database's own, as that compares it.

    Between two pages it is the time of the last row, and `id` is that row's; `begun`: the time of the call for the
    first page, where the store goes on from there after the last one.
    """

    time: str | int
    id: object = 0
    begun: str | int = 0


class Changes(NamedTuple):
    """Rows that were changed, and the cursor for the next call; `more`: there are more of them now."""

    rows: list[Row]
    cursor: Cursor
    more: bool = False


class Store(Protocol):
    """A database of counts."""

    name: str
    remarks: Remarks
    """What the store has to say in the log; whoever asks it for something says it."""
    past: Past
    """The history, to look at."""

    def configure(self, timeout_s: float, kept: Kept) -> None:
        """Take `store.timeout_s`, and what is to be kept in the history; at any time."""
        ...

    async def open(self) -> None:
        """Connect, and create what is missing."""
        ...

    async def settle_default(self, *, change: bool) -> None:
        """Have rows that name no limit be the first limit's, at a start; without `change` only say where they are not.

        In a database that others may use, that stays as it is while rows are of the limit whose they would be.
        """
        ...

    async def forget(self, but: Collection[str], now: int) -> None:
        """Forget the runs that have stored nothing for RUNS_KEPT_DAYS, but those whose segments still exist.

        `now` is this machine's clock, in seconds since 1970: a run is forgotten when that of the database agrees.
        """
        ...

    async def forget_history(self, now: int) -> bool:
        """Forget some rows of the history that are kept no longer; whether there may be more.

        `now` as for `forget`: rows go when both clocks agree.
        """
        ...

    async def close(self) -> None:
        """Disconnect; never raises."""
        ...

    async def lookup(self, accounts: Sequence[Account], now: int) -> list[Row]:
        """The stored rows of these accounts; those without a row, or with one that makes no sense, are left out.

        As everywhere, those that count in parts have the `parts` that leave after `now`, in seconds since 1970.
        """
        ...

    async def recorded(self, node: str) -> int:
        """The last segment of a node that is stored; 0 for none, NO_SEGMENT where that is no number."""
        ...

    async def flush(self, node: str, segment: int, merge: Callable[[int], Iterable[Delta]]) -> Flushed:
        """Store a node's deltas up to a segment, in one transaction that records the segment, whatever was recorded.

        `merge` is called with the recorded segment, once or more often, and gives the deltas of later segments. So a
        flush whose outcome is unknown can be repeated, by the caller only. What is kept in the history is added there,
        by each delta's own window: no delta is dropped there. Raises NotStored where nothing was stored,
        StoreReplaced where it was stored in a database that nobody will see again, or `merge` says so.
        """
        ...

    async def check(self) -> None:
        """Raise StoreReplaced where the database is known to be another than the one that was opened."""
        ...

    async def restore(self, known: Sequence[Known], now: int) -> None:
        """Have each row hold at least the use that is known, and the quota; what it holds more stays.

        So does a quota that was given since a daemon last saw the row, and what the history's rows hold more. Doing it
        again changes nothing. `now` is in seconds since 1970.
        """
        ...

    async def grant(self, grant: Grant, now: int) -> list[Row]:
        """Give an account a quota; the row as it is then. A row whose window is over begins the grant's with 0 used."""
        ...

    async def reset(self, accounts: Sequence[Account], now: int) -> list[Row]:
        """Set what these accounts have used to 0; their rows as they are then, of those that have one."""
        ...

    async def settle(self, present: Delta, after: int) -> int:
        """Have rows of a limit that were counted in windows of another kind say what they say in its present one.

        `present` is a charge of nothing to it, without a key. What leaves or ends after its `latest` will never count.
        Some rows after one with that id; the id of the last, 0 where there are no more. As of `present.now`.
        """
        ...

    async def survey(self) -> Survey:
        """What stands in the table, as far as it concerns an administrator: it reads the whole table once."""
        ...

    async def adopt(self, renames: Sequence[Rename], now: int) -> list[Row]:
        """Make these rows their accounts', whose keys are written in another way; the accounts' rows as they are then.

        A row that is gone, or makes no sense, is left as it is. `now` is in seconds since 1970.
        """
        ...

    async def changes(self, cursor: Cursor | None, now: int) -> Changes:
        """Rows changed since the cursor, some perhaps twice; with None no rows, and a cursor for changes from now on.

        Quotas that somebody gave in a running window are noted there as `seen`: they end with it.
        """
        ...

    async def note_given(self) -> None:
        """Note as `seen` the quotas that were given in a running window while no daemon looked: they end with it."""
        ...

    async def compare(self, mine: Sequence[ZoneWindow], gone: Sequence[ZoneWindow]) -> list[ZoneWindow]:
        """Record this node's windows, and not those that are its no more; what all nodes have recorded recently.

        A store that one node alone can use records nothing.
        """
        ...


def keys_by_limit(accounts: Iterable[Account]) -> dict[str, list[str]]:
    """The accounts' keys by limit, each once, without keys that UTF-8 cannot encode: no database has a row of those."""
    found: dict[str, dict[str, None]] = {}
    for limit, key in accounts:
        if key.isascii() or key.encode(errors="ignore").decode() == key:
            found.setdefault(limit, {})[key] = None
    return {limit: list(keys) for limit, keys in found.items()}


def unreadable(accounts: Iterable[Account], rows: Iterable[Row]) -> list[Account]:
    """The accounts whose row was not found: nothing is to be added to what it says."""
    found = {(row.limit, row.key) for row in rows}
    wanted = [Account(limit, key) for limit, keys in keys_by_limit(accounts).items() for key in keys]
    return [one for one in wanted if one not in found]


def lacking(known: Iterable[Known], rows: Iterable[Row], now: int) -> tuple[list[Delta], list[Grant]]:
    """What must be written to the rows of these accounts, for `Store.restore`."""
    stored = {Account(row.limit, row.key): row for row in rows}
    deltas: list[Delta] = []
    grants: dict[Account, Grant] = {}
    for one, persist, until in known:
        account = Account(one.limit, one.key)
        row = stored.get(account)
        there = row.used if row is not None and abs(row.expiry - one.expiry) < one.apart_s else 0
        if one.sliding:
            deltas.append(one._replace(now=now))
        elif row is None or one.used > there:  # a delta of nothing would note the row's quota as seen
            deltas.append(one._replace(used=max(0, one.used - there)))
        there_is = (one.configured, False, 0)
        if row is not None:
            if row.quota != row.seen:
                continue  # it was given since, and is newer than what is known
            there_is = (row.quota_at(now, one.configured), row.persist, row.end_of_quota(now))
        if (one.quota, persist, until) != there_is:
            grants[account] = Grant(*account, one.quota, one.configured, persist, one.expiry, one.latest, until)
    return deltas, list(grants.values())


class Names(NamedTuple):
    """The names of the table and its columns, as configured. They go into statements: `checked` must have passed.

    `limit` is the first limit's: rows that name no limit are its.
    """

    table: str = "ratelimit"
    columns: tuple[tuple[str, str], ...] = ()
    limit: str = "default"

    def checked(self) -> "Names":
        """Itself. Raises ValueError for a name that is not a plain identifier, or for an unknown column."""
        for name in (self.table, *dict(self.columns).values()):
            if not _IDENTIFIER.fullmatch(name):
                raise ValueError(name)
        for name in dict(self.columns):
            if name not in COLUMNS:
                raise ValueError(name)
        return self

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables of a server's database."""
        return self.table, f"{self.table}_node", f"{self.table}_window", f"{self.table}_history"

    def apply(self, statement: str, quote: str) -> str:
        """A statement with the configured names, between `quote`s, in place of the default ones, which are between
        quotes; and with the first limit in place of `'default'`."""
        names = {"ratelimit": self.table, "view_ratelimit": f"view_{self.table}", **dict(self.columns)}
        names |= {f"ratelimit_{suffix}": f"{self.table}_{suffix}" for suffix in _SUFFIXES}

        def replace(match: re.Match[str]) -> str:
            return quote + names.get(match[2], match[2]) + quote

        statement = _QUOTED.sub(replace, statement)
        return statement.replace("'default'", f"'{self.limit}'")


def recorded_segment(found: Sequence[tuple[object, ...]]) -> int:
    """The last stored segment, from the rows of ratelimit_node: 0 for none, NO_SEGMENT where it is no number.

    Raises StoreError for rows without a value.
    """
    if not found:
        return 0
    if not found[0]:
        raise StoreError("ratelimit_node: the server's answer makes no sense")
    value = found[0][0]
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    return int(text) if _SEGMENT.fullmatch(text) else NO_SEGMENT


@cache
def schema(backend: str) -> str:
    """The text of sql/BACKEND.sql, from the installed package or the checkout."""
    for folder in Path(__file__).parents[1:3]:
        file = folder / "sql" / f"{backend}.sql"
        if file.is_file():
            return file.read_text(encoding="utf-8")
    raise StoreError(f"the installation lacks sql/{backend}.sql")
