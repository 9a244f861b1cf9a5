"""Who is notified when accounts reach a share of their quota, as the policy knows it: no notice is made here."""

from typing import Protocol

from ratelimitd.core.counters import Counter


class Watcher(Protocol):
    """Is notified when accounts reach a share of their quota."""

    def watches(self, limit: str) -> bool:
        """Whether it wants to know about the accounts of a limit."""

    def look(self, counter: Counter, refused: bool = False) -> None:
        """Look at an account that has reached its `notice_at`, or was refused; set its next `notice_at`."""


class Nobody:
    """A Watcher that wants to know nothing."""

    def watches(self, limit: str) -> bool:
        """No."""
        return False

    def look(self, counter: Counter, refused: bool = False) -> None:
        """Do nothing."""
