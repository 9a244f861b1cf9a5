"""What has been charged already, by SMTP transaction: the memo behind "exactly once".

`instance` names one transaction (SMTPD_POLICY_README: "a unique identifier that can be used to correlate different
requests for one mail transaction"). Postfix asks once per recipient and restriction list, and again after any
failure; recipient_count is 0 at RCPT and the accepted recipients at DATA and END-OF-MESSAGE. Here a transaction's key
is its instance and its login: what one login was charged is not another's.

- What was admitted stays admitted, in whatever window it is asked again: every limit was charged for it, once.
- A refusal was charged to the limits that refused, and to no other; it is remembered by the windows that it was charged
  to: a limit, the window's end, a key.

So a counter was charged `charged` recipients for what was admitted, and `refused[window]` more. Asked again, it is due
what it lacks: nothing where it refused in this same window, all where it did not, or where its window is another one
(`dues`). Where what was refused is admitted, it moves from `refused` to `charged`.

That holds while the counts have what was charged to them. A count may lose it within its window: it is reset, or it
cannot be read after a restart. `epoch` tells which: a transaction of another epoch is charged for its refusals no more,
but what it is admitted is charged in full.

Under a sliding limit the windows are parts. What was refused is charged to the part in which it is admitted, or it
would leave too early; refused again, it is not charged again as long as the first charge counts (`counting`).

A recipient that a limit does not count (`free_recipients`) is among the `charged` as any other: it is not due again at
DATA. What a limit of one message (`period = "message"`) has counted stands here alone, in `spent`; and there stands
which limits that count messages (`count = "messages"`) have counted this one, under which key: a recipient may have
another, or none.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

from msgspec import Struct

from ratelimitd.core.counters import Counter, Window

EARLIER_RUN = -1
"""The epoch of transactions that an earlier run has left: nobody knows what became of its counts meanwhile."""
MAX_REMEMBERED = 1000
"""Recipients of one transaction whose answers are kept, the latest: Postfix's own smtpd_recipient_limit is 1,000, and
it asks all questions about one recipient together. So many windows, too, that refusals were charged to."""

Answer = Literal[True] | tuple[Window, ...]
"""To a recipient: admitted, or refused and charged to these windows."""


def message_of(counter: Counter) -> Window:
    """By what a transaction is known to have been counted, where the limit counts messages: no window ends it."""
    return counter.meter.limit.name, 0, counter.key


class Transaction(Struct, eq=False, gc=False):
    """One instance and login: how many recipients were admitted, the answers at RCPT, and the charges for refusals.

    The latest recipient has fields of its own: most transactions have one only, and a dict takes as much memory as all
    the rest. The garbage collector does not track these (gc=False): there are many, and they hold nothing but strings
    and numbers.
    """

    charged: int = 0  # recipients that were admitted
    recipient: str | None = None  # the latest that was answered at RCPT
    its_answer: Answer = True
    earlier: dict[str, Answer] | None = None
    refused: dict[Window, int] | None = None  # what was charged for refusals alone
    epoch: int = EARLIER_RUN  # of the first refusal
    spent: dict[Window, int] | None = None  # by limits of one message, or that count messages; these windows end at 0

    @property
    def remembered(self) -> int:
        """Recipients whose answers are kept."""
        return (self.recipient is not None) + (len(self.earlier) if self.earlier else 0)

    def answer(self, recipient: str) -> Answer | None:
        """What a recipient was answered; None where it was not asked about."""
        if recipient == self.recipient:
            return self.its_answer
        return self.earlier.get(recipient) if self.earlier else None

    def dues(
        self, counters: Sequence[Counter], recipient: str | None, recipients: int, epoch: int
    ) -> tuple[list[int], list[int]]:
        """What each counter lacks for a recipient that was not admitted, or for so many more at DATA; and what it is
        charged where they are admitted: as much, but all of it in another epoch than that of the refusals."""
        before = self.answer(recipient) if recipient is not None else None
        refused = self.refused or {}
        owed: list[int] = []
        in_full: list[int] = []
        for counter in counters:
            window = counter.window
            already = refused.get(window, 0)
            due = recipients if not counter.limit.by_message else 0 if self.has_counted(counter) else 1
            in_full.append(due)
            if recipient is not None and not counter.limit.by_message:
                already = 1 if already and before and before is not True and window in before else 0
            owed.append(max(0, due - already))
        return owed, owed if epoch == self.epoch else in_full

    def has_counted(self, counter: Counter) -> bool:
        """Whether a limit that counts messages has counted this one."""
        return self.spent is not None and message_of(counter) in self.spent

    def counting(self, counter: Counter, recipient: str | None, now: int) -> int:
        """What was charged for this refusal to other parts of a sliding limit's window, and has not left at `now`."""
        before = self.refused or {} if recipient is None else self.answer(recipient)
        if not before or before is True:
            return 0
        limit, own, key = counter.window
        of_account = [window for window in before if (window[0], window[2]) == (limit, key)]
        others = [window for window in of_account if window[1] != own and window[1] > now]
        if counter.limit.by_message or recipient is not None:
            return min(1, len(others))
        return sum(self.refused[window] for window in others if self.refused is not None)

    def admit_recipient(self, recipient: str) -> int:
        """Remember that a recipient was admitted at RCPT; 1 if it was not remembered before."""
        if self.refused:
            before = self.answer(recipient)
            for window in () if before is None or before is True else before:
                self._take_back(window, 1)
        self.charged += 1
        return self._remember(recipient, True)

    def admit_message(self, recipients: int) -> None:
        """Remember that so many more were admitted at DATA or END-OF-MESSAGE."""
        self.charged += recipients
        for window in [*self.refused] if self.refused else ():
            self._take_back(window, recipients)

    def refuse_recipient(self, recipient: str, windows: tuple[Window, ...]) -> int:
        """Remember that a recipient was refused at RCPT, and charged to these windows; 1 if it was not remembered."""
        self.refuse_message(windows, 1)
        before = self.answer(recipient)
        if before and before is not True:
            limits = {window[0] for window in windows}
            windows = (*[window for window in before if window[0] not in limits], *windows)
        if windows == self.its_answer:  # as a rule; then it is kept once
            windows = self.its_answer
        return self._remember(recipient, windows)

    def refuse_message(self, windows: Iterable[Window], recipients: int) -> None:
        """Remember that a message was refused, and that these windows were charged so many recipients each."""
        refused = self.refused
        for window in windows:
            if refused is None:
                refused = self.refused = {}
            elif len(refused) >= MAX_REMEMBERED and window not in refused:
                del refused[next(iter(refused))]
            refused[window] = refused.get(window, 0) + recipients

    def spend(self, windows: Iterable[Window], recipients: int) -> None:
        """Remember that so many were admitted under these limits of one message, or that these count messages."""
        spent = self.spent
        for window in windows:
            if spent is None:
                spent = self.spent = {}
            elif len(spent) >= MAX_REMEMBERED and window not in spent:
                del spent[next(iter(spent))]
            spent[window] = spent.get(window, 0) + recipients

    def _take_back(self, window: Window, recipients: int) -> None:
        """Count charges for refusals no more as such: they are an admission's now."""
        assert self.refused is not None
        left = self.refused.pop(window, 0) - recipients
        if left > 0:
            self.refused[window] = left

    def _remember(self, recipient: str, answer: Answer) -> int:
        if recipient == self.recipient:
            self.its_answer = answer
            return 0
        if self.earlier is not None and recipient in self.earlier:
            self.earlier[recipient] = answer
            return 0
        if self.recipient is not None:
            if self.earlier is None:
                self.earlier = {}
            elif len(self.earlier) >= MAX_REMEMBERED - 1:
                del self.earlier[next(iter(self.earlier))]
            self.earlier[self.recipient] = self.its_answer
        self.recipient, self.its_answer = recipient, answer
        return 1


