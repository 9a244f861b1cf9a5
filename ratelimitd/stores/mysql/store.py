"""The store that many nodes share: MySQL and MariaDB, a Galera cluster too.

A flush is one transaction. It first locks this node's row in ratelimit_node: a transaction that an earlier attempt left
behind on the server has ended before the recorded segment is read. Deltas are added, never set, so that the order of
several nodes' flushes does not matter.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import TypeVar

import trio

from ratelimitd.core.rows import Account, Delta, Grant, Known, Row, slices
from ratelimitd.errors import NotStored, StoreError, StoreReplaced, StoreUnsuitable
from ratelimitd.stores import (
    RUNS_KEPT_DAYS,
    Changes,
    Cursor,
    Flushed,
    Names,
    ZoneWindow,
    keys_by_limit,
    lacking,
    recorded_segment,
    unreadable,
)
from ratelimitd.stores.batches import batches
from ratelimitd.stores.history import Charges, Kept
from ratelimitd.stores.mysql import changes, statements, windows
from ratelimitd.stores.mysql.access import Access
from ratelimitd.stores.mysql.history import MySQLHistory
from ratelimitd.stores.mysql.layout import check, whole_numbers
from ratelimitd.stores.mysql.odd import each, odd
from ratelimitd.stores.mysql.session import DatabaseError, Servers, Session
from ratelimitd.stores.mysql.values import text
from ratelimitd.stores.remarks import Remarks
from ratelimitd.stores.survey import EXAMPLES, Rename, Survey, adoption, repairs

CHUNK = 250
"""Rows per statement: at most a few milliseconds of the loop's time."""

T = TypeVar("T")


