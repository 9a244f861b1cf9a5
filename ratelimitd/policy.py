"""The decision on one request: its keys, what it is charged, whether every limit admits it.

Pure: counts and memo are given, time is an argument. What must be written to the journal before the reply, and what
is to be logged after it, are in the verdict.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ratelimitd.action import DUNNO
from ratelimitd.charges import Charges, Transaction
from ratelimitd.counters import NEVER, Counter, Pending, Table
from ratelimitd.keys import MAX_BYTES, shorten
from ratelimitd.plugins import KeyFailed
from ratelimitd.request import POLICY_REQUEST, Request
from ratelimitd.tally import Tally

AT_RECIPIENT = "RCPT"
AT_MESSAGE = ("DATA", "END-OF-MESSAGE")
COUNTED = frozenset((AT_RECIPIENT, *AT_MESSAGE))
MAX_RECIPIENTS = 1_000_000
"""No mail has more recipients; a forged count beyond it is taken for this many."""

INSERT = "INSERT"
UPDATE = "UPDATE"
OVER_QUOTA = "OVER_QUOTA"
WOULD_BLOCK = "WOULD_BLOCK"
"""Over the quota of a limit that is not enforced."""

Keys = list[tuple[Table, str]]
"""The limits that apply to a request, in the order of the configuration, and its normalised key under each; "" is
the key of a plugin that failed."""


@dataclass(slots=True)
class Verdict:
    """The answer to a request; where it asked for nothing new, `status` is "" and there is nothing to log.

    `counter` is the limit that decided: the one that refused, else the first that applied; `used` its count after
    this request. `record` is the journal's line, "" where nothing was charged.
    """

    reply: bytes
    request: Request
    refused: bool = False
    status: str = ""
    recipients: int = 0
    charged: int = 0
    counter: Counter | None = None
    used: int = 0
    record: str = ""


class Policy:
    """All limits, the counts and the memo; `keys`, then `missing`, then `decide`.

    `urgent` is set by a charge that leaves less than the share `strict_below` of a quota: what other nodes charged for
    the account is to be known at once. Whoever obeys it clears it.
    """

    def __init__(
        self,
        tables: Sequence[Table],
        pending: Pending,
        charges: Charges,
        *,
        count_rejected: bool = True,
        failure_reply: bytes = DUNNO,
        strict_below: float = 0.0,
    ) -> None:
        self.tables: list[Table] = []
        self.adopt(tables)
        self.pending = pending
        self.charges = charges
        self.count_rejected = count_rejected
        self.failure_reply = failure_reply
        self.look: Callable[[Counter, bool], None] = _look_away  # called where a counter's notice_at is reached
        self.tally = Tally()
        self.strict_below = strict_below
        self.urgent = False

    def adopt(self, tables: Sequence[Table]) -> None:
        """Decide by these limits from now on; also to be called where one of them was changed."""
        for removed in set(self.tables).difference(tables):
            removed.counters = {}  # they and the table hold each other, and the garbage collector does not see it
        self.tables = list(tables)
        # Mostly every limit counts recipients and is enforced; then there is less to look at.
        self._all_alike = all(table.limit.enforce and not table.limit.by_message for table in tables)

    def keys(self, request: Request) -> Keys:
        """Which limits apply, and the key under each; empty: DUNNO, nothing to count."""
        asked = request.essentials
        if asked.request != POLICY_REQUEST or asked.protocol_state not in COUNTED:
            self.tally.other_states += 1
            return []
        keys: Keys = []
        for table in self.tables:
            try:
                key = table.limit.key_of(request)
            except KeyFailed as error:
                table.limit.health.failed(str(error))
                key = ""
            if key is not None:
                keys.append((table, key))
        if not keys:
            self.tally.skip(logged_in=request.login != "")
        return keys

    def missing(self, keys: Keys, now: int) -> Keys:
        """Those of the keys whose account is to be looked up in the store first."""
        return [(table, key) for table, key in keys if key and table.find(key, now) is None]

    def decide(self, request: Request, keys: Keys, now: int) -> Verdict | None:
        """The verdict, or None where an account has to be looked up first."""
        counters: list[Counter] = []
        admitted = DUNNO
        for table, key in keys:
            if key:
                counter = table.counters.get(key)
                if counter is None or counter.expiry <= now or not counter.knowledge:
                    counter = table.find(key, now)
                    if counter is None:
                        return None
                counters.append(counter)
            else:
                admitted = self.failure_reply
        if not counters:
            return Verdict(admitted, request)
        asked = request.essentials
        instance, recipient = asked.instance, asked.recipient
        if len(instance) > MAX_BYTES or len(recipient) > MAX_BYTES:
            instance, recipient = _bounded(instance), _bounded(recipient)
        transaction = self.charges.find(instance) if instance else None
        at_recipient = asked.protocol_state == AT_RECIPIENT
        if at_recipient:
            before = None if transaction is None else transaction.recipients.get(recipient)
            due, answered = int(before is None), bool(before)
        else:
            count = _recipient_count(asked.recipient_count)
            due = count if transaction is None else transaction.due_for_message(count)
            answered = transaction is None or transaction.message_admitted
        if answered and not due:  # what was admitted stays admitted
            return Verdict(admitted, request)
        return self._charge(
            request, counters, instance, recipient if at_recipient else None, due, admitted, transaction
        )

    def _charge(
        self,
        request: Request,
        counters: list[Counter],
        instance: str,
        recipient: str | None,
        due: int,
        admitted: bytes,
        transaction: Transaction | None,
    ) -> Verdict:
        """Charge every limit and see whether one is exceeded; due 0 asks again about what was refused before."""
        messages = int(due > 0 and (transaction is None or not transaction.charged))
        over = self._exceeded(counters, due, messages, transaction)
        refused = over is not None and over.table.limit.enforce
        if not due:
            assert transaction is not None  # what is asked again was charged before
            transaction.answered(recipient, not refused)
            return Verdict(self._refusal(over) if over is not None and refused else admitted, request, refused)
        deciding = over or counters[0]
        status = OVER_QUOTA if refused else WOULD_BLOCK if over else INSERT if deciding.is_new else UPDATE
        charged = 0 if refused and not self.count_rejected else due
        record = ""
        if charged:
            self._count(counters, charged, messages)
            record = self._remember(instance, recipient, charged, refused, transaction)
            record += _accounts(counters) if self._all_alike else _mixed_accounts(counters, charged, messages)
        decisions = deciding.table.decisions
        decisions[status] = decisions.get(status, 0) + 1
        reply = self._refusal(deciding) if refused else admitted
        return Verdict(reply, request, refused, status, due, charged, deciding, deciding.used, record)

    def _count(self, counters: list[Counter], charged: int, messages: int) -> None:
        """Charge every limit, and look at what is reached by it."""
        alike, charge, strict_below = self._all_alike, self.pending.charge, self.strict_below
        for counter in counters:
            amount = charged if alike or not counter.table.limit.by_message else messages
            if not amount:
                continue
            charge(counter, amount)
            counter.is_new = False
            if counter.used >= counter.notice_at:
                self.look(counter, False)
            left = counter.quota - counter.used
            # What was used up before this charge is refused here whatever other nodes charged.
            if left < counter.quota * strict_below + 1 and left > -amount and strict_below:
                self.urgent = True

    def _exceeded(
        self, counters: list[Counter], due: int, messages: int, transaction: Transaction | None
    ) -> Counter | None:
        """The first enforced limit that these charges exceed, else the first that is not enforced."""
        if self._all_alike:
            for counter in counters:
                if counter.quota and counter.used + due > counter.quota:
                    return counter
            return None
        in_admitted = transaction is not None and transaction.admitted
        not_enforced: Counter | None = None
        for counter in counters:
            limit = counter.table.limit
            if limit.by_message and in_admitted:  # the message was admitted: so are its other recipients
                continue
            if counter.quota and counter.used + (messages if limit.by_message else due) > counter.quota:
                if limit.enforce:
                    return counter
                not_enforced = not_enforced or counter
        return not_enforced

    def _remember(
        self,
        instance: str,
        recipient: str | None,
        charged: int,
        refused: bool,
        transaction: Transaction | None,
    ) -> str:
        """Put a charge into the memo; the journal's record of it, but for the accounts."""
        if instance:
            if transaction is None:
                transaction = self.charges.begin(instance)
            if recipient is None:
                transaction.charge_message(charged, not refused)
            else:
                self.charges.charge_recipient(transaction, recipient, not refused)
        kind = ("d" if refused else "D") if recipient is None else ("r" if refused else "R")
        return f"{kind}{instance}\0{recipient or ''}\0{charged}"

    def _refusal(self, counter: Counter) -> bytes:
        if counter.notice_at < NEVER:
            self.look(counter, True)
        return counter.table.limit.refusal(counter.key, counter.used, counter.quota, counter.expiry)


def _accounts(counters: list[Counter]) -> str:
    return "".join([counter.table.window(counter.expiry) + counter.key for counter in counters]) + "\n"


def _mixed_accounts(counters: list[Counter], charged: int, messages: int) -> str:
    """The accounts of a record, and a record of its own for each that was charged another number than it says."""
    same = [c for c in counters if not c.table.limit.by_message or messages == charged]
    other = [c for c in counters if c.table.limit.by_message and messages not in (0, charged)]
    return _accounts(same) + "".join([f"T\0\0{messages}{c.table.window(c.expiry)}{c.key}\n" for c in other])


def _look_away(counter: Counter, refused: bool) -> None:
    pass


def _bounded(text: str) -> str:
    """What memo and journal keep of what a client sent."""
    return text if len(text) <= MAX_BYTES else shorten(text)


def _recipient_count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        return 0
    digits = text.lstrip("0")
    return min(int(digits or 0), MAX_RECIPIENTS) if len(digits) < 10 else MAX_RECIPIENTS
