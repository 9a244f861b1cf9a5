"""A PostgreSQL server that says more than it was asked for: it is left, before it has the memory or the loop."""

import struct
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count

import pytest
import trio
import trio.lowlevel

from ratelimitd.errors import StoreError
from ratelimitd.stores.postgresql.access import Access
from ratelimitd.stores.postgresql.session import connect
from ratelimitd.stores.postgresql.store import PostgreSQLStore
from tests.fuzz.postgresql_server import SETTINGS, TEXT, WELCOME, WRITABLE, message, result
from tests.instances.postgresql import PostgreSQL

pytestmark = pytest.mark.real  # they take some seconds of the processor


def again(data: bytes) -> Iterator[bytes]:
    while True:
        yield data


def parameters() -> Iterator[bytes]:
    for number in count():
        yield b"".join(message(b"S", b"p%d.%d\0v\0" % (number, one)) for one in range(5000))


def rows() -> Iterator[bytes]:
    yield result((TEXT,), (b"x",))[: -len(message(b"C", b"SELECT 1\0")) - 6]
    yield from again(message(b"D", struct.pack(">hi", 1, 1) + b"x") * 3000)


async def no_tls(stream: trio.SocketStream) -> None:
    """Refuse TLS, and wait for the login."""
    await stream.receive_some()
    await stream.send_all(b"N")
    await stream.receive_some()


FLOODS: dict[str, Callable[[], Iterator[bytes]]] = {
    "notices": lambda: again(message(b"N", b"SNOTICE\0C00000\0Mhello\0\0") * 1000),
    "notifications": lambda: again(message(b"A", struct.pack(">I", 1) + b"c\0p\0") * 2000),
    "results": lambda: again(message(b"C", b"SELECT 1\0") * 5000),
    "settings": parameters,
    "rows": rows,
    # In one step libpq may fill all the room that it has made for a message: the next power of two.
    "a long error": lambda: again(message(b"E", b"SERROR\0CXX000\0M" + b"x" * (1 << 24) + b"\0\0")),
}


@pytest.mark.parametrize("flood", FLOODS)
@pytest.mark.parametrize("at", ["as it is connected", "in an answer"])
async def test_an_answer_without_an_end_is_left(flood: str, at: str) -> None:
    sent = 0

    async def serve(stream: trio.SocketStream) -> None:
        nonlocal sent
        try:
            await no_tls(stream)
            if at == "as it is connected":
                await stream.send_all(message(b"R", struct.pack(">I", 0)))
            if at == "in an answer":
                for answer in (WELCOME, SETTINGS, WRITABLE):
                    await stream.send_all(answer)
                    await stream.receive_some()
            for data in FLOODS[flood]():
                await stream.send_all(data)
                sent += len(data)
        except trio.BrokenResourceError:
            pass

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        store = PostgreSQLStore(Access((("127.0.0.1", port),), "me", "secret", "mail"), timeout_s=3)
        with pytest.raises(StoreError), trio.fail_after(30):
            await store.recorded("node")
        nursery.cancel_scope.cancel()
    assert sent < 64 << 20  # with what the sockets hold


async def test_a_long_error_is_cut_short() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await no_tls(stream)
        for answer in (WELCOME, SETTINGS, message(b"E", b"SERROR\0CXX000\0M" + b"x" * 1_000_000 + b"\0\0")):
            await stream.send_all(answer)
            await stream.receive_some()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        store = PostgreSQLStore(Access((("127.0.0.1", port),), "me", "secret", "mail"), timeout_s=1)
        with pytest.raises(StoreError) as caught:
            await store.recorded("node")
        nursery.cancel_scope.cancel()
    assert len(str(caught.value)) < 3000


async def test_an_answer_of_many_columns_does_not_stop_the_loop() -> None:
    columns, rows = 10_000, 150
    answer = result((TEXT,) * columns, *[(None,) * columns] * rows)
    stopped_s = 0.0

    async def serve(stream: trio.SocketStream) -> None:
        await no_tls(stream)
        await stream.send_all(WELCOME)
        await stream.receive_some()
        await stream.send_all(answer)
        await trio.sleep_forever()

    async def watch() -> None:
        nonlocal stopped_s
        while True:
            began = time.thread_time()
            await trio.lowlevel.checkpoint()
            stopped_s = max(stopped_s, time.thread_time() - began)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        store = PostgreSQLStore(Access((("127.0.0.1", port),), "me", "secret", "mail"), timeout_s=20)
        nursery.start_soon(watch)
        with pytest.raises(StoreError, match="columns"):
            await store.recorded("node")
        await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert stopped_s < 1


async def test_a_long_answer_is_read(postgresql: PostgreSQL) -> None:
    access = Access((("127.0.0.1", postgresql.port),), "long_answer", "secret", "long_answer")
    postgresql.add_user("long_answer", "secret", database="long_answer")
    session = await connect(access, access.addresses[0], 20)
    assert len(await session.run("SELECT repeat('x', 1000) FROM generate_series(1, 8000)")) == 8000
    with pytest.raises(StoreError, match="without an end"):
        await session.run("SELECT repeat('x', 1000) FROM generate_series(1, 40000)")
    session.discard()
