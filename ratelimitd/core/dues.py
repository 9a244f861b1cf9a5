"""Limits that do not count every recipient once: what they are due. Policy asks here only where some are configured.

There are limits that count messages (`count = "messages"`), limits that some recipients cost nothing
(`free_recipients`), and limits of one message (`period = "message"`), whose counters are made for one request. What a
counter was charged is Policy's to keep.
"""

from collections.abc import Sequence

from ratelimitd.core.counters import Counter, Meter, Window
from ratelimitd.core.limits import Limit
from ratelimitd.core.memo import Transaction, message_of
from ratelimitd.core.parts import NEVER
from ratelimitd.request import Request, recipient_count


class MessageMeter(Meter):
    """The meter of a limit of one message: it keeps no account, asks no store, and nobody watches it."""

    def configure(self, limit: Limit, notice_percent: int = NEVER) -> None:
        """Apply this limit from now on."""
        super().configure(limit)

    def find(self, key: str, now: int) -> Counter:
        """A counter for one request; `begin` sets what its transaction has used."""
        return Counter(self, key, 0, self.limit.configured_quota(key))

    def keep(self, login: str, counter: Counter) -> None:
        """Do nothing: a counter is for one request."""


def is_plain(limit: Limit) -> bool:
    """Whether a limit counts every recipient once: nothing here is for it."""
    return not (limit.by_message or limit.of_message or limit.free)


def begin(counters: Sequence[Counter], transaction: Transaction | None) -> None:
    """Set what counters of limits of one message have used: what their transaction has spent."""
    spent = transaction.spent if transaction is not None else None
    if spent:
        for counter in counters:
            if counter.limit.of_message:
                counter.used = spent.get(counter.window, 0)


def counting(counters: list[Counter], request: Request, at: str | None) -> list[Counter]:
    """Those of the counters that the request's recipient is not free for. `at` is None at DATA and END-OF-MESSAGE,
    where Postfix names a recipient if there is only one."""
    recipient = at if at is not None else request.recipient if recipient_count(request.recipient_count) == 1 else ""
    return [counter for counter in counters if recipient not in counter.limit.free] if recipient else counters


def first_dues(counters: Sequence[Counter], due: int, transaction: Transaction | None) -> list[int]:
    """What each is due where nothing was refused before: one that counts messages 1, for the first it counts of it."""
    has_counted = None if transaction is None else transaction.has_counted
    return [
        due if not counter.limit.by_message else 0 if has_counted is not None and has_counted(counter) else 1
        for counter in counters
    ]


def messages_of(counters: Sequence[Counter], transaction: Transaction | None) -> list[Window]:
    """What the memo is to know of limits that count messages, and count this one now for the first time."""
    return [
        message_of(counter)
        for counter in counters
        if counter.limit.by_message and not (transaction is not None and transaction.has_counted(counter))
    ]


def spend(counters: Sequence[Counter], amounts: Sequence[int]) -> list[int]:
    """Charge counters of limits of one message; what is left to be charged to the others."""
    kept = []
    for counter, amount in zip(counters, amounts, strict=True):
        if counter.limit.of_message:
            counter.used += amount
            kept.append(0)
        else:
            kept.append(amount)
    return kept


def not_counted(
    charges: list[tuple[Counter, int]], transaction: Transaction | None, recipient: str | None, now: int
) -> list[tuple[Counter, int]]:
    """What a refusal charges of these: under a sliding limit, less what was charged for the same refusal before, in
    another part, and still counts."""
    found = []
    for counter, due in charges:
        left = due
        if transaction is not None and transaction.refused is not None and counter.parts is not None:
            left = max(0, due - transaction.counting(counter, recipient, now))
        if left:
            found.append((counter, left))
    return found


def exceeded(
    counters: list[Counter], dues: list[int], owed: list[int], transaction: Transaction | None
) -> tuple[list[tuple[Counter, int]] | None, Counter | None]:
    """The enforced limits that these dues exceed, each with what it is owed, and the first that is not enforced.

    A limit that has counted a message admits all of it.
    """
    refusing: list[tuple[Counter, int]] | None = None
    trial: Counter | None = None
    for counter, due, more in zip(counters, dues, owed):  # noqa: B905  strict takes longer
        quota = counter.quota
        if not quota or counter.used + due <= quota:
            continue
        limit = counter.meter.limit
        if limit.by_message and transaction is not None and transaction.has_counted(counter):
            continue
        if not limit.enforce:
            trial = trial or counter
        elif refusing is None:
            refusing = [(counter, more)]
        else:
            refusing.append((counter, more))
    return refusing, trial
