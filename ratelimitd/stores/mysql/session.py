"""A session with a MySQL or MariaDB server: statements in, rows out, errors by number."""

import re
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import inf

import trio
from trio_mysql import err
from trio_mysql.constants import CR, ER

from ratelimitd.errors import OutcomeUnknown, StoreError, StoreUnsuitable
from ratelimitd.stores.mysql.access import Access
from ratelimitd.stores.mysql.wire import Wire
from ratelimitd.stores.shared.addresses import Address
from ratelimitd.stores.shared.session import (
    ABANDONED_S,
    LOCK_WAIT_S,
    PATIENCE_S,
    QUIT_S,
    STATEMENT_S,
    DatabaseError,
    Missing,
    Rows,
)

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
GONE = (ER.NO_DB_ERROR, ER.NO_SUCH_TABLE, ER.BAD_FIELD_ERROR)
"""Somebody has dropped the database, a table or a column since the session, or the store, was opened."""

BAD_RECORD = (
    *(ER.DATA_TOO_LONG, ER.WARN_DATA_OUT_OF_RANGE, ER.WARN_DATA_TRUNCATED, ER.TRUNCATED_WRONG_VALUE_FOR_FIELD),
    *(ER.TRUNCATED_WRONG_VALUE, ER.BAD_NULL_ERROR, ER.NO_DEFAULT_FOR_FIELD, ER.NO_REFERENCED_ROW_2, ER.DUP_ENTRY),
    *(1300, 1644, 1690, 3819, 3854, 4025, 4208),
)
"""One record is at fault: its text, its range, a CHECK (3819, 4025), a trigger (1644, 4208)."""
LEFT_OUT = 4208
"""Among the warnings of a statement that succeeds: a trigger's SIGNAL of "no data" has left a row out."""
LEAVES_OUT = (11, 8)
"""The first MariaDB of which a trigger can do that (MDEV-34724); before, the statement fails."""


class ServerError(DatabaseError):
    """What the server said, by its number; those from 2000 to 2999 are the driver's own."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text if 2000 <= code < 3000 else f"{text} ({code})")
        self.code = code
        self.conflict = code in CONFLICT
        self.elsewhere = code in ELSEWHERE or 2000 <= code < 3000
        self.bad_record = code in BAD_RECORD


class MySQLSession:
    """One connection, from its login to the first error. As the protocol Session."""

    def __init__(self, wire: Wire, address: Address, patience_s: float) -> None:
        self.address = address
        self.mariadb = "mariadb" in wire.server_version.lower()
        version = re.search(r"(\d+)\.(\d+)\.\d+-mariadb", wire.server_version.lower())
        self._leaves_out = version is not None and tuple(map(int, version.groups())) >= LEAVES_OUT
        self.used_at = trio.current_time()
        self.reused = False
        self._wire = wire
        self._patience_s = patience_s

    async def run(self, statement: str, arguments: Sequence[object] = ()) -> Rows:
        """The rows of a statement; `%s` stands for an argument.

        Raises ServerError, and UnicodeEncodeError for what is no text, before anything is sent.
        """
        if arguments:
            statement %= tuple(map(self._wire.literal, arguments))
        data = statement.encode()
        with _as_store_errors(), trio.fail_after(self._patience_s):
            return await self._wire.rows(data)

    async def run_whole(self, statement: str, arguments: Sequence[object], rows: int = 0) -> Rows:
        """The same: one that fails has changed nothing, and one of which a trigger leaves a row out is undone."""
        if not self._leaves_out:
            return await self.run(statement, arguments)
        await self.save()
        found = await self.run(statement, arguments)
        if self._wire.warnings and any(code == LEFT_OUT for _, code, _ in await self.run("SHOW WARNINGS")):
            await self.go_back()
            raise ServerError(LEFT_OUT, "a trigger leaves the row out")
        return found

    async def save(self) -> None:
        """Have a savepoint."""
        await self.run("SAVEPOINT record")

    async def go_back(self) -> None:
        """Back to the savepoint."""
        await self.run("ROLLBACK TO SAVEPOINT record")

    @property
    def changed(self) -> int:
        """How many rows the last statement has changed."""
        return self._wire.changed

    async def begin(self) -> None:
        """Begin a transaction."""
        await self.run("START TRANSACTION")

    async def rollback(self) -> None:
        """Give the transaction up."""
        await self.run("ROLLBACK")

    async def commit(self) -> None:
        """COMMIT. Raises ServerError where it was refused, and OutcomeUnknown where that is not known."""
        try:
            await self.run("COMMIT")
        except ServerError as error:
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
    """Every error of driver and network as ServerError or StoreUnsuitable."""
    try:
        yield
    except StoreError:
        raise
    except trio.TooSlowError as error:
        raise ServerError(CR.CR_SERVER_LOST, "no answer in time") from error
    except err.MySQLError as error:
        code, text = error.args if len(error.args) == 2 else (CR.CR_SERVER_LOST, str(error))
        text = str(getattr(error, "original_exception", text))
        if code in UNSUITABLE:
            raise StoreUnsuitable(f"{text} ({code})") from error
        if code in GONE:
            raise Missing(f"{text} ({code})") from error
        raise ServerError(code, text) from error
    except Exception as error:  # the driver trusts the server's bytes: any exception may come of them
        cause = error.__cause__ or error
        if isinstance(cause, ExceptionGroup):  # one exception for each address of a name
            cause = cause.exceptions[-1]
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise StoreUnsuitable(f"the server's certificate: {cause.verify_message}") from error
        text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
        raise ServerError(CR.CR_SERVER_LOST, text) from error


async def connect(
    access: Access, address: Address, timeout_s: float, *, patience_s: float = PATIENCE_S
) -> MySQLSession:
    """A session with one server, within `timeout_s`; no statement in it takes longer than `patience_s`.

    Raises ServerError, StoreUnsuitable.
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
            session = MySQLSession(wire, address, patience_s)
            await session.prepare()
            return session
    except BaseException:
        wire.discard()
        if stream is not None:
            stream.socket.close()
        raise