class MySQLStore:
    """A Store in a MySQL or MariaDB database; `timeout_s` (seconds) is for connecting. Raises StoreError."""

    def __init__(self, access: Access, names: Names | None = None, *, timeout_s: float) -> None:
        self.name = access.name
        self.remarks = Remarks()
        self._names = names or Names()
        self._servers = Servers(access, timeout_s)
        self._history = MySQLHistory(self._names, self.remarks)

    def _sql(self, statement: str) -> str:
        return self._names.apply(statement, "`")

    def configure(self, timeout_s: float, kept: Kept) -> None:
        """Take `store.timeout_s`, and what is to be kept; at any time."""
        self._servers.configure(timeout_s)
        self._history.configure(kept)

    async def open(self) -> None:
        """Check the tables, create them in a fresh database. Raises StoreUnsuitable for tables that cannot be used."""
        await self._servers.attempt(self._open)

    async def _open(self, session: Session) -> None:
        await check(session, self._names, self.remarks, history=self._history.kept.is_needed)
        await self._history.check(session)

    async def forget(self, but: Collection[str], now: int) -> None:
        """Forget runs of long ago."""
        await self._servers.attempt(lambda session: self._forget(session, but, now))

    async def _forget(self, session: Session, but: Collection[str], now: int) -> None:
        since = "LEAST(CURRENT_TIMESTAMP, FROM_UNIXTIME(%s)) - INTERVAL %s DAY"
        ended = self._sql(f"SELECT `node` FROM `ratelimit_node` WHERE `updated` < {since}")
        with suppress(StoreUnsuitable):  # an account without the right to delete leaves a small row per run
            # One by one: a DELETE that scans the table would wait for every node that is flushing.
            for (node,) in await session.run(ended, (now, RUNS_KEPT_DAYS)):
                if node not in but:
                    await session.run(self._sql("DELETE FROM `ratelimit_node` WHERE `node` = %s"), (node,))

    async def forget_history(self, now: int) -> bool:
        """Forget old rows of the history."""
        return await self._servers.attempt(partial(self._history.forget, now=now))

    async def close(self) -> None:
        """Disconnect."""
        await self._servers.close()

    async def lookup(self, accounts: Sequence[Account], now: int) -> list[Row]:
        """The stored rows of these accounts."""
        return await self._servers.attempt(lambda session: self._lookup(session, accounts, now))

    async def _lookup(self, session: Session, accounts: Iterable[Account], now: int, lock: str = "") -> list[Row]:
        return await self._history.with_parts(session, await self._select(session, accounts, lock), now)

    async def _select(
        self, session: Session, accounts: Iterable[Account], lock: str = "", left_out: set[Account] | None = None
    ) -> list[Row]:
        rows: list[Row] = []
        for limit, keys in keys_by_limit(accounts).items():
            for chunk in slices(keys, CHUNK):
                select = self._sql(statements.select(len(chunk)) + lock)
                found = await session.run(select, (limit, *chunk))
                rows += self.remarks.rows(((*map(text, values[:2]), *values[2:]) for values in found), left_out)
        return rows

    async def recorded(self, node: str) -> int:
        """The last segment of a node that is stored."""
        select = self._sql("SELECT `segment` FROM `ratelimit_node` WHERE `node` = %s")
        return recorded_segment(await self._servers.attempt(lambda session: session.run(select, (node,))))

    async def flush(self, node: str, segment: int, merge: Callable[[int], Iterable[Delta]]) -> Flushed:
        """Store deltas and the segment in one transaction."""
        committing = trio.Event()
        try:
            return await self._servers.attempt(lambda session: self._flush(session, node, segment, merge, committing))
        except (StoreUnsuitable, StoreReplaced):
            raise
        except StoreError as error:
            if committing.is_set():
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
        stored: list[Account] = []
        types = await whole_numbers(session, self._names)
        texts, may_be_odd = statements.NUMBERS - types.keys(), statements.may_be_odd(types)
        charges = Charges()
        for batch in batches(merge(await self._begin(session, node)), CHUNK):
            if may_be_odd:
                self.remarks.unread |= dict.fromkeys(await odd(session, self._sql, batch))
            refused = await self._store(session, batch, texts)
            await self._history.add(session, batch, refused, charges)
            rejected += refused
            unstored = {delta for delta, _ in refused}
            stored += [Account(d.limit, d.key) for d in batch if not d.sliding and d not in unstored]
        await session.run(self._sql(statements.RECORD), (segment, node))
        rows = await self._history.settle(session, charges, self._select)
        for chunk in slices(stored, CHUNK):  # all of 10,000 at once would stop the loop for 8 ms
            rows += await self._select(session, chunk)
        committing.set()
        await session.commit()
        return Flushed(rows, rejected)

    async def _begin(self, session: Session, node: str) -> int:
        """Begin the transaction with a lock on the node's row; the segment recorded in it."""
        select = self._sql("SELECT `segment` FROM `ratelimit_node` WHERE `node` = %s FOR UPDATE")
        insert = self._sql("INSERT IGNORE INTO `ratelimit_node` (`node`, `segment`) VALUES (%s, 0)")
        await session.run("START TRANSACTION")
        found = await session.run(select, (node,))
        if not found:  # a row that does not exist cannot be locked
            await session.run("ROLLBACK")
            await session.run(insert, (node,))
            await session.run("START TRANSACTION")
            found = await session.run(select, (node,))
        return recorded_segment(found)

    async def _store(
        self, session: Session, chunk: Sequence[Delta], texts: frozenset[str] = statements.NUMBERS
    ) -> list[tuple[Delta, str]]:
        """Store a chunk; a statement that fails changes nothing, so a bad record is found by halving the chunk."""
        if not chunk:
            await trio.lowlevel.checkpoint()
            return []
        values = ", ".join([statements.VALUES] * len(chunk))
        upsert = self._sql(statements.upsert(chunk[0], values, texts))
        try:
            await session.run(upsert, list(chain.from_iterable(delta.values for delta in chunk)))
            return []
        except (DatabaseError, UnicodeEncodeError) as error:
            if isinstance(error, DatabaseError) and not error.bad_record:
                raise
            if len(chunk) == 1:
                return [(chunk[0], str(error))]
        half = len(chunk) // 2
        first = await self._store(session, chunk[:half], texts)
        return first + await self._store(session, chunk[half:], texts)

    async def check(self) -> None:
        """Nothing: the recorded segment, which the next flush reads, tells whether the database is another."""

    async def restore(self, known: Sequence[Known], now: int) -> None:
        """Have each row hold at least what is known."""
        for chunk in slices(known, CHUNK):
            await self._servers.attempt(partial(self._restore, known=chunk, now=now))

    async def _restore(self, session: Session, known: Sequence[Known], now: int) -> None:
        await session.run("START TRANSACTION")
        accounts = [Account(one.limit, one.key) for one, *_ in known]
        # Locked, also what is not there yet: other nodes restore the same accounts at the same time.
        rows = await self._lookup(session, accounts, now, " FOR UPDATE")
        if statements.may_be_odd(await whole_numbers(session, self._names)):
            for account in unreadable(accounts, rows):
                async with each(session, self.remarks, account.limit, account.key):
                    await session.run(self._sql(statements.RESET), (account.key, account.limit))
        deltas, grants = lacking(known, rows, now)
        for batch in batches(deltas, CHUNK):
            for delta, reason in await self._store(session, batch):
                self.remarks.refused(delta.limit, delta.key, reason)
        await self._history.restore(session, known, now, self._select)
        for grant in grants:
            async with each(session, self.remarks, grant.limit, grant.key):
                await session.run(self._sql(statements.grant(grant.latest, now)), grant.values)
        await session.commit()

    async def grant(self, grant: Grant, now: int) -> list[Row]:
        """Give an account a quota."""
        change, accounts = (self._sql(statements.grant(grant.latest, now)), [grant.values]), [Account(*grant[:2])]
        return await self._servers.attempt(lambda session: self._change(session, change, accounts, now))

    async def reset(self, accounts: Sequence[Account], now: int) -> list[Row]:
        """Set what these accounts have used to 0."""
        change = self._sql(statements.RESET), [(account.key, account.limit) for account in accounts]
        return await self._servers.attempt(lambda session: self._change(session, change, accounts, now))

    async def _change(
        self, session: Session, change: tuple[str, Iterable[Sequence[object]]], accounts: Iterable[Account], now: int
    ) -> list[Row]:
        """Run a statement with each of some values; the accounts' rows then."""
        statement, values = change
        await session.run("START TRANSACTION")
        for some in values:
            await session.run(statement, some)
        rows = await self._lookup(session, accounts, now)
        await session.commit()
        return rows

    async def survey(self) -> Survey:
        """What stands in the table."""
        return await self._servers.attempt(self._survey)

    async def _survey(self, session: Session) -> Survey:
        limits = await session.run(self._sql(statements.LIMITS))
        odd = list(await session.run(self._sql(statements.NOT_NORMAL), (EXAMPLES,)))
        odd += await session.run(self._sql(statements.NEVER_USED), (EXAMPLES,))
        odd += await session.run(self._sql(statements.OF_DOMAINS), (EXAMPLES,))
        return Survey.of((map(text, row) for row in limits), (map(text, row) for row in odd))

    async def adopt(self, renames: Sequence[Rename], now: int) -> list[Row]:
        """Make rows their accounts'."""
        return await self._servers.attempt(lambda session: self._adopt(session, renames, now))

    async def _adopt(self, session: Session, renames: Sequence[Rename], now: int) -> list[Row]:
        news = [Account(one.limit, one.new) for one in renames]
        await session.run("START TRANSACTION")
        olds = [Account(one.limit, one.old) for one in renames]
        left_out: set[Account] = set()
        there = await self._select(session, [*news, *olds], " FOR UPDATE", left_out)
        if repaired := repairs(renames, left_out, self._history.kept.sliding):
            for batch in batches(repaired, CHUNK):
                await self._store(session, batch)
            there = await self._select(session, [*news, *olds], " FOR UPDATE")
        stored = {Account(row.limit, row.key): row for row in there}
        for rename in renames:
            if found := adoption(rename, stored, now):
                async with each(session, self.remarks, rename.limit, rename.old):
                    await self._history.move(session, rename, now)
                    for name, values in found.steps:
                        await session.run(self._sql(getattr(statements, name)), values)
                    stored[Account(rename.limit, rename.new)] = found.row
        rows = await self._lookup(session, news, now)
        await session.commit()
        return rows

    async def compare(self, mine: Sequence[ZoneWindow], gone: Sequence[ZoneWindow]) -> list[ZoneWindow]:
        """What nodes say of their windows."""
        return await self._servers.attempt(lambda session: windows.compare(session, self._names, mine, gone))

    async def changes(self, cursor: Cursor | None, now: int) -> Changes:
        """Rows changed since the cursor, a time of the database's own, and the last row seen of that second."""
        return await self._servers.attempt(lambda session: self._changes(session, cursor, now))

    async def _changes(self, session: Session, cursor: Cursor | None, now: int) -> Changes:
        found = await changes.since(session, self._names, self.remarks, cursor)
        rows: list[Row] = []
        for chunk in slices(found.rows, CHUNK):
            rows += await self._history.with_parts(session, chunk, now)
        return found._replace(rows=rows)

    async def note_given(self) -> None:
        """Note the quotas that were given in windows that run, some at a time: a flush must not wait for it."""
        last, note = 0, partial(changes.note_given, names=self._names, remarks=self.remarks)
        while last := await self._servers.attempt(partial(note, last=last)):
            pass
