"""The table ratelimit_history of a server's database: written and read within a transaction of the store's.

What it must hold, history.py says. The row of the account in `ratelimit`, locked before, keeps other nodes from the
same parts. Parts are read after all of a transaction's accounts are locked: a transaction may see what was there at its
first such look.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Sequence

import trio

from ratelimitd.core.rows import Account, Delta, Known, Row, slices
from ratelimitd.errors import StoreError, StoreReplaced, StoreUnsuitable
from ratelimitd.stores import Names
from ratelimitd.stores import history_statements as statements
from ratelimitd.stores.dialect import Dialect
from ratelimitd.stores.doubts import Doubts
from ratelimitd.stores.history import (
    CHUNK,
    FAR_S,
    STEP,
    Charges,
    Chunk,
    How,
    Kept,
    Settled,
    Stood,
    Values,
    as_it_counts,
    known_charges,
    of_another_kind,
    parts_of,
    say_odd,
    say_refused,
    settling,
    values_of,
)
from ratelimitd.stores.remarks import Remarks
from ratelimitd.stores.shared.blame import is_record_s, takes_one
from ratelimitd.stores.shared.session import DatabaseError, Missing, Session
from ratelimitd.stores.shared.values import text
from ratelimitd.stores.statements import SOME
from ratelimitd.stores.survey import Rename

_PLAIN = re.compile(rb"([0-9]{1,10} [0-9]{1,9};)*")


class SharedHistory:
    """What is kept of windows and parts. `kept` says how much; nothing is read or written where that is nothing."""

    def __init__(self, dialect: Dialect, names: Names, remarks: Remarks) -> None:
        self._dialect = dialect
        self._names = names
        self._remarks = remarks
        self.exists = True  # whether there is such a table
        self.configure(Kept())

    def configure(self, kept: Kept) -> None:
        """Keep this from now on."""
        self.kept = kept
        self._may_have_old = True

    def _sql(self, statement: str) -> str:
        return self._dialect.sql(self._names, statement)

    async def check(self, session: Session, grants: str) -> None:
        """Raise StoreUnsuitable where it is needed, and the account may not use it: it lacks these `grants`."""
        if self.kept.is_needed:
            try:
                await session.run(self._sql(statements.probe(self._dialect)))
            except (StoreUnsuitable, Missing, DatabaseError) as error:
                if isinstance(error, DatabaseError) and (error.conflict or error.elsewhere):
                    raise
                how = f": an administrator must run: {grants}" if grants else ""
                raise StoreUnsuitable(f"{self._names.table}_history cannot be used: {error}{how}") from error

    async def with_parts(self, session: Session, rows: Sequence[Row], now: int) -> list[Row]:
        """These rows, those that count in parts with their parts that leave after `now`."""
        if not self.exists:
            return [row._replace(in_parts=None) for row in rows]
        keys: dict[str, list[str]] = {}
        for row in rows:
            if row.counts_in_parts:
                keys.setdefault(row.limit, []).append(row.key)
        if not keys:
            return list(rows)
        parts: dict[Account, Stood] = {}
        for limit, all_keys in keys.items():
            for some in slices(all_keys, CHUNK):
                parts |= await self._parts(session, limit, some, now)
        return [as_it_counts(row._replace(parts=parts.get(Account(row.limit, row.key), ())), now) for row in rows]

    async def _parts(self, session: Session, limit: str, keys: Sequence[str], now: int) -> dict[Account, Stood]:
        select = self._sql(self._dialect.parts(len(keys)))
        found = await session.run(select, (limit, now, now + FAR_S, *self._dialect.spread(keys)))
        parts: dict[Account, Stood] = {}
        for sender, listed in found:
            key = sender.decode("utf-8", "replace") if isinstance(sender, bytes) else str(sender)
            plain = listed if isinstance(listed, bytes) else str(listed).encode()
            parts[Account(limit, key)] = self._read(limit, key, plain)
        return parts

    def _read(self, limit: str, key: str, listed: bytes) -> Stood:
        """The parts in the text of an account; what stands after the last semicolon, the server has cut off."""
        whole = listed[: listed.rfind(b";") + 1]
        if _PLAIN.fullmatch(whole):
            numbers = list(map(int, whole.replace(b";", b" ").split()))
            return tuple(zip(numbers[::2], numbers[1::2], strict=True))
        pairs = [item.partition(b" ") for item in whole.split(b";")[:-1]]
        return parts_of(limit, key, [(pair[0], pair[2]) for pair in pairs], self._remarks)

    async def add(
        self, session: Session, batch: Sequence[Delta], refused: Iterable[tuple[Delta, str]], charges: Charges
    ) -> None:
        """Add a batch to the history, without what the table `ratelimit` refused; what is of sliding limits goes to
        `charges`, for `settle`."""
        if batch and self.kept.includes(batch[0]):
            await self._write(session, statements.add(self._dialect), charges.take(batch, refused), charges.doubts)

    async def restore(
        self,
        session: Session,
        known: Iterable[Known],
        now: int,
        select: Callable[[Session, Iterable[Account]], Awaitable[list[Row]]],
    ) -> None:
        """Have the history hold at least what is known; `select` finds rows."""
        known = list(known)
        rows = await select(session, [Account(one.limit, one.key) for one, *_ in known])
        charges, fixed = known_charges(known, self.kept, rows, now)
        await self._write(session, statements.at_least(self._dialect), values_of(fixed))
        for chunk in charges.chunks():
            await self._settle(session, chunk, await select(session, chunk.accounts), How.AT_LEAST)

    async def settle(
        self,
        session: Session,
        charges: Charges,
        select: Callable[[Session, Iterable[Account]], Awaitable[list[Row]]],
    ) -> list[Row]:
        """Write what is charged to the parts of sliding limits, and to the rows what they are then; the rows."""
        rows: list[Row] = []
        for chunk in charges.chunks():
            found = await select(session, chunk.accounts)
            rows += await self._settle(session, chunk, found, How.ADD, charges.doubts)
        await self._decide(session, charges.doubts)
        return rows

    async def settle_for_good(
        self,
        session: Session,
        present: Delta,
        after: int,
        select: Callable[[Session, Iterable[Account]], Awaitable[list[Row]]],
    ) -> int:
        """As `Store.settle`; `select` locks the rows."""
        await session.begin()
        found = await session.run(self._sql(statements.others(self._dialect)), of_another_kind(present, after))
        rows = await select(session, [Account(present.limit, str(text(key))) for _, key in found])
        for chunk in settling(present, rows).chunks():
            await self._settle(session, chunk, [row for row in rows if row.key in chunk.deltas], How.FOR_GOOD)
        await session.commit()
        return int(found[-1][0]) if found else 0

    async def _settle(
        self, session: Session, chunk: Chunk, rows: Sequence[Row], how: How, doubts: Doubts[Values] | None = None
    ) -> list[Row]:
        parts = await self._parts(session, chunk.limit, list(chunk.deltas), chunk.now)
        there = {row.key: row._replace(parts=parts.get(Account(row.limit, row.key), ())) for row in rows}
        used = (statements.at_least if how is How.AT_LEAST else statements.add)(self._dialect)
        await self._write(session, used, values_of(chunk.alone(there)), doubts)
        settled = [chunk.settle(there[key], self.kept, how=how) for key in chunk.deltas if key in there]
        await trio.lowlevel.checkpoint()
        written = [(one.row.limit, one.row.key, *part) for one in settled for part in one.written.items()]
        for some in slices(sorted(written, key=lambda values: (values[1], *values)), 2 * CHUNK):
            await self._write(session, statements.just(self._dialect), some, doubts)
        await self._delete(session, settled)
        added = [(one.row.limit, one.row.key, *part) for one in settled for part in one.added.items()]
        await self._write(session, statements.add(self._dialect), sorted(added, key=lambda values: values[1]), doubts)
        rows_then = [(r.limit, r.key, r.expiry, r.used) for r, *_ in settled]
        await self._write(session, "in parts" if chunk.slides else "", rows_then)
        return [one.row for one in settled]

    async def move(self, session: Session, rename: Rename, now: int) -> None:
        """Make the parts that count the account's whose row this becomes."""
        limit, old, new = rename[:3]
        if limit in self.kept.sliding:
            await session.run(self._sql(statements.move(self._dialect)), (new, old, limit, now))
            await session.run(self._sql(statements.MOVED), (old, limit, now))

    async def _delete(self, session: Session, settled: Iterable[Settled]) -> None:
        """Delete parts; one that the database keeps has nothing in it then."""
        delete = self._sql(statements.DELETE)
        for row, leave in [(one.row, leave) for one in settled for leave in one.gone]:
            values = row.key, row.limit, leave
            try:
                await session.run_whole(delete, values, 1)
            except (StoreError, UnicodeEncodeError) as error:
                if not await is_record_s(session, error, delete, values):
                    raise
                await self._write(session, statements.just(self._dialect), [(row.limit, row.key, leave, 0)])

    async def _write(
        self, session: Session, used: str, values: Sequence[Values], doubts: Doubts[Values] | None = None
    ) -> None:
        """Write rows; where one is there already, its use becomes `used`. One that the database refuses is left out,
        and that is said. With "" or "in parts" they are the rows of `ratelimit`, which are all there. `doubts`: of the
        flush; without, whatever is refused is at fault itself."""
        if not values:
            return
        d, count = self._dialect, len(values)
        if used in ("", "in parts"):
            insert = statements.set_use(d, count, in_parts=bool(used))
        else:
            insert = statements.write(d, used, count)
        try:
            await session.run_whole(self._sql(insert), d.flat(values), count)
            if doubts:
                doubts.took()
                self._say_refused(doubts)
        except (StoreError, UnicodeEncodeError) as error:
            sound = doubts.sound if doubts else None
            if not await is_record_s(session, error, self._sql(insert), d.flat(values), sound):
                raise
            if count > 1:
                half = count // 2
                await self._write(session, used, values[:half], doubts)
                await self._write(session, used, values[half:], doubts)
                return
            if doubts:
                doubts.doubt(values[0][:2], values[0], error)
                if doubts.are_many:
                    await self._decide(session, doubts)
                self._say_refused(doubts)
            else:
                say_refused(self._remarks, values[0], str(error))

    async def _decide(self, session: Session, doubts: Doubts[Values]) -> None:
        """Find out whether records are at fault, or the table: then it raises TableRefuses. Raises StoreError."""
        if doubts.there_are:
            d, (limit, _, expiry, _) = self._dialect, doubts.example
            there = await session.run(self._sql(SOME))
            others = doubts.others(str(text(key)) for (key,) in there)
            insert = self._sql(statements.write(d, statements.add(d)))
            records = [d.flat([(limit, key, expiry, 0)]) for key in others]
            doubts.decide(takes_one=await takes_one(session, insert, records))
        self._say_refused(doubts)

    def _say_refused(self, doubts: Doubts[Values]) -> None:
        for values, error in doubts.blamed():
            say_refused(self._remarks, values, str(error))

    async def _any(self, session: Session) -> bool:
        return self.exists and bool(await session.run(self._sql(statements.ANY)))

    async def forget(self, session: Session, now: int) -> bool:
        """Forget rows that are kept no longer, at most STEP; whether there may be more."""
        if not self._may_have_old:
            return False
        kept = self.kept
        ((here,),) = await session.run(self._sql(f"SELECT {self._dialect.now}"))
        try:
            await session.run(self._sql(statements.forget(self._dialect)), (kept.gone(min(now, int(here))),))
            if session.changed == STEP:
                return True
            for values in await session.run(self._sql(statements.far(self._dialect)), (int(here) + FAR_S,)):
                say_odd(self._remarks, *values)
        except StoreUnsuitable:  # an account without the right to delete leaves them
            pass
        except StoreReplaced:  # there is no such table
            if self.kept.is_needed:
                raise
        if self.kept is kept:  # no reload meanwhile
            self._may_have_old = kept.is_needed or await self._any(session)
        return False
