"""The small HTTP responder: what it answers, and what no client can do to it."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from ratelimitd.net import http as scrape
from ratelimitd.net.http import Page, serve

LARGE_BYTES = 8 << 20  # more than the kernel keeps for a client
faults: list[Exception] = []


async def hello(accept: str) -> Page:
    return Page(f"hello {accept}".encode(), "text/plain")


async def large(accept: str) -> Page:
    return Page(b"x" * LARGE_BYTES, "text/plain")


async def broken(accept: str) -> Page:
    raise ZeroDivisionError


@asynccontextmanager
async def serving() -> AsyncIterator[int]:
    faults.clear()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        async with trio.open_nursery() as nursery:
            pages = {"/hello": hello, "/large": large, "/broken": broken}
            nursery.start_soon(serve, listener, pages, faults.append)
            yield listener.getsockname()[1]
            nursery.cancel_scope.cancel()


async def ask(port: int, request: bytes) -> bytes:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(request)
        answer = b""
        try:
            async for part in stream:
                answer += part
        except trio.BrokenResourceError:
            pass
        return answer


async def test_get_and_head() -> None:
    async with serving() as port:
        answer = await ask(port, b"GET /hello?x=1 HTTP/1.1\r\nHost: a\r\naccept:  text/x \r\n\r\n")
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n")
        assert body == b"hello text/x"
        answer = await ask(port, b"HEAD /hello HTTP/1.0\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /nothing HTTP/1.1\r\n\r\n", b"404 Not Found"),
        (b"POST /hello HTTP/1.1\r\n\r\n", b"405 Method Not Allowed"),
        (b"GET /hello\r\n\r\n", b"400 Bad Request"),
        (b"GET  /hello HTTP/1.1\r\n\r\n", b"400 Bad Request"),
        (b"\x00\xff\r\n\r\n", b"400 Bad Request"),
        (b"\r\n\r\n", b"400 Bad Request"),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n", b"431 Request Header Fields Too Large"),
        (b"GET /broken HTTP/1.1\r\n\r\n", b"500 Internal Server Error"),
    ],
)
async def test_what_is_no_good_request_gets_its_status(request_: bytes, status: bytes) -> None:
    async with serving() as port:
        assert (await ask(port, request_)).startswith(b"HTTP/1.1 " + status + b"\r\n")
        assert (await ask(port, b"GET /hello HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 200")
    assert [type(fault) for fault in faults] == [ZeroDivisionError] * (b"/broken" in request_)


async def test_a_request_may_come_byte_by_byte_and_one_that_breaks_off_harms_nobody() -> None:
    async with serving() as port:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            for byte in b"GET /hello HTTP/1.1\r\n\r\n":
                await stream.send_all(bytes([byte]))
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
        for part in (b"", b"GET /hel", b"GET /hello HTTP/1.1\r\n\r\n"):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await stream.send_all(part)
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close by a reset
            await stream.aclose()
        assert (await ask(port, b"GET /hello HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 200")


async def test_clients_that_say_nothing_are_closed_and_others_are_served_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "TIMEOUT_S", 0.2)
    async with serving() as port:
        idle = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(2 * scrape.MAX_CLIENTS)]
        assert (await ask(port, b"GET /hello HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 200")
        for stream in idle:
            assert await stream.receive_some() == b""
            await stream.aclose()


async def test_silent_clients_delay_nobody_who_asks() -> None:
    async with serving() as port:
        silent = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(200)]
        with trio.fail_after(scrape.TIMEOUT_S / 2):  # not before a time-out of theirs
            for _ in range(3):
                assert (await ask(port, b"GET /hello HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 200")
        for stream in silent:
            await stream.aclose()


@pytest.mark.parametrize("path", [b"/hello", b"/large", b"/nothing"])
async def test_clients_that_have_their_answer_and_stay_delay_nobody(path: bytes) -> None:
    """Also those that take nothing of an answer that the kernel cannot take in their place."""
    async with serving() as port:
        staying = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(100)]
        for stream in staying:
            await stream.send_all(b"GET " + path + b" HTTP/1.1\r\n\r\n")
        with trio.fail_after(scrape.TIMEOUT_S / 2):  # not before a time-out of theirs
            for _ in range(3):
                assert (await ask(port, b"GET /hello HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 200")
        for stream in staying:
            await stream.aclose()


async def test_a_large_answer_arrives_whole() -> None:
    async with serving() as port:
        assert (await ask(port, b"GET /large HTTP/1.1\r\n\r\n")).endswith(b"\r\n\r\n" + b"x" * LARGE_BYTES)


async def test_a_client_that_is_being_answered_is_not_closed_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "MAX_CLIENTS", 1)
    async with serving() as port:
        first = await trio.open_tcp_stream("127.0.0.1", port)
        await first.send_all(b"GET /hello HTTP/1.1\r\n\r\n")
        assert (await first.receive_some()).startswith(b"HTTP/1.1 200")
        second = await trio.open_tcp_stream("127.0.0.1", port)
        await second.send_all(b"GET /hello HTTP/1.1\r\n\r\n")
        await first.aclose()
        assert (await second.receive_some()).startswith(b"HTTP/1.1 200")
        await second.aclose()
