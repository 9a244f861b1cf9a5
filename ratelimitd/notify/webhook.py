"""A webhook: one POST, in the daemon's own loop, which no server can hold up.

httpx bounds neither the head of a response nor how often it is preceded by an informational one (103 for ever), and
parses what it has read in one go. So it gets its bytes from a connection of ours: little at a time, with a checkpoint
in between, and of each response only so much as a head may have. No body is read, no redirection followed.
"""

import hashlib
import hmac
import ssl
from collections.abc import AsyncIterator, Iterable
from typing import Any
from urllib.request import getproxies, proxy_bypass

import httpcore
import httpx
import trio

from ratelimitd import __version__
from ratelimitd.notify.configured import Notify
from ratelimitd.notify.target import AT_ONCE, DeliveryFailed

SIGNATURE = "X-Ratelimitd-Signature"
READ_BYTES = 512
"""What is read, and parsed without a checkpoint, at a time."""
MAX_HEAD_BYTES = 16_384
MAX_HEAD_LINES = 256
"""Of everything that is read of a connection: heads of informational responses count, too."""
_TRY_LATER = (408, 425, 429)
_FAILURES = (
    httpx.HTTPError,
    httpx.InvalidURL,
    httpx.StreamError,
    httpcore.NetworkError,
    httpcore.TimeoutException,
    httpcore.ProtocolError,
    httpcore.UnsupportedProtocol,
    httpcore.ProxyError,
)


class Webhook:
    """An HTTP endpoint that the notice is posted to, signed where a secret is set."""

    def __init__(self, notify: Notify) -> None:
        self.notify = notify
        self.slots = trio.CapacityLimiter(AT_ONCE)
        self.waiting = 0
        url = httpx.URL(notify.url)
        self.name = f"{url.scheme}://{url.host}"  # paths and queries of webhooks are often secret

    async def deliver(self, notice_id: str, body: bytes) -> None:
        """Post the notice; any status but 2xx is a failure. The response's body is not read."""
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"ratelimitd/{__version__}",
            "Idempotency-Key": notice_id,
        }
        if self.notify.secret:
            headers[SIGNATURE] = signature(self.notify.secret, body)
        transport = _Transport(self.notify.url, self.notify.tls)
        try:
            async with (
                httpx.AsyncClient(transport=transport, timeout=self.notify.timeout_s, trust_env=False) as client,
                client.stream("POST", self.notify.url, content=body, headers=headers) as response,
            ):
                status = response.status_code
        except _FAILURES as error:
            raise DeliveryFailed(f"{type(error).__name__}: {error}") from error
        if not 200 <= status < 300:
            raise DeliveryFailed(f"HTTP status {status}", for_good=status < 500 and status not in _TRY_LATER)


def signature(secret: bytes, body: bytes) -> str:
    """The signature of a body: `sha256=` and the HMAC-SHA256 under the secret, in hexadecimal digits."""
    return "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()


class _Transport(httpx.AsyncBaseTransport):
    """httpcore over bounded connections; through the proxy that the environment names (https_proxy, no_proxy)."""

    def __init__(self, url: str, tls: ssl.SSLContext) -> None:
        parsed = httpx.URL(url)
        proxy = "" if proxy_bypass(parsed.host) else getproxies().get(parsed.scheme, "")
        backend = _Backend()
        self._pool: httpcore.AsyncConnectionPool = (
            httpcore.AsyncHTTPProxy(proxy, ssl_context=tls, max_keepalive_connections=0, network_backend=backend)
            if proxy
            else httpcore.AsyncConnectionPool(ssl_context=tls, max_keepalive_connections=0, network_backend=backend)
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, read the head of its response."""
        response = await self._pool.handle_async_request(
            httpcore.Request(
                request.method,
                str(request.url),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx.Response(response.status, headers=response.headers, stream=_Unread(response.stream))

    async def aclose(self) -> None:
        """Disconnect."""
        await self._pool.aclose()


class _Unread(httpx.AsyncByteStream):
    """A body that is closed without being read."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        return
        yield b""

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Backend(httpcore.AsyncNetworkBackend):
    """Makes bounded connections."""

    def __init__(self) -> None:
        self._backend = httpcore.TrioBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 -- httpcore's
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect."""
        return _Bounded(await self._backend.connect_tcp(host, port, timeout, local_address, socket_options))

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await self._backend.sleep(seconds)


class _Bounded(httpcore.AsyncNetworkStream):
    """A connection of which little is read at a time, and no more than the heads of a response may have."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._left, self._lines_left = MAX_HEAD_BYTES, MAX_HEAD_LINES

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        """A little. Raises httpcore.RemoteProtocolError beyond the bounds."""
        if self._left <= 0 or self._lines_left <= 0:
            raise httpcore.RemoteProtocolError("the head of the response is too long")
        data = await self._stream.read(min(max_bytes, READ_BYTES), timeout)
        self._left -= len(data)
        self._lines_left -= data.count(b"\n")
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Send all."""
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        """Disconnect."""
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        """The same, in TLS."""
        return _Bounded(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        """What httpcore asks about the connection."""
        return self._stream.get_extra_info(info)
