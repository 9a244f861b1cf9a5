"""The embedded store: one SQLite file in WAL mode, read and written in threads.

One connection writes, one looks up accounts, and one reads what may take long: a lookup waits for none of them. SQLite
releases the interpreter's lock while it works, and a thread does little between two statements.
"""

import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio

from ratelimitd.core.rows import Account, Delta, Grant, Known, Row
from ratelimitd.errors import NotStored, RecordRefused, StoreError
from ratelimitd.stores import (
    NONSENSE,
    Changes,
    Cursor,
    Flushed,
    Names,
    ZoneWindow,
    lacking,
    sqlite_changes,
    statements,
    unreadable,
)
from ratelimitd.stores import sqlite_runs as runs
from ratelimitd.stores.batches import batches
from ratelimitd.stores.dialect import SQLite
from ratelimitd.stores.doubts import Doubts
from ratelimitd.stores.file import DatabaseFile, opened
from ratelimitd.stores.history import Charges, Kept
from ratelimitd.stores.past import Past
from ratelimitd.stores.remarks import Remarks
from ratelimitd.stores.sqlite_adopt import CHUNK, adopt, select
from ratelimitd.stores.sqlite_deltas import decide, store
from ratelimitd.stores.sqlite_history import SQLiteHistory
from ratelimitd.stores.sqlite_layout import complete, make_durable, set_default, still_complete
from ratelimitd.stores.sqlite_odd import change_row, odd
from ratelimitd.stores.sqlite_past import SQLitePast
from ratelimitd.stores.sqlite_writing import Undone, Writer, change, without_undoing
from ratelimitd.stores.survey import Rename, Survey
from ratelimitd.stores.turns import SHORT_TURNS

_DIALECT = SQLite()
T = TypeVar("T")


