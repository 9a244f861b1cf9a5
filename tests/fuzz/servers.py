"""What a hostile database server can do: it says what these bytes have in place of its answers, from one of them on.

The protocols are those of mysql_server.py and postgresql_server.py.
"""

import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import trio

from ratelimitd.core.rows import Account
from ratelimitd.errors import StoreError
from ratelimitd.stores import Cursor, Store

STEPS = 8
PATIENT_S = 30.0
SILENT_S = 0.02


@dataclass(frozen=True, slots=True)
class Honest:
    """What a server says that is not hostile: a piece for each time that it is asked, then `otherwise`."""

    answers: Sequence[bytes]
    otherwise: bytes
    speaks_first: bool


def session(*answers: bytes) -> bytes:
    """The end of an input: each answer has its length in front. Before it stands how many answers are honest."""
    return b"".join(struct.pack("<H", len(answer)) + answer for answer in answers)


async def _serve(stream: trio.SocketStream, honest: Honest, steps: int, hostile: bytes) -> None:
    """Answer so many times as a server does, then send the bytes, a piece for each request, and close."""
    step = 0
    try:
        while True:
            with trio.move_on_after(SILENT_S) as waits:
                if (step or not honest.speaks_first) and not await stream.receive_some(65536):
                    return
            if waits.cancelled_caught:  # the client waits for more, too
                return
            if step < steps:
                await stream.send_all(honest.answers[step] if step < len(honest.answers) else honest.otherwise)
            else:
                size = struct.unpack_from("<H", hostile)[0] if len(hostile) >= 2 else 0
                piece, hostile = hostile[2 : 2 + size], hostile[2 + size :]
                if not piece:
                    return
                await stream.send_all(piece)
            step += 1
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return


async def ask(store: Store, path: Path, honest: Honest, data: bytes) -> None:
    """Ask a server at this socket that says these bytes. Raises AssertionError, or what a store ought not to raise."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await _serve(stream, honest, data[0] % STEPS, data[1:])

    server = trio.socket.socket(trio.socket.AF_UNIX)
    await server.bind(str(path))
    server.listen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [trio.SocketListener(server)])
        with trio.fail_after(PATIENT_S):  # raised: it hangs
            with suppress(StoreError):
                await store.lookup([Account("daily", "alice")], 0)
                await store.recorded("node")
                await store.changes(Cursor(1), 0)
            await store.close()
        nursery.cancel_scope.cancel()
