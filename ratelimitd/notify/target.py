"""What a target of notices is: a program (program.py) or a webhook (webhook.py); one attempt at a time.

A failure says whether it is for good (a program that does not exist, a 404); the notifier repeats the others.
"""

from typing import Protocol

import trio

from ratelimitd.errors import RatelimitdError
from ratelimitd.notify.configured import Notify

AT_ONCE = 4
"""How many deliveries to one target may run at the same time."""


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