class SQLiteStore:
    """A Store in one file. Raises StoreError."""

    def __init__(self, path: Path, names: Names | None = None) -> None:
        self.name = f"sqlite:{path}"
        self.remarks = Remarks()
        self._file = DatabaseFile(path)
        self._names = names or Names()
        self._history = SQLiteHistory(self._names, self.remarks)
        self.past: Past = SQLitePast(self._names, self.remarks, self._history, self._scan)
        self._writer: Writer | None = None
        self._reader: sqlite3.Connection | None = None
        self._scanner: sqlite3.Connection | None = None  # reads what no reply waits for
        self._schema = 0  # its version, as it was last found to be complete
        self._writing, self._reading, self._scanning = (trio.CapacityLimiter(1) for _ in range(3))

    def _sql(self, statement: str) -> str:
        return _DIALECT.sql(self._names, statement)

    def configure(self, timeout_s: float, kept: Kept) -> None:
        """Take what is to be kept; no connection to a file waits, and who asks bounds the time."""
        self._history.configure(kept)

    async def open(self) -> None:
        """Open the file, create the table. Raises StoreUnsuitable for a file that is damaged or no database."""
        if self._writer is None:
            await self._run(self._open, self._writing)

    def _open(self) -> None:
        self._file.prepare(self.remarks)
        with ExitStack() as opening:
            writer = opening.enter_context(closing(self._file.connect()))
            make_durable(writer)
            self._schema = complete(writer, self._names)
            self._file.remember()
            readers = [opening.enter_context(closing(self._file.connect_to_read())) for _ in range(2)]
            opening.pop_all()
        self._writer, (self._reader, self._scanner) = writer, readers

    async def settle_default(self, *, change: bool) -> None:
        """Have rows that name no limit be the first limit's; nobody else's daemon uses the file."""
        if change:
            self._schema = await self._run(lambda: set_default(opened(self._writer), self._names), self._writing)

    async def forget(self, but: Collection[str], now: int) -> None:
        """Forget runs of long ago."""
        await self._run(lambda: runs.forget(opened(self._writer), self._sql, self.remarks, but, now), self._writing)

    async def forget_history(self, now: int) -> bool:
        """Forget old rows of the history."""
        return await self._run(lambda: self._history.forget(opened(self._writer), now), self._writing)

    async def close(self) -> None:
        """Close the file."""
        with trio.CancelScope(shield=True):
            lines = ((self._reader, self._reading), (self._scanner, self._scanning), (self._writer, self._writing))
            # SQLite writes its log of changes into the file as the last connection is closed, if that may write.
            for connection, limiter in reversed(lines) if self._file.cut else lines:
                if connection is not None:
                    await trio.to_thread.run_sync(connection.close, limiter=limiter)
            if self._writer is not None:
                with suppress(OSError):
                    await trio.to_thread.run_sync(self._file.discard, limiter=self._writing)
        self._reader = self._scanner = self._writer = None

    async def _run(self, work: Callable[[], T], limiter: trio.CapacityLimiter, *, abandon: bool = False) -> T:
        try:
            return await trio.to_thread.run_sync(work, limiter=limiter, abandon_on_cancel=abandon)
        except (sqlite3.IntegrityError, sqlite3.DataError) as error:
            raise RecordRefused(f"{self.name}: {error}") from error
        except (sqlite3.Error, OSError, *NONSENSE) as error:
            raise StoreError(f"{self.name}: {error or type(error).__name__}") from error

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with SHORT_TURNS:
            return await self._run(lambda: work(opened(self._reader)), self._reading, abandon=True)

    async def _scan(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._run(lambda: work(opened(self._scanner)), self._scanning, abandon=True)

    async def lookup(self, accounts: Sequence[Account], now: int) -> list[Row]:
        """The stored rows of these accounts."""
        return await self._read(lambda connection: self._lookup(connection, accounts, now))

    def _lookup(self, connection: sqlite3.Connection, accounts: Iterable[Account], now: int) -> list[Row]:
        return self._history.with_parts(connection, self._select(connection, accounts), now)

    def _select(self, connection: sqlite3.Connection, accounts: Iterable[Account]) -> list[Row]:
        return select(connection, self._sql, self.remarks, accounts)

    async def recorded(self, node: str) -> int:
        """The last segment of a node that is stored."""
        return await self._read(partial(runs.recorded, sql=self._sql, node=node))

    async def flush(self, node: str, segment: int, merge: Callable[[int], Iterable[Delta]]) -> Flushed:
        """Store deltas and the segment in one transaction."""
        work = partial(self._flush, node, segment, merge)
        return await self._run(lambda: without_undoing(opened(self._writer), work), self._writing)

    def _flush(self, node: str, segment: int, merge: Callable[[int], Iterable[Delta]]) -> Flushed:
        connection = opened(self._writer)
        # IMMEDIATE: a deferred transaction that turns to writing fails at once instead of waiting for the lock.
        connection.execute("BEGIN IMMEDIATE")
        committing = False
        try:
            self._check_whole()
            rejected: list[tuple[Delta, str]] = []
            stored: list[Delta] = []
            doubts, charges = Doubts[Delta](), Charges()
            for batch in batches(merge(runs.recorded(connection, self._sql, node)), CHUNK):
                self.remarks.unread |= dict.fromkeys(odd(connection, self._sql, batch))
                refused = self._store(connection, batch, doubts)
                self._history.add(connection, batch, refused, charges)
                rejected += refused
                stored += batch
            decide(connection, self._sql, doubts)
            runs.record(connection, self._sql, node, segment)
            rows = self._select(connection, [Account(delta.limit, delta.key) for delta in stored])
            charges.join(rows, stored)
            rows = self._history.settle(connection, charges, rows)
            committing = True
            connection.execute("COMMIT")
        except BaseException as error:
            if connection.in_transaction:  # not after SQLITE_FULL, which has rolled back
                connection.execute("ROLLBACK")
                committing = False
            if isinstance(error, (sqlite3.Error, *NONSENSE)) and not (committing or isinstance(error, Undone)):
                raise NotStored(f"{self.name}: {error}") from error
            raise
        self._file.check()
        return Flushed(rows, rejected)

    async def check(self) -> None:
        """Raise StoreReplaced where another file, or none, stands at the path, or it lacks a part or a table."""
        await self._run(self._check_whole, self._writing)

    def _check_whole(self) -> None:
        self._file.check()
        self._schema = still_complete(opened(self._writer), self._names, self._schema)

    async def restore(self, known: Sequence[Known], now: int) -> None:
        """Have each row hold at least what is known."""
        await self._write(lambda connection: self._restore(connection, known, now))

    def _restore(self, connection: Writer, known: Sequence[Known], now: int) -> None:
        rows = self._lookup(connection, accounts := [Account(one.limit, one.key) for one, *_ in known], now)
        for account in unreadable(accounts, rows):
            reset = self._sql(statements.reset(_DIALECT))
            change_row(connection, self.remarks, account, reset, (account.key, account.limit))
        deltas, grants = lacking(known, rows, now)
        doubts = Doubts[Delta]()
        refused = [one for batch in batches(deltas, CHUNK) for one in self._store(connection, batch, doubts)]
        decide(connection, self._sql, doubts)
        for delta, reason in refused:
            self.remarks.refused(delta.limit, delta.key, reason)
        self._history.restore(connection, known, now, partial(self._select, connection))
        for grant in grants:
            statement = self._sql(statements.grant(_DIALECT, grant.latest, now))
            change_row(connection, self.remarks, Account(grant.limit, grant.key), statement, grant.values)

    async def _write(self, work: Callable[[Writer], T]) -> T:
        """Do a piece of work in a transaction."""

        def whole() -> T:
            with self._transaction(connection := opened(self._writer)):
                return work(connection)

        return await self._run(lambda: without_undoing(opened(self._writer), whole), self._writing)

    @contextmanager
    def _transaction(self, connection: Writer) -> Iterator[None]:
        connection.execute("BEGIN IMMEDIATE")
        try:
            self._check_whole()
            yield
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        self._file.check()

    def _store(
        self, connection: Writer, chunk: Sequence[Delta], doubts: Doubts[Delta] | None = None
    ) -> list[tuple[Delta, str]]:
        return store(connection, self._sql, chunk, doubts)

    async def grant(self, grant: Grant, now: int) -> list[Row]:
        """Give an account a quota."""
        work = partial(change, statement=self._sql(statements.grant(_DIALECT, grant.latest, now)), rows=1)
        return await self._change(partial(work, records=[grant.values]), [Account(grant.limit, grant.key)], now)

    async def reset(self, accounts: Sequence[Account], now: int) -> list[Row]:
        """Set what these accounts have used to 0."""
        records = [(account.key, account.limit) for account in accounts]
        work = partial(change, statement=self._sql(statements.reset(_DIALECT)), records=records)
        return await self._change(work, accounts, now)

    async def _change(self, work: Callable[[Writer], None], accounts: Iterable[Account], now: int) -> list[Row]:
        def change_all(connection: Writer) -> list[Row]:
            work(connection)
            return self._lookup(connection, accounts, now)

        return await self._write(change_all)

    async def settle(self, present: Delta, after: int) -> int:
        """Have rows say what they say in the present window."""
        of = self._history.settle_for_good
        return await self._write(lambda writer: of(writer, present, after, partial(self._select, writer)))

    async def survey(self) -> Survey:
        """What stands in the table."""
        return await self._scan(partial(sqlite_changes.survey, names=self._names))

    async def adopt(self, renames: Sequence[Rename], now: int) -> list[Row]:
        """Make rows their accounts'."""
        return await self._write(lambda connection: self._adopt(connection, renames, now))

    def _adopt(self, connection: Writer, renames: Sequence[Rename], now: int) -> list[Row]:
        adopt(connection, self._sql, self._history, self.remarks, renames, now)
        return self._lookup(connection, [Account(one.limit, one.new) for one in renames], now)

    async def compare(self, mine: Sequence[ZoneWindow], gone: Sequence[ZoneWindow]) -> list[ZoneWindow]:
        """Nothing: one node alone uses the file."""
        return []

    async def changes(self, cursor: Cursor | None, now: int) -> Changes:
        """Rows changed since the cursor, a time of the database's own."""
        found = await self._scan(partial(self._changes, cursor=cursor, now=now))
        given: list[tuple[object, ...]] = [
            (row.key, row.limit) for row in found.rows if row.quota != row.seen and (row.expiry or row.until)
        ]
        if given:
            await self._note(self._sql(statements.seen(_DIALECT)), given)
        return found

    def _changes(self, reader: sqlite3.Connection, cursor: Cursor | None, now: int) -> Changes:
        found = sqlite_changes.since(reader, self._names, self.remarks, cursor)
        return found._replace(rows=self._history.with_parts(reader, found.rows, now))

    async def note_given(self) -> None:
        """Note the quotas that were given in windows that run."""
        last = 0
        while ids := await self._scan(partial(sqlite_changes.given_since, sql=self._sql, last=last, count=CHUNK)):
            last = ids[-1][0]
            await self._note(self._sql(statements.note(_DIALECT, 1)), ids)

    async def _note(self, statement: str, values: Iterable[Sequence[object]]) -> None:
        await self._write(lambda writer: sqlite_changes.note(writer, self.remarks, statement, values))
