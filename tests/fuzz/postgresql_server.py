"""A hostile PostgreSQL server (servers.py has what one does)."""

import struct

import trio

from ratelimitd.stores.postgresql.access import Access
from ratelimitd.stores.postgresql.store import PostgreSQLStore
from tests.fuzz.scratch import FOLDER
from tests.fuzz.servers import Honest, ask

_SOCKET = FOLDER / ".s.PGSQL.5432"
TEXT, INT8, JSON = 25, 20, 114


def message(kind: bytes, payload: bytes = b"") -> bytes:
    """A message as PostgreSQL frames it."""
    return kind + struct.pack(">I", len(payload) + 4) + payload


def result(kinds: tuple[int, ...], *values: tuple[bytes | None, ...]) -> bytes:
    """A whole result of a statement with parameters: rows of columns of these types."""
    columns = b"".join(b"c\0" + struct.pack(">IhIhih", 0, 0, kind, -1, -1, 0) for kind in kinds)
    parts = [message(b"1"), message(b"2"), message(b"T", struct.pack(">h", len(kinds)) + columns)]
    for row in values:
        cells = [struct.pack(">i", -1) if cell is None else struct.pack(">i", len(cell)) + cell for cell in row]
        parts.append(message(b"D", struct.pack(">h", len(row)) + b"".join(cells)))
    return b"".join(parts) + message(b"C", b"SELECT %d\0" % len(values)) + READY


READY = message(b"Z", b"I")
WELCOME = message(b"R", struct.pack(">I", 0)) + message(b"S", b"server_version\x0015.3\0") + READY
SETTINGS = result((TEXT,), (b"UTF8",))
WRITABLE = result((TEXT, TEXT), (b"off", b"UTF8"))
NOTHING = message(b"1") + message(b"2") + message(b"n") + message(b"C", b"SELECT 0\0") + READY

HONEST = Honest([WELCOME, SETTINGS, WRITABLE], otherwise=NOTHING, speaks_first=False)


async def _ask(data: bytes) -> None:
    access = Access(((str(_SOCKET), 0),), "me", "secret", "mail")
    await ask(PostgreSQLStore(access, timeout_s=1), _SOCKET, HONEST, data)


def check(data: bytes) -> None:
    """Ask a server that says these bytes. Raises AssertionError, or whatever the store ought not to raise."""
    if data:
        _SOCKET.unlink(missing_ok=True)
        trio.run(_ask, data)
