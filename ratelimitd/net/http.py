"""A very small HTTP responder for `[metrics] listen`: GET and HEAD of a few pages, one request per connection.

What a client may take is bounded in bytes, time and number; nothing it does reaches the rest of the daemon.
"""

import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import NamedTuple

import trio

MAX_REQUEST_BYTES = 8192
TIMEOUT_S = 5.0
MAX_CLIENTS = 16
"""Clients at a time; further ones wait in the kernel's queue."""


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
    slots = trio.CapacityLimiter(MAX_CLIENTS)
    async with trio.open_nursery() as nursery:
        while True:
            await slots.acquire_on_behalf_of(token := object())
            try:
                client, _ = await sock.accept()
            except OSError:  # want of descriptors, or the client is gone already
                slots.release_on_behalf_of(token)
                await trio.sleep(0.1)
                continue
            done = partial(slots.release_on_behalf_of, token)
            nursery.start_soon(_client, trio.SocketStream(client), pages, failed, done)


async def _client(
    stream: trio.SocketStream, pages: Pages, failed: Callable[[Exception], None], done: Callable[[], None]
) -> None:
    try:
        with trio.move_on_after(TIMEOUT_S):
            async with stream:
                head, page = await _answer(stream, pages, failed)
                await stream.send_all(_render(page, head))
                await stream.send_eof()
                await _linger(stream)
    except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
        pass
    finally:
        done()


async def _linger(stream: trio.SocketStream) -> None:
    """Read what the client sends still, so that closing does not reset the connection before it read the page."""
    for _ in range(64):
        if not await stream.receive_some(65536):
            return


async def _answer(stream: trio.SocketStream, pages: Pages, failed: Callable[[Exception], None]) -> tuple[bool, Page]:
    """Whether only the head is asked for, and the page."""
    head = False
    try:
        method, path, accept = _parse(await _receive(stream))
        head = method == "HEAD"
        page = pages.get(path)
        if page is None:
            raise BadRequest("404 Not Found")
        return head, await page(accept)
    except BadRequest as error:
        return head, Page(f"{error}\n".encode(), "text/plain; charset=utf-8", str(error))
    except OSError:
        raise
    except Exception as error:
        failed(error)
        status = "500 Internal Server Error"
        return head, Page(f"{status}\n".encode(), "text/plain; charset=utf-8", status)


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
