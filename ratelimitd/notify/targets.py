"""Who is told of a notice: a command that reads JSON, or a webhook.

A target is tried a few times, with pauses that double. What can never succeed (a command that does not exist, a 404)
is not tried again.
"""

import hashlib
import hmac
import json
import os
import signal
import ssl
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from typing import Any, Protocol

import trio

from ratelimitd import __version__
from ratelimitd.errors import ConfigError, RatelimitdError
from ratelimitd.net.credentials import Credentials
from ratelimitd.settings import NotifySettings

SIGNATURE = "X-Ratelimitd-Signature"
INSTALL_HTTPX = 'the extra "notify" for webhooks: pip install "ratelimitd[notify]"'
AT_ONCE = 4
"""Deliveries to one target that may run at the same time."""
KILL_AFTER_S = 2.0
_TRY_LATER = (408, 425, 429)


class DeliveryFailed(RatelimitdError):
    """A target did not take a notice; `for_good`: it never will."""

    def __init__(self, reason: str, for_good: bool = False) -> None:
        super().__init__(reason)
        self.for_good = for_good


@dataclass(frozen=True, slots=True)
class Notify:
    """A `[[notify]]` as configured and checked; `at` per cent of quota, for the limits of these names."""

    at: tuple[int, ...]
    limits: tuple[str, ...]
    command: tuple[str, ...]
    url: str
    secret: bytes = field(repr=False)
    tls: ssl.SSLContext
    timeout_s: float
    retries: int
    max_waiting: int

    @property
    def id(self) -> str:
        """The target's name in the ledger: it stays when the order of the file changes."""
        return hashlib.sha256(json.dumps([self.command, self.url]).encode()).hexdigest()[:16]


def checked(where: str, settings: NotifySettings, limits: list[str], credentials: Credentials) -> Notify:
    """What is made of a `[[notify]]`. Raises ConfigError, with `where` the table's place in the file."""
    if bool(settings.command) == bool(settings.url):
        found = "both command and url" if settings.url else "neither command nor url"
        raise ConfigError(where, found, 'one of command = ["/a/program"] and url = "https://..."')
    for i, name in enumerate(settings.limits):
        if name not in limits:
            raise ConfigError(f"{where}.limits[{i}]", f'"{name}"', "the name of a [[limit]]: " + ", ".join(limits))
    if settings.url:
        _check_url(f"{where}.url", settings.url)
    return Notify(
        tuple(settings.at),
        tuple(settings.limits or limits),
        tuple(settings.command),
        settings.url,
        _secret(where, settings, credentials),
        credentials.tls(f"{where}.tls_ca", settings.tls_ca),
        settings.timeout_s,
        settings.retries,
        settings.max_waiting,
    )


def _check_url(where: str, url: str) -> None:
    if find_spec("httpx") is None:
        raise ConfigError(where, "an installation without httpx", INSTALL_HTTPX)
    import httpx

    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ConfigError(where, f"{error}", "https://HOST/PATH") from error
    if parsed.scheme not in ("https", "http") or not parsed.host:
        raise ConfigError(where, f'"{url}"', "https://HOST/PATH")


def _secret(where: str, settings: NotifySettings, credentials: Credentials) -> bytes:
    if settings.secret and settings.secret_file:
        raise ConfigError(where, "both secret and secret_file", "one of them")
    if not settings.secret_file:
        return settings.secret.encode()
    content = credentials.read(f"{where}.secret_file", settings.secret_file)
    if content is None:
        return b""
    if not content.strip():
        file = credentials.path(settings.secret_file)
        raise ConfigError(f"{where}.secret_file", f"{file}, which is empty", "a file with a secret in it")
    return content.strip()


class Target(Protocol):
    """Where notices go. `slots` bounds deliveries at a time, `waiting` counts those that are not over."""

    notify: Notify
    name: str
    slots: trio.CapacityLimiter
    waiting: int

    async def deliver(self, notice_id: str, body: bytes) -> None:
        """Deliver a notice, one attempt; the caller bounds its time. Raises DeliveryFailed."""
        ...


def make(notify: Notify) -> Target:
    """The target of a `[[notify]]`."""
    return Webhook(notify) if notify.url else Program(notify)


class Program:
    """A program that is run with the notice on its standard input; its errors go where the daemon's do."""

    def __init__(self, notify: Notify) -> None:
        self.notify = notify
        self.name = notify.command[0]
        self.slots = trio.CapacityLimiter(AT_ONCE)
        self.waiting = 0

    async def deliver(self, notice_id: str, body: bytes) -> None:
        """Run the program; an exit status but 0 is a failure."""
        try:
            done = await trio.run_process(
                self.notify.command,
                stdin=body,
                stdout=subprocess.DEVNULL,
                check=False,
                start_new_session=True,
                deliver_cancel=_end_session,
            )
        except OSError as error:
            raise DeliveryFailed(str(error), for_good=isinstance(error, FileNotFoundError | PermissionError)) from error
        if done.returncode:
            raise DeliveryFailed(f"exit status {done.returncode}")


async def _end_session(process: trio.Process) -> None:
    """End a program that takes too long, and what it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with trio.move_on_after(KILL_AFTER_S):
            await process.wait()
            return
        os.killpg(process.pid, signal.SIGKILL)


class Webhook:
    """An HTTP endpoint that the notice is posted to, signed where a secret is set."""

    def __init__(self, notify: Notify) -> None:
        import httpx

        self.notify = notify
        self.slots = trio.CapacityLimiter(AT_ONCE)
        self.waiting = 0
        url = httpx.URL(notify.url)
        self.name = f"{url.scheme}://{url.host}"  # paths and queries of webhooks are often secret
        self._client = partial(
            httpx.AsyncClient,
            verify=notify.tls,
            timeout=notify.timeout_s,
            limits=httpx.Limits(max_keepalive_connections=0),
        )
        self._failures = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError)

    async def deliver(self, notice_id: str, body: bytes) -> None:
        """Post it; anything but 2xx is a failure. The answer's body is not read."""
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"ratelimitd/{__version__}",
            "Idempotency-Key": notice_id,
        }
        if self.notify.secret:
            headers[SIGNATURE] = signature(self.notify.secret, body)
        try:
            async with (
                self._client() as client,
                client.stream("POST", self.notify.url, content=body, headers=headers) as response,
            ):
                status = response.status_code
        except self._failures as error:
            raise DeliveryFailed(f"{type(error).__name__}: {error}") from error
        if not 200 <= status < 300:
            raise DeliveryFailed(f"HTTP status {status}", for_good=status < 500 and status not in _TRY_LATER)


def signature(secret: bytes, body: bytes) -> str:
    """The signature of a body: `sha256=` and the HMAC-SHA256 under the secret, in hexadecimal digits."""
    return "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()


def encode(notice: dict[str, Any]) -> bytes:
    """The body of a notice."""
    return json.dumps(notice).encode()
