"""Who is notified when accounts reach a share of their quota, as the policy knows it: no notice is made here."""

from typing import Protocol

from ratelimitd.core.counters import Counter
from ratelimitd.core.parts import NEVER


class Watcher(Protocol):
    """Is notified when accounts reach a share of their quota."""

    def notice_percent(self, limit: str) -> int:
        """From which share of their quota on it wants to know about the accounts of a limit; NEVER: from none."""

    def look(self, counter: Counter, refused: bool = False) -> None:
        """Look at an account that has reached its `notice_at`, or was refused; set its next `notice_at`."""


class Nobody:
    """A Watcher that wants to know nothing."""

    def notice_percent(self, limit: str) -> int:
        """From none."""
        return NEVER

    def look(self, counter: Counter, refused: bool = False) -> None:
        """Do nothing."""
