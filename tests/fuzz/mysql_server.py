"""A hostile MySQL server (servers.py has what one does)."""

import struct

import trio

from ratelimitd.stores.mysql.access import Access
from ratelimitd.stores.mysql.store import MySQLStore
from tests.fuzz.scratch import FOLDER
from tests.fuzz.servers import Honest, ask

_SOCKET = FOLDER / "mysql.sock"


def packet(number: int, payload: bytes) -> bytes:
    """A packet as MySQL frames it."""
    return struct.pack("<I", len(payload))[:3] + bytes([number & 0xFF]) + payload


def _text(value: bytes) -> bytes:
    return bytes([len(value)]) + value


def _column(name: bytes) -> bytes:
    kind = struct.pack("<HIBHBH", 45, 1024, 253, 0, 0, 0)
    return b"".join(map(_text, (b"def", b"d", b"t", b"t", name, name))) + b"\x0c" + kind


OK = b"\0\0\0\2\0\0\0"
END = b"\xfe\0\0\2\0"
GREETING = (
    b"\x0a8.0.0\0" + struct.pack("<I", 1) + b"12345678\0" + struct.pack("<HBHHB", 0xA201, 45, 2, 0x0008, 21) + bytes(10)
    + b"123456789012\0mysql_native_password\0"
)  # fmt: skip


def rows(*values: tuple[bytes, ...]) -> bytes:
    """A whole result."""
    width = len(values[0])
    parts = [bytes([width]), *[_column(b"c") for _ in range(width)], END]
    parts += [b"".join(map(_text, row)) for row in values] + [END]
    return b"".join(packet(number, part) for number, part in enumerate(parts, 1))


HONEST = Honest([packet(0, GREETING), packet(2, OK)], otherwise=packet(1, OK), speaks_first=True)


async def _ask(data: bytes) -> None:
    await ask(MySQLStore(Access(((str(_SOCKET), 0),), "me", b"secret", "mail"), timeout_s=1), _SOCKET, HONEST, data)


def check(data: bytes) -> None:
    """Ask a server that says these bytes. Raises AssertionError, or whatever the store ought not to raise."""
    if data:
        _SOCKET.unlink(missing_ok=True)
        trio.run(_ask, data)
