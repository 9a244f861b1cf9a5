"""A session with a PostgreSQL server: its settings, transactions, savepoints, and values as the server reads them."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import inf

import trio
from psycopg import errors

from ratelimitd.errors import OutcomeUnknown, StoreError, StoreUnsuitable
from ratelimitd.stores.postgresql.access import Access
from ratelimitd.stores.postgresql.wire import ServerError, Wire, left_out
from ratelimitd.stores.shared.addresses import Address
from ratelimitd.stores.shared.session import ABANDONED_S, LOCK_WAIT_S, PATIENCE_S, STATEMENT_S, Missing, Rows

OLDEST = 120000
"""The oldest version that will do: the next older one has no support any more, and no `jit` that can be turned off."""
NEWER = {"idle_session_timeout": 140000, "transaction_timeout": 170000}
"""Time-outs that end a session, and the version from which on there are such."""
READ_ONLY = "25006"

_ESCAPED = re.compile(r'(["\\])')


class PostgreSQLSession:
    """One connection, from its login to the first error. As the protocol Session."""

    def __init__(self, wire: Wire, address: Address, patience_s: float) -> None:
        self.address = address
        self.used_at = trio.current_time()
        self.reused = False
        self._saved = False  # whether the transaction has a savepoint
        self._wire = wire
        self._patience_s = patience_s

    @property
    def changed(self) -> int:
        """How many rows the last statement has changed."""
        return self._wire.changed

    async def run(self, statement: str, values: Sequence[object] = ()) -> Rows:
        """The rows of a statement; `$1` and so on stand for the values."""
        return await self._send(statement.encode(), [_sent(value) for value in values])

    async def run_whole(self, statement: str, values: Sequence[object], rows: int = 0) -> Rows:
        """The same; what the server refuses is rolled back to a savepoint."""
        given = [_sent(value) for value in values]
        await self.save()
        try:
            found = await self._send(statement.encode(), given)
            if self.changed < rows:
                raise left_out()
            return found
        except StoreError as error:
            if not (isinstance(error, ServerError) and (error.conflict or error.elsewhere)):
                await self.go_back()
            raise

    async def save(self) -> None:
        """Have a savepoint, and one alone."""
        await self._send(b"RELEASE record; SAVEPOINT record" if self._saved else b"SAVEPOINT record", None)
        self._saved = True

    async def go_back(self) -> None:
        """Back to the savepoint."""
        await self._send(b"ROLLBACK TO record", None)

    async def _send(self, statement: bytes, values: Sequence[bytes | None] | None) -> Rows:
        with _as_store_errors(), trio.fail_after(self._patience_s):
            return await self._wire.rows(statement, values)

    async def begin(self) -> None:
        """Begin a transaction, in which a statement sees all that is committed when it begins.

        Constraints are looked at after each statement: at COMMIT nobody could say which record is at fault.
        """
        self._saved = False
        await self._send(b"BEGIN ISOLATION LEVEL READ COMMITTED; SET CONSTRAINTS ALL IMMEDIATE", None)

    async def commit(self) -> None:
        """COMMIT. Raises ServerError where it was refused, and OutcomeUnknown where that is not known."""
        try:
            await self._send(b"COMMIT", None)
        except ServerError as error:
            if error.conflict or error.bad_record:
                raise
            raise OutcomeUnknown(f"whether COMMIT was done is unknown: {error}") from error
        if self._wire.tag != b"COMMIT":  # the server says it in this way alone
            raise ServerError("40000", "the transaction was rolled back")

    async def rollback(self) -> None:
        """Give the transaction up."""
        await self._send(b"ROLLBACK", None)

    async def prepare(self) -> None:
        """Set what must not depend on the server's, the database's or the account's configuration.

        The search path is the account's: it says where the tables are. Raises ServerError for a server that only reads.
        """
        settings = {
            "client_encoding": "UTF8",
            "TimeZone": "UTC",
            "DateStyle": "ISO, YMD",
            "standard_conforming_strings": "on",
            "default_transaction_isolation": "read committed",
            "default_transaction_deferrable": "off",
            "jit": "off",  # it would compile a long statement for longer than that takes
            "lock_timeout": f"{LOCK_WAIT_S}s",
        }
        if self._patience_s < inf:
            settings |= {
                "statement_timeout": f"{STATEMENT_S}s",
                "idle_in_transaction_session_timeout": f"{ABANDONED_S}s",
            }
        settings |= {name: "0" for name, since in NEWER.items() if self._wire.server_version >= since}
        calls = [f"set_config('{name}', '{value}', false)" for name, value in settings.items()]
        # A segment of the journal is deleted once it is stored: the commit must survive a power cut.
        calls.append(
            "set_config('synchronous_commit', replace(current_setting('synchronous_commit'), 'off', 'on'), false)"
        )
        await self.run(f"SELECT {', '.join(calls)}")
        ((read_only, encoding),) = await self.run(
            "SELECT CASE current_setting('default_transaction_read_only') WHEN 'on' THEN 'default' "
            "ELSE current_setting('transaction_read_only') END, current_setting('server_encoding')"
        )
        if read_only == "default":
            raise ServerError(READ_ONLY, "read-only: default_transaction_read_only is on for the account or database")
        if read_only != "off":
            raise ServerError(READ_ONLY, "the server is read-only")
        if encoding != "UTF8":
            raise StoreUnsuitable(f"the database's encoding is {encoding}, not UTF8")
        if self._wire.server_version < OLDEST:
            raise StoreUnsuitable(f"PostgreSQL {self._wire.server_version // 10_000} is too old: 12 or later is needed")

    def discard(self) -> None:
        """Close the connection at once; the server rolls back."""
        self._wire.discard()

    async def quit(self) -> None:
        """End the session: libpq sends its farewell as it closes the socket."""
        self.discard()
        await trio.lowlevel.checkpoint()


@contextmanager
def _as_store_errors() -> Iterator[None]:
    """What somebody has to change, or has dropped, and silence, as the errors that say so."""
    try:
        yield
    except trio.TooSlowError as error:
        raise ServerError("", "no answer in time") from error
    except ServerError as error:
        if error.is_unsuitable:
            raise StoreUnsuitable(str(error)) from error
        if error.is_missing:
            raise Missing(str(error)) from error
        raise
    except (OSError, errors.Error) as error:
        raise ServerError("", str(error)) from error


async def connect(
    access: Access, address: Address, timeout_s: float, *, patience_s: float = PATIENCE_S
) -> PostgreSQLSession:
    """A session with one server, within `timeout_s`; no statement in it takes longer than `patience_s`.

    Raises ServerError, StoreUnsuitable.
    """
    wire = Wire()
    if patience_s == inf:  # to migrate, the whole table is read
        wire.has_bounds = False
    try:
        with _as_store_errors(), trio.fail_after(timeout_s):
            await wire.start(access.parameters(address))
            session = PostgreSQLSession(wire, address, patience_s)
            await session.prepare()
            return session
    except BaseException:
        wire.discard()
        raise


def _sent(value: object) -> bytes | None:
    """A value as the server reads it. Raises UnicodeEncodeError for a text that it cannot hold."""
    if value is None:
        return None
    if isinstance(value, str):
        return _text(value).encode()
    if isinstance(value, list):
        return ("{" + ",".join([_item(item) for item in value]) + "}").encode()
    if isinstance(value, int):
        return b"%d" % value
    raise TypeError(f"no value for a statement: {type(value).__name__}")


def _item(value: object) -> str:
    if isinstance(value, str):
        text = _text(value)
        return '"' + (_ESCAPED.sub(r"\\\1", text) if '"' in text or "\\" in text else text) + '"'
    return "NULL" if value is None else f"{value:d}"


def _text(value: str) -> str:
    if "\0" in value:  # libpq would send what stands before it: another account's key
        raise UnicodeEncodeError("utf-8", value, value.index("\0"), value.index("\0") + 1, "PostgreSQL has no NUL")
    return value
