"""What a hostile MySQL server can do: it says what these bytes have in place of its packets, from one of them on."""

import struct
from contextlib import suppress

import trio

from ratelimitd.core.rows import Account
from ratelimitd.errors import StoreError
from ratelimitd.stores import Cursor
from ratelimitd.stores.mysql.access import Access
from ratelimitd.stores.mysql.store import MySQLStore
from tests.fuzz.scratch import FOLDER

_SOCKET = FOLDER / "mysql.sock"
_STEPS = 8
PATIENT_S = 30.0
SILENT_S = 0.02


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


def session(*answers: bytes) -> bytes:
    """An input: the first byte says which answers are honest before these; each has its length in front."""
    return b"".join(struct.pack("<H", len(answer)) + answer for answer in answers)


async def _serve(stream: trio.SocketStream, honest: int, hostile: bytes) -> None:
    """Answer `honest` times as a server does, then send the bytes, a piece for each request, and close."""
    answers = [packet(0, GREETING), packet(2, OK)]
    step = 0
    try:
        while True:
            with trio.move_on_after(SILENT_S) as waits:
                if step and not await stream.receive_some(65536):
                    return
            if waits.cancelled_caught:  # the client waits for more, too
                return
            if step < honest:
                await stream.send_all(answers[step] if step < len(answers) else packet(1, OK))
            else:
                size = struct.unpack_from("<H", hostile)[0] if len(hostile) >= 2 else 0
                piece, hostile = hostile[2 : 2 + size], hostile[2 + size :]
                if not piece:
                    return
                await stream.send_all(piece)
            step += 1
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return


async def _run(data: bytes) -> None:
    honest, hostile = data[0] % _STEPS, data[1:]

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await _serve(stream, honest, hostile)

    server = trio.socket.socket(trio.socket.AF_UNIX)
    _SOCKET.unlink(missing_ok=True)
    await server.bind(str(_SOCKET))
    server.listen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [trio.SocketListener(server)])
        store = MySQLStore(Access(((str(_SOCKET), 0),), "me", b"secret", "mail"), timeout_s=1)
        with trio.fail_after(PATIENT_S):  # raised: it hangs
            with suppress(StoreError):
                await store.lookup([Account("daily", "alice")], 0)
                await store.recorded("node")
                await store.changes(Cursor(1), 0)
            await store.close()
        nursery.cancel_scope.cancel()


def check(data: bytes) -> None:
    """Ask a server that says these bytes. Raises AssertionError, or whatever the store ought not to raise."""
    if data:
        trio.run(_run, data)
