"""The store that many nodes share, in a database server.

A flush is one transaction. It first locks this node's row in ratelimit_node: a transaction that an earlier attempt left
behind on the server has ended before the recorded segment is read. Deltas are added, never set, so that the order of
several nodes' flushes does not matter.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from functools import partial

import trio

from ratelimitd.core.rows import Account, Delta, Grant, Known, Row, slices
from ratelimitd.errors import NotStored, RecordRefused, StoreError, StoreReplaced, StoreUnsuitable
from ratelimitd.stores import (
    COLUMNS,
    Changes,
    Cursor,
    Flushed,
    Names,
    ZoneWindow,
    lacking,
    recorded_segment,
    statements,
    unreadable,
)
from ratelimitd.stores.batches import batches
from ratelimitd.stores.dialect import Dialect
from ratelimitd.stores.doubts import Doubts
from ratelimitd.stores.history import Charges, Kept
from ratelimitd.stores.past import Past
from ratelimitd.stores.remarks import Remarks
from ratelimitd.stores.shared import runs, windows
from ratelimitd.stores.shared.adoption import Adopter
from ratelimitd.stores.shared.blame import change, change_row
from ratelimitd.stores.shared.changes import ChangedRows
from ratelimitd.stores.shared.default_limit import settle
from ratelimitd.stores.shared.deltas import decide, odd, store
from ratelimitd.stores.shared.history import SharedHistory
from ratelimitd.stores.shared.past import SharedPast
from ratelimitd.stores.shared.reading import CHUNK, LOCK, StoredRows, surveyed
from ratelimitd.stores.shared.rights import LACKING
from ratelimitd.stores.shared.session import Servers, Session
from ratelimitd.stores.survey import Rename, Survey


class SharedStore(ABC):
    """A Store in a server's database. Raises StoreError."""

    def __init__(self, name: str, names: Names, servers: Servers, dialect: Dialect) -> None:
        self.name = name
        self.remarks = Remarks()
        self._names = names
        self._servers = servers
        servers.is_whole = self._is_whole
        self._dialect = dialect
        self._history = SharedHistory(dialect, names, self.remarks)
        self.past: Past = SharedPast(dialect, names, self.remarks, self._history, servers)
        self._rows = StoredRows(dialect, self._sql, self.remarks)
        self._changed = ChangedRows(dialect, names, self.remarks)
        self._adopter = Adopter(self._sql, self._rows, self._history, self.remarks)

    # -- what differs ------------------------------------------------------------------------------------------------

    @abstractmethod
    async def _check_tables(self, session: Session) -> None:
        """Create tables that are missing. Raises StoreUnsuitable for those that cannot be used."""

    @abstractmethod
    async def _tables(self, session: Session) -> Collection[str]:
        """Those of our tables that are there."""

    @abstractmethod
    async def _grants(self, session: Session) -> str:
        """The statements that give the account the rights that it lacks on our tables; "": it lacks none."""

    @abstractmethod
    async def _columns(self, session: Session) -> Collection[str]:
        """The columns of the table `ratelimit`, by our names for them."""

    async def _dialect_now(self, session: Session) -> Dialect:
        """The dialect for the table as it is: it asks each time, for a table may be altered."""
        return self._dialect

    @abstractmethod
    async def _lock_what_is_not_there(self, session: Session) -> None:
        """Keep other nodes from making rows that a transaction looks for, unless the look itself does."""

    async def _is_whole(self, session: Session) -> bool:
        table = self._names.table
        needed = {table, f"{table}_node", *([f"{table}_history"] if self._history.exists else [])}
        return needed <= {*await self._tables(session)} and {*COLUMNS} <= {*await self._columns(session)}

    # -- its life ----------------------------------------------------------------------------------------------------

    def _sql(self, statement: str) -> str:
        return self._dialect.sql(self._names, statement)

    def configure(self, timeout_s: float, kept: Kept) -> None:
        """Take `store.timeout_s`, and what is to be kept; at any time."""
        self._servers.configure(timeout_s)
        self._history.configure(kept)

    async def open(self) -> None:
        """Check the tables, create them in a fresh database. Raises StoreUnsuitable for tables that cannot be used."""
        await self._servers.attempt(self._open)

    async def _open(self, session: Session) -> None:
        await self._check_tables(session)
        self._history.exists = self._names.tables[-1] in await self._tables(session)
        if grants := await self._grants(session):
            self.remarks.demand(LACKING, grants)
        await self._history.check(session, grants)

    async def settle_default(self, *, change: bool) -> None:
        """Have rows that name no limit be the first limit's."""
        work = partial(settle, dialect=self._dialect, names=self._names, remarks=self.remarks, change=change)
        await self._servers.attempt(work)

    async def forget(self, but: Collection[str], now: int) -> None:
        """Forget runs of long ago."""
        await self._servers.attempt(partial(runs.forget, sql=self._sql, d=self._dialect, but=but, now=now))

    async def forget_history(self, now: int) -> bool:
        """Forget old rows of the history."""
        return await self._servers.attempt(partial(self._history.forget, now=now))

    async def close(self) -> None:
        """Disconnect."""
        await self._servers.close()

    async def check(self) -> None:
        """Nothing: the recorded segment, which the next flush reads, tells whether the database is another."""
        return

    # -- reading -----------------------------------------------------------------------------------------------------

    async def lookup(self, accounts: Sequence[Account], now: int) -> list[Row]:
        """The stored rows of these accounts."""
        return await self._servers.attempt(lambda session: self._lookup(session, accounts, now))

    async def _lookup(self, session: Session, accounts: Iterable[Account], now: int, lock: str = "") -> list[Row]:
        return await self._history.with_parts(session, await self._rows.select(session, accounts, lock), now)

    async def recorded(self, node: str) -> int:
        """The last segment of a node that is stored."""
        select = self._sql(statements.RECORDED)
        return recorded_segment(await self._servers.attempt(lambda session: session.run(select, (node,))))

    # -- a flush -----------------------------------------------------------------------------------------------------

    async def flush(self, node: str, segment: int, merge: Callable[[int], Iterable[Delta]]) -> Flushed:
        """Store deltas and the segment in one transaction."""
        committing = trio.Event()
        try:
            return await self._servers.attempt(lambda session: self._flush(session, node, segment, merge, committing))
        except (StoreUnsuitable, StoreReplaced):
            raise
        except StoreError as error:
            if committing.is_set() and not isinstance(error, RecordRefused):
                raise
            raise NotStored(str(error)) from error

    async def _flush(
        self,
        session: Session,
        node: str,
        segment: int,
        merge: Callable[[int], Iterable[Delta]],
        committing: trio.Event,
    ) -> Flushed:
        rejected: list[tuple[Delta, str]] = []
        stored: list[Delta] = []
        dialect = await self._dialect_now(session)
        doubts, charges, slid = (
            Doubts[Delta](),
            Charges(),
            Charges(),
        )  # of limits that slide, and of those that do no more
        for batch in batches(merge(await runs.begin(session, self._sql, self._dialect, node)), CHUNK):
            if dialect.may_be_odd:
                self.remarks.unread |= dict.fromkeys(await odd(session, self._sql, dialect, batch))
            refused = await store(session, self._sql, dialect, batch, doubts)
            await self._history.add(session, batch, refused, charges)
            rejected += refused
            unstored = {delta for delta, _ in refused}
            stored += [delta for delta in batch if not delta.sliding and delta not in unstored]
        await decide(session, self._sql, dialect, doubts)
        await session.run_whole(self._sql(statements.record(dialect)), (node, segment), 1)
        rows = await self._history.settle(session, charges, self._rows.select)
        for chunk in slices(stored, CHUNK):  # all of 10,000 at once would stop the loop for 8 ms
            found = await self._rows.select(session, [Account(delta.limit, delta.key) for delta in chunk])
            slid.join(found, chunk)
            rows += [row for row in found if row.in_parts is None]
        rows += await self._history.settle(session, slid, self._rows.select)
        committing.set()
        await session.commit()
        return Flushed(rows, rejected)

    # -- changes -----------------------------------------------------------------------------------------------------

    async def restore(self, known: Sequence[Known], now: int) -> None:
        """Have each row hold at least what is known."""
        for chunk in slices(known, CHUNK):
            await self._servers.attempt(partial(self._restore, known=chunk, now=now))

    async def _restore(self, session: Session, known: Sequence[Known], now: int) -> None:
        dialect = await self._dialect_now(session)
        await session.begin()
        await self._lock_what_is_not_there(session)
        accounts = [Account(one.limit, one.key) for one, *_ in known]
        # Locked, also what is not there yet: other nodes restore the same accounts at the same time.
        rows = await self._lookup(session, accounts, now, LOCK)
        if dialect.may_be_odd:
            for account in unreadable(accounts, rows):
                reset = self._sql(statements.reset(dialect))
                await change_row(session, self.remarks, account, reset, (account.key, account.limit))
        deltas, grants = lacking(known, rows, now)
        doubts = Doubts[Delta]()
        refused = [
            one for some in batches(deltas, CHUNK) for one in await store(session, self._sql, dialect, some, doubts)
        ]
        await decide(session, self._sql, dialect, doubts)
        for delta, reason in refused:
            self.remarks.refused(delta.limit, delta.key, reason)
        await self._history.restore(session, known, now, self._rows.select)
        for grant in grants:
            statement = self._sql(statements.grant(dialect, grant.latest, now))
            await change_row(session, self.remarks, Account(grant.limit, grant.key), statement, grant.values)
        await session.commit()

    async def grant(self, grant: Grant, now: int) -> list[Row]:
        """Give an account a quota."""
        statement = self._sql(statements.grant(self._dialect, grant.latest, now))
        work = partial(change, statement=statement, records=[grant.values], rows=1)
        return await self._change(work, [Account(*grant[:2])], now)

    async def reset(self, accounts: Sequence[Account], now: int) -> list[Row]:
        """Set what these accounts have used to 0."""
        records = [(one.key, one.limit) for one in accounts]
        work = partial(change, statement=self._sql(statements.reset(self._dialect)), records=records)
        return await self._change(work, accounts, now)

    async def _change(self, work: Callable[[Session], Awaitable[None]], of: Iterable[Account], now: int) -> list[Row]:
        """Do what begins a transaction, and commit it; the accounts' rows then."""

        async def change_all(session: Session) -> list[Row]:
            await work(session)
            rows = await self._lookup(session, of, now)
            await session.commit()
            return rows

        return await self._servers.attempt(change_all)

    async def settle(self, present: Delta, after: int) -> int:
        """Have rows say what they say in the present window."""
        select = partial(self._rows.select, lock=LOCK)
        of = partial(self._history.settle_for_good, present=present, after=after, select=select)
        return await self._servers.attempt(of)

    async def survey(self) -> Survey:
        """What stands in the table."""
        return await self._servers.attempt(partial(surveyed, sql=self._sql, d=self._dialect))

    async def adopt(self, renames: Sequence[Rename], now: int) -> list[Row]:
        """Make rows their accounts'."""
        return await self._servers.attempt(lambda session: self._adopt(session, renames, now))

    async def _adopt(self, session: Session, renames: Sequence[Rename], now: int) -> list[Row]:
        dialect = await self._dialect_now(session)
        await session.begin()
        await self._lock_what_is_not_there(session)
        await self._adopter.adopt(session, dialect, renames, now)
        rows = await self._lookup(session, [Account(one.limit, one.new) for one in renames], now)
        await session.commit()
        return rows

    async def compare(self, mine: Sequence[ZoneWindow], gone: Sequence[ZoneWindow]) -> list[ZoneWindow]:
        """What nodes say of their windows."""
        return await self._servers.attempt(
            lambda session: windows.compare(session, self._dialect, self._names, mine, gone)
        )

    async def changes(self, cursor: Cursor | None, now: int) -> Changes:
        """Rows changed since the cursor, a time of the database's own, and the last row seen of that second."""
        return await self._servers.attempt(lambda session: self._changes(session, cursor, now))

    async def _changes(self, session: Session, cursor: Cursor | None, now: int) -> Changes:
        found = await self._changed.since(session, cursor)
        rows: list[Row] = []
        for chunk in slices(found.rows, CHUNK):
            rows += await self._history.with_parts(session, chunk, now)
        return found._replace(rows=rows)

    async def note_given(self) -> None:
        """Note the quotas that were given in windows that run, some at a time: a flush must not wait for it."""
        last = 0
        while last := await self._servers.attempt(partial(self._changed.note_given, last=last)):
            pass
