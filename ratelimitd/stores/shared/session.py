"""Sessions with a database's servers: what a session does, what may go wrong in it, and servers that are tried in turn.

How a server is spoken to, mysql/ and postgresql/ say.
"""

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar

import trio

from ratelimitd.errors import RecordRefused, StoreError, StoreReplaced, StoreUnsuitable
from ratelimitd.stores import NONSENSE
from ratelimitd.stores.shared.addresses import Address, place

LOCK_WAIT_S = 3
STATEMENT_S = 10
"""The server itself ends a statement after this long: one that we gave up must not keep its locks."""
PATIENCE_S = STATEMENT_S + 1.0
"""How long we wait for a statement: a little longer than the server does."""
ATTEMPTS = 5
"""How often a piece of work is tried that conflicts with other transactions or loses its server."""
IDLE_S = 5.0
"""A session that was idle for longer may be dead: it is not used again."""
ABANDONED_S = 60
"""The server ends a session that is silent for this long: the client's machine is gone, and its locks must go too."""
QUIT_S = 0.2
"""How long a session's end may take before it is cut off."""

Rows = Sequence[tuple[Any, ...]]

T = TypeVar("T")


class DatabaseError(StoreError):
    """What a server, or the network, said.

    `conflict`: lost against another transaction, the same may succeed at once. `elsewhere`: this server cannot,
    another might. `bad_record`: a value is at fault. None of them: a table may be at fault, or what a trigger does.
    """

    conflict = False
    elsewhere = False
    bad_record = False


class Missing(StoreReplaced):
    """A statement needs a table or a column that is not there: one of ours, or one that a trigger names."""


class Session(Protocol):
    """One connection, from its login to the first error. One statement at a time."""

    address: Address
    used_at: float
    reused: bool

    @property
    def changed(self) -> int:
        """How many rows the last statement has changed."""
        ...

    async def run(self, statement: str, values: Sequence[object] = ()) -> Rows:
        """The rows of a statement. Raises DatabaseError, and UnicodeEncodeError for what is no text of the database."""
        ...

    async def run_whole(self, statement: str, values: Sequence[object], rows: int = 0) -> Rows:
        """The same within a transaction; a statement that the server refuses leaves the transaction as it was.

        Not so where the whole transaction is lost, by a conflict or with the server. A statement that writes less than
        so many `rows` is refused, too, where a database lets a trigger leave some out.
        """
        ...

    async def save(self) -> None:
        """Begin what is one within a transaction: `go_back` undoes it. It replaces one that was begun before."""
        ...

    async def go_back(self) -> None:
        """Leave the transaction as it was at the last `save`, also after a bad record."""
        ...

    async def begin(self) -> None:
        """Begin a transaction."""
        ...

    async def commit(self) -> None:
        """COMMIT. Raises DatabaseError where it was refused, and OutcomeUnknown where that is not known."""
        ...

    async def rollback(self) -> None:
        """Give the transaction up."""
        ...

    def discard(self) -> None:
        """Close the connection at once; the server rolls back."""
        ...

    async def quit(self) -> None:
        """End the session in order, within QUIT_S. Raises only Cancelled."""
        ...


S = TypeVar("S", bound=Session)
Connect = Callable[[Address, float], Awaitable[S]]
"""A session with a server, within so many seconds. Raises DatabaseError, StoreUnsuitable."""


class Servers:
    """The servers of one database: tried in turn, and the one that works is kept. `timeout_s` is for them together."""

    def __init__(
        self, addresses: Sequence[Address], connect: Connect[Session], usual_port: int, timeout_s: float
    ) -> None:
        self._addresses = addresses
        self._open = connect
        self._usual_port = usual_port
        self._at = 0
        self._idle: Session | None = None
        self.is_whole: Callable[[Session], Awaitable[bool]] | None = None
        """Whether our tables are there, with their columns: it is asked where a statement misses something."""
        self.configure(timeout_s)

    def configure(self, timeout_s: float) -> None:
        """Take the time that connecting may take, in seconds; at any time."""
        self._timeout_s = max(timeout_s / len(self._addresses), 0.2)

    async def attempt(self, work: Callable[[Session], Awaitable[T]]) -> T:
        """Do a piece of work, a whole transaction or less, in a session; try again where that may help."""
        lost = 0
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with self.session() as session:
                    return await work(session)
            except DatabaseError as error:
                if error.bad_record:
                    raise RecordRefused(str(error)) from error
                lost += error.elsewhere
                if attempt == ATTEMPTS or lost > len(self._addresses):
                    raise
                if not (error.conflict or error.elsewhere):
                    raise
            except Missing as error:
                if self.is_whole is not None:
                    async with self.session() as session:
                        if await self.is_whole(session):  # a trigger's own table is missing
                            raise StoreError(str(error)) from error
                raise
            except NONSENSE as error:
                raise _nonsense(error) from error
            await trio.sleep(random.uniform(0, 0.02 * 2**attempt))  # noqa: S311
        raise AssertionError

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """A session for one piece of work; an error closes it, and the server rolls back."""
        session = self._take_idle() or await self._connect()
        try:
            yield session
        except BaseException as error:
            session.discard()
            if not session.reused and (not isinstance(error, DatabaseError) or error.elsewhere):
                self._next(session.address)
            raise
        session.used_at = trio.current_time()
        if self._idle is None and session.address == self._addresses[self._at]:
            self._idle = session
        else:
            await session.quit()

    def _take_idle(self) -> Session | None:
        session, self._idle = self._idle, None
        if session is None:
            return None
        if trio.current_time() - session.used_at > IDLE_S:
            session.discard()
            return None
        session.reused = True
        return session

    async def _connect(self) -> Session:
        failed: list[StoreError] = []
        reasons: list[str] = []
        for _ in self._addresses:
            address = self._addresses[self._at]
            try:
                try:
                    return await self._open(address, self._timeout_s)
                except NONSENSE as error:
                    raise _nonsense(error) from error
            except StoreError as error:
                failed.append(error)
                where = place(address, self._usual_port)
                reasons.append(f"{where}: {error}" if where else str(error))  # a service of libpq's names no place
                self._next(address)
        unsuitable = all(isinstance(error, StoreUnsuitable) for error in failed)
        raise (StoreUnsuitable if unsuitable else StoreError)("; ".join(reasons))

    def _next(self, address: Address) -> None:
        """Turn to the next server, unless another task has done so already."""
        if address == self._addresses[self._at]:
            self._at = (self._at + 1) % len(self._addresses)

    async def close(self) -> None:
        """End the session that is kept for the next work."""
        session, self._idle = self._idle, None
        if session is not None:
            await session.quit()


def _nonsense(error: Exception) -> StoreError:
    return StoreError(f"the server's answer makes no sense: {str(error) or type(error).__name__}")
