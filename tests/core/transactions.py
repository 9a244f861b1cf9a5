"""What SMTP transactions were charged, said in the simplest way: no bound, no journal, every answer is kept."""

from collections import Counter as Multiset
from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

A = TypeVar("A", bound=Hashable)


class Transactions(Generic[A]):
    """An account is due what it was not charged: for what was admitted each was, once and for good; for what was
    refused those were that refused it, in that window.

    After a restart nobody knows what became of the counts: what was refused before it is charged in full once it is
    admitted (`dues` in full), but not again where it is refused (`owed`)."""

    def __init__(self) -> None:
        self.admitted: Multiset[str] = Multiset()  # recipients, by transaction
        self.recipients: set[tuple[str, str]] = set()  # transaction and recipient, admitted
        self.refused: Multiset[tuple[str, A, int]] = Multiset()  # by transaction, account and window
        self.refused_recipients: set[tuple[str, str, A, int]] = set()
        self.refusing: set[str] = set()  # transactions with refusals
        self.doubtful: set[str] = set()  # and those of an earlier run

    def more(self, transaction: str, recipient: str, count: int) -> int:
        """Recipients that were not admitted; `recipient` is "" at DATA."""
        if recipient:
            return 0 if (transaction, recipient) in self.recipients else 1
        return max(0, count - self.admitted[transaction])

    def restart(self) -> None:
        """Another run begins."""
        self.doubtful |= self.refusing

    def dues(self, transaction: str, recipient: str, more: int, windows: Mapping[A, int]) -> dict[A, int]:
        """What each account is charged if they are admitted, in its window of now."""
        if transaction in self.doubtful:
            return dict.fromkeys(windows, more)
        return self.owed(transaction, recipient, more, windows)

    def owed(self, transaction: str, recipient: str, more: int, windows: Mapping[A, int]) -> dict[A, int]:
        """What each account was not charged yet for them, in its window of now."""
        dues = {}
        for account, window in windows.items():
            already = self.refused[transaction, account, window]
            if recipient:
                already = min(already, (transaction, recipient, account, window) in self.refused_recipients)
            dues[account] = max(0, more - already)
        return dues

    def admit(self, transaction: str, recipient: str, more: int) -> None:
        """They are admitted."""
        for one, account, window in list(self.refused):
            mine = (one, recipient, account, window)
            if one == transaction and (not recipient or mine in self.refused_recipients):
                self.refused[one, account, window] = max(0, self.refused[one, account, window] - more)
        self.admitted[transaction] += more
        self.recipients.add((transaction, recipient))

    def refuse(self, transaction: str, recipient: str, account: A, window: int, charged: int) -> None:
        """An account was charged so many for a refusal."""
        self.refused[transaction, account, window] += charged
        if charged:
            self.refusing.add(transaction)
        if charged and recipient:
            self.refused_recipients.add((transaction, recipient, account, window))
