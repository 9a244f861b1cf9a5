"""One connection of libpq, driven from trio without a thread for each query.

psycopg's `pq` is its documented wrapper of libpq's calls that do not block, and trio waits on the socket: that is all
of a driver that is needed here. Only connecting is done in threads: login.py.
"""

from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

import trio
from psycopg import errors, pq
from psycopg.conninfo import make_conninfo

from ratelimitd.errors import StoreUnsuitable
from ratelimitd.stores.postgresql.bounds import (
    MAX_ANSWER_BYTES,
    MAX_COLUMNS,
    MAX_LOGIN_BYTES,
    MAX_READS,
    MAX_TEXT_BYTES,
    Bounds,
    EndlessError,
)
from ratelimitd.stores.postgresql.libpq import explained, forget_environment, name_states, states
from ratelimitd.stores.postgresql.login import Login, StillComputing, begin
from ratelimitd.stores.postgresql.values import READERS
from ratelimitd.stores.postgresql.values import row as row_of
from ratelimitd.stores.shared.session import DatabaseError, Rows

PAUSE = 50
"""Rows that are taken from libpq without a pause: each value is a call, some 3 us."""

_DONE = (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK)
_CLASS = {
    # Lost against another transaction: serialization, deadlock, a lock that was waited for too long.
    "conflict": ("40001", "40P01", "55P03"),
    # This server cannot, another might: gone, stopping, full, read-only, its administrator ended the statement.
    "elsewhere": ("08", "25006", "25P03", "25P04", "53", "57014", "57P", "58"),
}
_NO_RECORD = (
    "0", "24", "25", "26", "28", "2B", "2D", "34", "3B", "3D", "3F", "40", "42", "5", "72", "F0", "HV", "XX",
)  # fmt: skip
"""All else is said of a value: its length, its range, a constraint, and whatever a trigger chooses to say."""
_TRIGGER = "09"
_RAISES = (b"exec_stmt_raise", b"PLy_output", b"do_util_elog", b"pltcl_elog")
"""Where the server's own source raises what a function in PL/pgSQL, PL/Python, PL/Perl or PL/Tcl chooses to say."""
_UNSUITABLE = ("28", "3D000", "3F000", "42501", "42804", "42883", "42P10", "0A000")
"""Somebody has to change an account, a grant, a table."""
GONE = ("42P01", "42703")
"""Somebody has dropped the table or a column."""
_WANT_SOMEBODY = (
    "authentication failed", "no pg_hba.conf entry", "no password supplied", "does not exist", "permission denied",
    "certificate", "does not support SSL", "is not permitted to log in", "definition of service", "service file",
)  # fmt: skip
"""Parts of what is said while connecting without a code: by libpq, and by servers where libpq is psycopg's own."""


class ServerError(DatabaseError):
    """What the server said, by its SQLSTATE; "" is libpq's own.

    `raised`: a trigger said it, of a row; whatever state it has chosen says nothing of the server or the table.
    """

    def __init__(self, state: str, text: str, *, raised: bool = False) -> None:
        super().__init__(f"{text} ({state})" if state else text)
        self.state = state
        self.conflict = not raised and state.startswith(_CLASS["conflict"])
        self.elsewhere = not raised and (not state or state.startswith(_CLASS["elsewhere"]))
        self.bad_record = raised or (bool(state) and (state.startswith(_TRIGGER) or not state.startswith(_NO_RECORD)))
        self.is_unsuitable = not raised and state.startswith(_UNSUITABLE)
        """Whether somebody has to change something."""
        self.is_missing = not raised and state in GONE
        """Whether a table or a column is."""


def left_out() -> ServerError:
    """The error for a row that a trigger or a rule leaves out without one."""
    return ServerError("09000", "a trigger or a rule leaves the row out", raised=True)


