"""Makes targets; a program that reads JSON, one attempt at a time. Webhooks are in webhook.py, which needs httpx."""

import json
import os
import signal
import subprocess
from typing import Any

import trio

from ratelimitd.notify.configured import Notify
from ratelimitd.notify.target import AT_ONCE, DeliveryFailed, Target

KILL_AFTER_S = 2.0
"""How long a program may take to end after SIGTERM, and again after SIGKILL."""


def make(notify: Notify) -> Target:
    """The target of a `[[notify]]`."""
    if notify.url:
        from ratelimitd.notify.webhook import Webhook

        return Webhook(notify)
    return Program(notify)


class Program:
    """A program that is run with the notice on its standard input; its standard error is the daemon's.

    `left_alone` are processes that should have ended, and that we may not end.
    """

    def __init__(self, notify: Notify) -> None:
        self.notify = notify
        self.name = notify.command[0]
        self.slots = trio.CapacityLimiter(AT_ONCE)
        self.waiting = 0
        self.left_alone: list[trio.Process] = []

    async def deliver(self, notice_id: str, body: bytes) -> None:
        """Run the program; an exit status other than 0 is a failure, and one that we may not end."""
        self.left_alone = [process for process in self.left_alone if process.poll() is None]
        try:
            process = await trio.lowlevel.open_process(
                self.notify.command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
            )
        except OSError as error:
            raise DeliveryFailed(str(error), for_good=isinstance(error, FileNotFoundError | PermissionError)) from error
        try:
            await _feed(process, body)
            status = await process.wait()
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                ended = await _end_session(process)
            if not ended:  # it has changed its user, as su does: only root can end it
                self.left_alone.append(process)
                reason = f"it takes too long, and cannot be ended (pid {process.pid})"
                raise DeliveryFailed(reason, for_good=True) from None
            raise
        if status:
            raise DeliveryFailed(f"exit status {status}")


async def _feed(process: trio.Process, body: bytes) -> None:
    assert process.stdin is not None
    async with process.stdin:
        try:
            await process.stdin.send_all(body)
        except trio.BrokenResourceError:  # it reads nothing, which is no failure
            return


async def _end_session(process: trio.Process) -> bool:
    """End a program that takes too long, and all that it has started; whether that was possible."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        with trio.move_on_after(KILL_AFTER_S):
            await process.wait()
            return True
    return False


def encode(notice: dict[str, Any]) -> bytes:
    """The body of a notice."""
    return json.dumps(notice).encode()
