"""A very small HTTP responder for `[metrics] listen`: GET and HEAD of a few pages, one request per connection.

What a client may take is bounded in bytes, time and number; nothing it does reaches the rest of the daemon.
"""

import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

import trio

MAX_REQUEST_BYTES = 8192
TIMEOUT_S = 5.0
MAX_CLIENTS = 16
"""Clients at a time; further ones wait until one has left, or one that is waited for is closed for them."""


class Page(NamedTuple):
    """An answer."""

    body: bytes
    content_type: str
    status: str = "200 OK"


Pages = Mapping[str, Callable[[str], Awaitable[Page]]]
"""By path: a function of the Accept header to the page."""


class BadRequest(Exception):
    """Not a request that is answered with a page; its text is the status line's."""


async def serve(listener: socket.socket, pages: Pages, failed: Callable[[Exception], None]) -> None:
    """Answer on a listening socket; runs as long as the daemon. Faults of a page go to `failed`."""
    sock = trio.socket.from_stdlib_socket(listener)
    clients = _Clients(pages, failed)
    async with trio.open_nursery() as nursery:
        while True:
            await clients.room()
            try:
                client, _ = await sock.accept()
            except OSError:  # no more descriptors, or the client has left already
                await trio.sleep(0.1)
                continue
            nursery.start_soon(clients.serve, trio.SocketStream(client))


class _Clients:
    """Those that are connected. Where there are too many, one that is waited for makes room: the one for longest."""

    def __init__(self, pages: Pages, failed: Callable[[Exception], None]) -> None:
        self._pages = pages
        self._failed = failed
        self._open = 0
        # Those that have not sent their request, taken their answer or closed yet; who is waited for longest is first.
        self._waited_for: dict[trio.SocketStream, trio.CancelScope] = {}
        self._left = trio.Event()

    async def room(self) -> None:
        """Wait until there are fewer than MAX_CLIENTS."""
        while self._open >= MAX_CLIENTS:
            for scope in self._waited_for.values():
                scope.cancel()
                break
            await self._left.wait()

    async def serve(self, stream: trio.SocketStream) -> None:
        """Answer one request."""
        self._open += 1
        try:
            with trio.move_on_after(TIMEOUT_S) as scope:
                async with stream:
                    await self._answer(stream, scope)
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            pass
        finally:
            self._waited_for.pop(stream, None)
            self._open -= 1
            self._left.set()
            self._left = trio.Event()

    async def _answer(self, stream: trio.SocketStream, scope: trio.CancelScope) -> None:
        head = False
        self._waited_for[stream] = scope
        try:
            method, path, accept = _parse(await _receive(stream))
            del self._waited_for[stream]
            head = method == "HEAD"
            page = await self._page(path, accept)
        except BadRequest as error:
            page = Page(f"{error}\n".encode(), "text/plain; charset=utf-8", str(error))
        answer = _render(page, head)
        sent = await stream.socket.send(answer)  # what the kernel takes at once; the rest waits for the client
        self._waited_for.pop(stream, None)
        self._waited_for[stream] = scope
        await stream.send_all(answer[sent:])
        await stream.send_eof()
        await _linger(stream)

    async def _page(self, path: str, accept: str) -> Page:
        page = self._pages.get(path)
        if page is None:
            raise BadRequest("404 Not Found")
        try:
            return await page(accept)
        except OSError:
            raise
        except Exception as error:
            self._failed(error)
            raise BadRequest("500 Internal Server Error") from error


async def _linger(stream: trio.SocketStream) -> None:
    """Read what the client sends still, so that closing does not reset the connection before it read the page."""
    for _ in range(64):
        if not await stream.receive_some(65536):
            return


async def _receive(stream: trio.SocketStream) -> bytes:
    """A request's line and headers."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = await stream.receive_some(MAX_REQUEST_BYTES)
        data += more
        if len(data) > MAX_REQUEST_BYTES:
            raise BadRequest("431 Request Header Fields Too Large")
        if not more:
            raise BadRequest("400 Bad Request")
    return data.partition(b"\r\n\r\n")[0]


def _parse(head: bytes) -> tuple[str, str, str]:
    """Method, path and Accept header of a request."""
    line, *headers = head.decode("latin-1").split("\r\n")
    words = line.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise BadRequest("400 Bad Request")
    if words[0] not in ("GET", "HEAD"):
        raise BadRequest("405 Method Not Allowed")
    accept = ""
    for header in headers:
        name, _, value = header.partition(":")
        if name.strip().lower() == "accept":
            accept = value.strip()
    return words[0], words[1].partition("?")[0], accept


def _render(page: Page, head: bool) -> bytes:
    fields = {
        "Content-Type": page.content_type,
        "Content-Length": str(len(page.body)),
        "Connection": "close",
        "Cache-Control": "no-store",
    }
    if page.status.startswith("405"):
        fields["Allow"] = "GET, HEAD"
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {page.status}\r\n{lines}\r\n".encode() + (b"" if head else page.body)


def as_json(values: Mapping[str, object]) -> Page:
    """A page of JSON."""
    return Page(json.dumps(values).encode() + b"\n", "application/json")