class Wire:
    """One connection, which is used once: `start` logs in, `rows` runs statements, `discard` ends it at any time."""

    def __init__(self) -> None:
        self.has_bounds = True
        self.changed = 0
        self.tag = b""
        """What the last statement was, as the server says it."""
        self._libpq: pq.abc.PGconn | None = None
        self._login: Login | None = None

    async def start(self, parameters: Mapping[str, str]) -> None:
        """Log in. Raises ServerError and StoreUnsuitable."""
        forget_environment()
        server = " ".join(parameters.get(name, "") for name in ("host", "port", "service"))
        try:
            begin(server)
        except StillComputing as error:
            raise ServerError("", str(error)) from error
        conninfo = make_conninfo("", **parameters).encode()
        self._libpq = libpq = await trio.to_thread.run_sync(pq.PGconn.connect_start, conninfo, abandon_on_cancel=True)
        name_states(libpq, named=True)
        self._login = login = Login(server, libpq)
        bounds = Bounds(MAX_LOGIN_BYTES, before=0)
        while True:
            status = await login.step()
            if status == pq.PollingStatus.OK:
                break
            if status == pq.PollingStatus.READING:
                await trio.lowlevel.wait_readable(libpq.socket)
                try:
                    bounds.read(libpq.socket)
                except EndlessError as error:
                    raise ServerError("", str(error)) from error
            elif status == pq.PollingStatus.WRITING:
                await trio.lowlevel.wait_writable(libpq.socket)
            else:
                text = explained(libpq.error_message, keep_place="service" in parameters)
                named = any(state.startswith(_UNSUITABLE) for state in states(libpq.error_message))
                if named or any(words in text for words in _WANT_SOMEBODY):
                    raise StoreUnsuitable(text)
                raise ServerError("", text)
        self._login = None
        name_states(libpq, named=False)
        libpq.notice_handler = None
        libpq.nonblocking = 1

    @property
    def server_version(self) -> int:
        """As 150003 for 15.3."""
        return self._open.server_version

    async def rows(self, statement: bytes, values: Sequence[bytes | None] | None = None) -> Rows:
        """The rows of one statement, or without `values` of the last of several. Raises ServerError."""
        libpq = self._open
        try:
            if values is None:
                libpq.send_query(statement)
            else:
                libpq.send_query_params(statement, values)
            while libpq.flush():  # the server reads all of a statement before it answers
                await trio.lowlevel.wait_writable(libpq.socket)
            return await self._answer(libpq)
        except EndlessError as error:
            raise ServerError("", str(error)) from error
        except errors.OperationalError as error:
            raise ServerError("", _plain(libpq.error_message) or str(error)) from error

    async def _answer(self, libpq: pq.abc.PGconn) -> Rows:
        bounds = Bounds(MAX_ANSWER_BYTES, MAX_READS) if self.has_bounds else Bounds(inf, inf)
        rows: Rows = ()
        failed: ServerError | None = None
        while True:
            while bounds.is_busy(libpq):
                await trio.lowlevel.wait_readable(libpq.socket)
                bounds.read(libpq.socket)
                bounds.consume(libpq)
            result = libpq.get_result()
            if result is None:
                break
            bounds.result()
            if result.status in _DONE:
                rows = await self._taken(result)
                self.changed = result.command_tuples or 0
                self.tag = result.command_status or b""
            elif result.status != pq.ExecStatus.FATAL_ERROR:
                raise ServerError("", "an answer out of place")
            elif failed is None:
                failed = _error(result)
        if failed is not None:
            raise failed
        return rows

    async def _taken(self, result: pq.abc.PGresult) -> Rows:
        if result.nfields > MAX_COLUMNS:
            raise EndlessError("an answer with more columns than anything has that is asked for")
        columns = range(result.nfields)
        readers = [READERS.get(result.ftype(column), bytes.decode) for column in columns]
        get = result.get_value
        if readers == [row_of]:
            readers = []
        rows: list[tuple[Any, ...]] = []
        for row in range(result.ntuples):
            if row % PAUSE == PAUSE - 1:
                await trio.lowlevel.checkpoint()
            if not readers:
                rows.append(tuple(row_of(get(row, 0) or b"[]")))
                continue
            values = [get(row, column) for column in columns]
            rows.append(tuple([None if v is None else read(v) for v, read in zip(values, readers, strict=True)]))
        return rows

    @property
    def _open(self) -> pq.abc.PGconn:
        if self._libpq is None:
            raise ServerError("", "the connection is closed")
        return self._libpq

    def discard(self) -> None:
        """Close the connection, whatever it is doing."""
        libpq, self._libpq = self._libpq, None
        login, self._login = self._login, None
        if login is not None:
            login.discard()
        elif libpq is not None:
            libpq.finish()


def _error(result: pq.abc.PGresult) -> ServerError:
    state = result.error_field(pq.DiagnosticField.SQLSTATE) or b""
    text = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or result.error_message
    raised = result.error_field(pq.DiagnosticField.SOURCE_FUNCTION) in _RAISES
    return ServerError(state.decode("ascii", "replace"), _plain(text), raised=raised)


def _plain(text: bytes) -> str:
    """What libpq says, in one line."""
    return " ".join(text[:MAX_TEXT_BYTES].decode("utf-8", "replace").split())
