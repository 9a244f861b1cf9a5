"""What has been charged already, by SMTP transaction: the memo behind "exactly once".

`instance` names one transaction (SMTPD_POLICY_README: "a unique identifier that can be used to correlate different
requests for one mail transaction"). Postfix asks once per recipient and restriction list, and again after any
failure; recipient_count is 0 at RCPT and the accepted recipients at DATA and END-OF-MESSAGE.
"""

from msgspec import Struct

MAX_REMEMBERED = 1000
"""Recipients of one transaction whose answers are kept, the latest: Postfix's own smtpd_recipient_limit is 1,000, and
it asks all questions about one recipient together."""


class Transaction(Struct, eq=False, gc=False):
    """One instance: the recipients charged at RCPT and their answers, and how many were charged in all.

    `admitted`: some recipient was, so limits that count messages admit the others too. The latest recipient has fields
    of its own: most transactions have one only, and a dict takes as much memory as all the rest.
    The garbage collector does not track these (gc=False): there are many, and they hold nothing but strings.
    """

    charged: int = 0
    admitted: bool = False
    message_admitted: bool = True
    recipient: str | None = None  # the latest that was charged
    recipient_admitted: bool = False
    earlier: dict[str, bool] | None = None

    @property
    def remembered(self) -> int:
        """Recipients whose answers are kept."""
        return (self.recipient is not None) + (len(self.earlier) if self.earlier else 0)

    def answer(self, recipient: str) -> bool | None:
        """Whether a recipient was admitted; None where it was not charged."""
        if recipient == self.recipient:
            return self.recipient_admitted
        return self.earlier.get(recipient) if self.earlier else None

    def due_for_message(self, recipient_count: int) -> int:
        """Recipients to charge at DATA and END-OF-MESSAGE: those beyond what was charged."""
        return max(0, recipient_count - self.charged)

    def charge_recipient(self, recipient: str, admitted: bool) -> None:
        """Remember a charge made at RCPT and its answer."""
        self.charged += 1
        self.admitted |= admitted
        if self.recipient is not None:
            if self.earlier is None:
                self.earlier = {}
            elif len(self.earlier) >= MAX_REMEMBERED - 1:
                del self.earlier[next(iter(self.earlier))]
            self.earlier[self.recipient] = self.recipient_admitted
        self.recipient, self.recipient_admitted = recipient, admitted

    def charge_message(self, recipients: int, admitted: bool) -> None:
        """Remember a charge made at DATA or END-OF-MESSAGE and its answer."""
        self.charged += recipients
        self.admitted |= admitted
        self.message_admitted = admitted

    def answered(self, recipient: str | None, admitted: bool) -> None:
        """Remember another answer about what was charged before: to a recipient, or to the message."""
        self.admitted |= admitted
        if recipient is None:
            self.message_admitted = admitted
        elif recipient == self.recipient:
            self.recipient_admitted = admitted
        elif self.earlier is not None:
            self.earlier[recipient] = admitted


class Memo:
    """Recent transactions, bounded: two generations, each of at most half of `max_transactions` and of
    `max_recipients`.

    A transaction that is asked about moves to the young generation; when that is full, or `age` is called, the old
    one is forgotten. So a transaction is remembered until at least half a bound's worth of others came after it.
    `forgotten` counts those that were forgotten because of a bound.
    """

    def __init__(self, max_transactions: int, max_recipients: int) -> None:
        self.forgotten = 0
        self.configure(max_transactions, max_recipients)
        self._recipients = 0  # of the young generation, at most
        self._young: dict[str, Transaction] = {}
        self._old: dict[str, Transaction] = {}
        # Forgotten, but freed one by one as the young generation grows: all at once would take milliseconds.
        self._dead: dict[str, Transaction] = {}

    def configure(self, max_transactions: int, max_recipients: int) -> None:
        """Set the bounds; what exceeds them is forgotten as others come."""
        self._half = max(1, max_transactions // 2)
        self._half_recipients = max(1, max_recipients // 2)

    def find(self, instance: str) -> Transaction | None:
        """The transaction of an instance, if it was charged."""
        found = self._young.get(instance)
        if found is None and self._old:
            found = self._old.pop(instance, None)
            if found is not None:
                self._keep(instance, found)
                self._recipients += found.remembered
        return found

    def charge_recipient(self, instance: str, transaction: Transaction | None, recipient: str, admitted: bool) -> None:
        """Remember a charge made at RCPT and its answer; the transaction is what `find` has given."""
        if self._recipients >= self._half_recipients:
            self._make_room()
        if transaction is None:
            self._keep(instance, Transaction(1, admitted, True, recipient, admitted))
        else:
            if self._dead:
                self._dead.popitem()
            transaction.charge_recipient(recipient, admitted)
        self._recipients += 1

    def charge_message(self, instance: str, transaction: Transaction | None, recipients: int, admitted: bool) -> None:
        """Remember a charge made at DATA or END-OF-MESSAGE and its answer; the transaction is what `find` has given."""
        if transaction is None:
            self._keep(instance, Transaction(recipients, admitted, admitted))
        else:
            transaction.charge_message(recipients, admitted)

    def _keep(self, instance: str, transaction: Transaction) -> None:
        if len(self._young) >= self._half:
            self._make_room()
        if self._dead:
            self._dead.popitem()
        self._young[instance] = transaction

    def _make_room(self) -> None:
        self.forgotten += len(self._old)
        self.age()

    def age(self) -> None:
        """Forget what was not asked about since the last call: the bound in time."""
        self._dead = self._old
        self._old = self._young
        self._young = {}
        self._recipients = 0

    def __len__(self) -> int:
        return len(self._young) + len(self._old)