class Memo:
    """Recent transactions, bounded: two generations, each of at most half of `max_transactions` and of
    `max_recipients`.

    A transaction that is asked about moves to the young generation; when that is full, or `age` is called, the old
    one is forgotten. So a transaction is remembered until at least half a bound's worth of others came after it.
    `forgotten` counts those that were forgotten because of a bound.
    """

    def __init__(self, max_transactions: int, max_recipients: int) -> None:
        self.forgotten = 0
        self.epoch = EARLIER_RUN
        self.configure(max_transactions, max_recipients)
        self._recipients = 0  # of the young generation, at most
        self._young: dict[str, Transaction] = {}
        self._old: dict[str, Transaction] = {}
        # Forgotten, but freed one by one as the young generation grows: all at once would take milliseconds.
        self._dead: dict[str, Transaction] = {}

    def configure(self, max_transactions: int, max_recipients: int) -> None:
        """Set the bounds; what exceeds them is forgotten as others come."""
        self.max_transactions = max_transactions
        self._half = max(1, max_transactions // 2)
        self._half_recipients = max(1, max_recipients // 2)

    def find(self, key: str) -> Transaction | None:
        """The transaction of an instance and a login, if it was charged."""
        found = self._young.get(key)
        if found is None and self._old:
            found = self._old.pop(key, None)
            if found is not None:
                self._keep(key, found)
                self._recipients += found.remembered
        return found

    def admit(self, key: str, transaction: Transaction | None, recipient: str | None, recipients: int) -> None:
        """Remember an admission, with `recipient` None at DATA and END-OF-MESSAGE.

        The transaction is what `find` has given; `recipients`: how many are admitted that were not before.
        """
        if recipient is None:
            if transaction is None:
                self._keep(key, Transaction(recipients))
            else:
                transaction.admit_message(recipients)
            return
        if self._recipients >= self._half_recipients:
            self._make_room()
        if transaction is None:
            self._keep(key, Transaction(1, recipient))
            self._recipients += 1
        else:
            if self._dead:
                self._dead.popitem()
            self._recipients += transaction.admit_recipient(recipient)

    def spend(self, key: str, windows: Sequence[Window], recipients: int) -> None:
        """Remember what such limits count of an admission, after `admit`."""
        transaction = self.find(key) if windows else None
        if transaction is not None:
            transaction.spend(windows, recipients)

    def refuse(
        self, key: str, transaction: Transaction | None, recipient: str | None, windows: tuple[Window, ...],
        recipients: int,
    ) -> Transaction:  # fmt: skip
        """Remember a refusal, and that each of these windows was charged so many recipients; the transaction."""
        if self._recipients >= self._half_recipients:
            self._make_room()
        if transaction is None:
            transaction = Transaction()
            self._keep(key, transaction)
        if transaction.refused is None:
            transaction.epoch = self.epoch
        if recipient is None:
            transaction.refuse_message(windows, recipients)
        else:
            self._recipients += transaction.refuse_recipient(recipient, windows)
        return transaction

    def _keep(self, key: str, transaction: Transaction) -> None:
        if len(self._young) >= self._half:
            self._make_room()
        if self._dead:
            self._dead.popitem()
        self._young[key] = transaction

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
