"""Where notices are sent: a program that reads JSON, or a webhook; one attempt at a time.

A failure says whether it is for good (a program that does not exist, a 404); the notifier repeats the others.
"""

import hashlib
import hmac
import json
import os
import signal
import subprocess
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

import trio

from ratelimitd import __version__
from ratelimitd.errors import RatelimitdError
from ratelimitd.notify.configured import Notify

SIGNATURE = "X-Ratelimitd-Signature"
AT_ONCE = 4
"""How many deliveries to one target may run at the same time."""
KILL_AFTER_S = 2.0
"""How long a program may take to end after SIGTERM."""
_TRY_LATER = (408, 425, 429)


class DeliveryFailed(RatelimitdError):
    """A target did not take a notice; `for_good`: it never will."""

    def __init__(self, reason: str, for_good: bool = False) -> None:
        super().__init__(reason)
        self.for_good = for_good


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
    """A program that is run with the notice on its standard input; its standard error is the daemon's."""

    def __init__(self, notify: Notify) -> None:
        self.notify = notify
        self.name = notify.command[0]
        self.slots = trio.CapacityLimiter(AT_ONCE)
        self.waiting = 0

    async def deliver(self, notice_id: str, body: bytes) -> None:
        """Run the program; an exit status other than 0 is a failure."""
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
    """End a program that takes too long, and all that it has started."""
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
        """Post the notice; any status but 2xx is a failure. The response's body is not read."""
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
