"""A session with a MySQL or MariaDB server: statements in, rows out, errors by number; servers are tried in turn."""

import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from math import inf
from typing import TypeVar

import trio
from trio_mysql import err
from trio_mysql.constants import CR, ER

from ratelimitd.errors import OutcomeUnknown, RecordRefused, StoreError, StoreReplaced, StoreUnsuitable
from ratelimitd.stores import NONSENSE
from ratelimitd.stores.mysql.access import Access, Address, place
from ratelimitd.stores.mysql.wire import Rows, Wire

LOCK_WAIT_S = 3
STATEMENT_S = 10
"""The server itself ends a statement after this long: one that we gave up must not keep its locks."""
ATTEMPTS = 5
"""How often a piece of work is tried that conflicts with other transactions or loses its server."""
IDLE_S = 5.0
"""A session that was idle for longer may be dead: it is not used again."""
ABANDONED_S = 60
"""The server ends a session that is silent for this long: the client's machine is gone, and its locks must go too."""
QUIT_S = 0.2
"""How long a session's end may take before it is cut off."""
PATIENCE_S = STATEMENT_S + 1.0
"""How long we wait for a statement: a little longer than the server does."""

CONFLICT = (ER.LOCK_DEADLOCK, ER.LOCK_WAIT_TIMEOUT, ER.CHECKREAD)
"""Lost against another transaction, Galera's certification included; the same may succeed at once."""
ELSEWHERE = (
    *(CR.CR_CONNECTION_ERROR, CR.CR_CONN_HOST_ERROR, CR.CR_SERVER_GONE_ERROR, CR.CR_SERVER_LOST),
    *(ER.SERVER_SHUTDOWN, ER.NEW_ABORTING_CONNECTION, ER.CON_COUNT_ERROR, ER.UNKNOWN_COM_ERROR),
    *(ER.OPTION_PREVENTS_STATEMENT, ER.QUERY_INTERRUPTED, 1836, 1927, 4031),
)
"""This server cannot, another might: gone, stopping, Galera's "not ready" (1047), read-only (1290, 1836), killed."""
UNSUITABLE = (
    *(ER.ACCESS_DENIED_ERROR, ER.DBACCESS_DENIED_ERROR, ER.TABLEACCESS_DENIED_ERROR, ER.BAD_DB_ERROR),
    *(ER.COLUMNACCESS_DENIED_ERROR, ER.NOT_SUPPORTED_AUTH_MODE, ER.VIEW_INVALID, 1227, 1698, 3159),
)
"""Somebody has to change an account, a grant or a table."""
BAD_RECORD = (
    *(ER.DATA_TOO_LONG, ER.WARN_DATA_OUT_OF_RANGE, ER.WARN_DATA_TRUNCATED, ER.TRUNCATED_WRONG_VALUE_FOR_FIELD),
    *(ER.TRUNCATED_WRONG_VALUE, ER.BAD_NULL_ERROR, ER.NO_DEFAULT_FOR_FIELD, ER.NO_REFERENCED_ROW_2, ER.DUP_ENTRY),
    *(1300, 1644, 1690, 3819, 3854, 4025),
)
"""One record is at fault: its text, its range, a CHECK (3819, 4025), a trigger (1644)."""
GONE = (ER.NO_DB_ERROR, ER.NO_SUCH_TABLE, ER.BAD_FIELD_ERROR)
"""Somebody has dropped the database, a table or a column since the session, or the store, was opened."""

T = TypeVar("T")


class DatabaseError(StoreError):
    """What the server said, by its number; those from 2000 to 2999 are the driver's own."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text if 2000 <= code < 3000 else f"{text} ({code})")
        self.code = code
        self.bad_record = code in BAD_RECORD


class Session:
    """One connection, from its login to the first error. `run` one statement at a time."""

    def __init__(self, wire: Wire, address: Address, patience_s: float) -> None:
        self.address = address
        self.mariadb = "mariadb" in wire.server_version.lower()
        self.used_at = trio.current_time()
        self.reused = False
        self._wire = wire
        self._patience_s = patience_s

    async def run(self, statement: str, arguments: Sequence[object] = ()) -> Rows:
        """The rows of a statement; `%s` stands for an argument.

        Raises DatabaseError, and UnicodeEncodeError for what is no text, before anything is sent.
        """
        if arguments:
            statement %= tuple(map(self._wire.literal, arguments))
        data = statement.encode()
        with _as_store_errors(), trio.fail_after(self._patience_s):
            return await self._wire.rows(data)

    async def commit(self) -> None:
        """COMMIT. Raises DatabaseError where it was refused, and OutcomeUnknown where that is not known."""
        try:
            await self.run("COMMIT")
        except DatabaseError as error:
            if error.code == ER.LOCK_DEADLOCK:
                raise
            raise OutcomeUnknown(f"whether COMMIT was done is unknown: {error}") from error

    async def prepare(self) -> None:
        """Set what must not depend on the server's configuration.

        The character set, too: a server with `skip-character-set-client-handshake` ignores what the login says of it.
        """
        isolation = "tx_isolation" if self.mariadb else "transaction_isolation"
        values: dict[str, str | int] = {
            "sql_mode": "'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'",
            "time_zone": "'+00:00'",
            isolation: "'REPEATABLE-READ'",
            "autocommit": 1,
            "lock_wait_timeout": LOCK_WAIT_S,
            "innodb_lock_wait_timeout": LOCK_WAIT_S,
            "group_concat_max_len": 65_536,  # the parts of an account
        }
        if self._patience_s < inf:
            values["wait_timeout"] = ABANDONED_S
            # MySQL's is in milliseconds, and for SELECT only.
            values |= (
                {"max_statement_time": STATEMENT_S} if self.mariadb else {"max_execution_time": STATEMENT_S * 1000}
            )
        settings = [f"SESSION {name} = {value}" for name, value in values.items()]
        await self.run(", ".join(["SET NAMES utf8mb4 COLLATE utf8mb4_bin", *settings]))

    def discard(self) -> None:
        """Close the connection at once; the server rolls back."""
        self._wire.discard()

    async def quit(self) -> None:
        """End the session in order, within QUIT_S. Raises only Cancelled."""
        try:
            with trio.move_on_after(QUIT_S):
                await self._wire.aclose()
        finally:
            self.discard()


@contextmanager
def _as_store_errors() -> Iterator[None]:
    """Every error of driver and network as DatabaseError or StoreUnsuitable."""
    try:
        yield
    except StoreError:
        raise
    except trio.TooSlowError as error:
        raise DatabaseError(CR.CR_SERVER_LOST, "no answer in time") from error
    except err.MySQLError as error:
        code, text = error.args if len(error.args) == 2 else (CR.CR_SERVER_LOST, str(error))
        text = str(getattr(error, "original_exception", text))
        if code in UNSUITABLE:
            raise StoreUnsuitable(f"{text} ({code})") from error
        if code in GONE:
            raise StoreReplaced(f"{text} ({code})") from error
        raise DatabaseError(code, text) from error
    except Exception as error:  # the driver trusts the server's bytes: any exception may come of them
        cause = error.__cause__ or error
        if isinstance(cause, ExceptionGroup):  # one exception for each address of a name
            cause = cause.exceptions[-1]
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise StoreUnsuitable(f"the server's certificate: {cause.verify_message}") from error
        text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
        raise DatabaseError(CR.CR_SERVER_LOST, text) from error


async def connect(access: Access, address: Address, timeout_s: float, *, patience_s: float = PATIENCE_S) -> Session:
    """A session with one server, within `timeout_s`; no statement in it takes longer than `patience_s`.

    Raises DatabaseError, StoreUnsuitable.
    """
    host, port = address
    wire = Wire(access, host)
    if patience_s == inf:  # to migrate, the whole table is read
        wire.max_answer = inf
    stream: trio.SocketStream | None = None
    try:
        with _as_store_errors(), trio.fail_after(timeout_s):
            stream = await trio.open_tcp_stream(host, port) if port else await trio.open_unix_socket(host)
            await wire.start(stream, secure=not port)
            session = Session(wire, address, patience_s)
            await session.prepare()
            return session
    except BaseException:
        wire.discard()
        if stream is not None:
            stream.socket.close()
        raise


class Servers:
    """The servers of one database: tried in turn, and the one that works is kept. `timeout_s` is for them together."""

    def __init__(self, access: Access, timeout_s: float) -> None:
        self._access = access
        self._at = 0
        self._idle: Session | None = None
        self.configure(timeout_s)

    def configure(self, timeout_s: float) -> None:
        """Take the time that connecting may take, in seconds; at any time."""
        self._timeout_s = max(timeout_s / len(self._access.addresses), 0.2)

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
                lost += error.code in ELSEWHERE
                if attempt == ATTEMPTS or lost > len(self._access.addresses):
                    raise
                if error.code not in (*CONFLICT, *ELSEWHERE):
                    raise
            except NONSENSE as error:
                raise StoreError(f"the server's answer makes no sense: {error or type(error).__name__}") from error
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
            if not session.reused and (not isinstance(error, DatabaseError) or error.code in ELSEWHERE):
                self._next(session.address)
            raise
        session.used_at = trio.current_time()
        if self._idle is None and session.address == self._access.addresses[self._at]:
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
        for _ in self._access.addresses:
            address = self._access.addresses[self._at]
            try:
                return await connect(self._access, address, self._timeout_s)
            except StoreError as error:
                failed.append(error)
                reasons.append(f"{place(address)}: {error}")
                self._next(address)
        unsuitable = all(isinstance(error, StoreUnsuitable) for error in failed)
        raise (StoreUnsuitable if unsuitable else StoreError)("; ".join(reasons))

    def _next(self, address: Address) -> None:
        """Turn to the next server, unless another task has done so already."""
        if address == self._access.addresses[self._at]:
            self._at = (self._at + 1) % len(self._access.addresses)

    async def close(self) -> None:
        """End the session that is kept for the next work."""
        session, self._idle = self._idle, None
        if session is not None:
            await session.quit()
