"""The decision on one request: its keys, what it is charged, whether every limit admits it.

Pure: counts and memo are given, time is an argument. What must be written to the journal before the reply, and what
is to be logged after it, are in the verdict.
"""

from collections.abc import Callable, Sequence
from typing import final

from msgspec import Struct

from ratelimitd.core.action import DUNNO
from ratelimitd.core.counters import NEVER, Counter, Pending, Table
from ratelimitd.core.memo import Charges, Transaction
from ratelimitd.core.tally import Tally
from ratelimitd.keys import MAX_BYTES, shorten
from ratelimitd.plugins import KeyFailed
from ratelimitd.request import POLICY_REQUEST, Request

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


class Verdict(Struct, eq=False, gc=False):
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


@final
class Waiting(Struct, eq=False, gc=False):
    """A request that cannot be decided before accounts have been looked up in the store.

    `keys`: the limits that apply, in the order of the configuration, and the key under each: a plugin is called once
    for a request. `admitted` is the reply unless a limit refuses.
    """

    request: Request
    keys: list[tuple[Table, str]]
    admitted: bytes

    def missing(self, now: int) -> list[tuple[Table, str]]:
        """Those of the keys whose account is to be looked up."""
        return [(table, key) for table, key in self.keys if table.find(key, now) is None]


class Policy:
    """All limits, the counts and the memo. `decide`; and `decide_waiting` where that had to wait.

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
        for table in {*self.tables, *tables}:
            table.by_login = {}
            if table not in tables:  # they and the table hold each other, and the garbage collector does not see it
                table.counters = {}
        self.tables = list(tables)

    def decide(self, request: Request, now: int) -> Verdict | Waiting:
        """The verdict, unless an account has to be looked up first."""
        if request.request != POLICY_REQUEST or request.protocol_state not in COUNTED:
            self.tally.other_states += 1
            return Verdict(DUNNO, request)
        counters: list[Counter] = []
        failed, all_known = False, True
        login = request.sasl_username
        for table in self.tables:
            counter = table.by_login.get(login)
            if counter is None or counter.expiry <= now or not counter.knowledge:
                try:
                    key = table.limit.key_of(request)
                except KeyFailed as error:
                    table.limit.health.failed(str(error))
                    failed = True
                    continue
                if key is None:
                    continue
                counter = table.find(key, now)
                if counter is None:
                    all_known = False
                    counter = table.stand_in(key)
                else:
                    table.keep(login, counter)
            counters.append(counter)
        admitted = self.failure_reply if failed else DUNNO
        if not all_known:
            return Waiting(request, [(counter.table, counter.key) for counter in counters], admitted)
        if not counters:
            if not failed:
                self.tally.skip(logged_in=request.login != "")
            return Verdict(admitted, request)
        return self._answer(request, counters, admitted)

    def decide_waiting(self, waiting: Waiting, now: int) -> Verdict:
        """The verdict at last; accounts that are still not known are assumed."""
        counters = [table.find(key, now) or table.assume(key, now) for table, key in waiting.keys]
        return self._answer(waiting.request, counters, waiting.admitted)

    def _answer(self, request: Request, counters: list[Counter], admitted: bytes) -> Verdict:
        """The verdict where these limits apply: what the memo knows, else a charge."""
        instance, recipient = request.instance, request.recipient
        if len(instance) > MAX_BYTES or len(recipient) > MAX_BYTES:
            instance, recipient = _bounded(instance), _bounded(recipient)
        transaction = self.charges.find(instance) if instance else None
        if request.protocol_state == AT_RECIPIENT:
            at = recipient
            before = None if transaction is None else transaction.answer(recipient)
            due, answered = 1 if before is None else 0, before
        else:
            at = None
            count = _recipient_count(request.recipient_count)
            due = count if transaction is None else transaction.due_for_message(count)
            answered = transaction is None or transaction.message_admitted
        if answered and not due:  # what was admitted stays admitted
            return Verdict(admitted, request)
        return self._charge(request, counters, instance, at, due, admitted, transaction)

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
        messages = 1 if due and (transaction is None or not transaction.charged) else 0
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
            accounts = self._count(counters, charged, messages)
            if instance and recipient is None:
                self.charges.charge_message(instance, transaction, charged, not refused)
            elif instance:
                self.charges.charge_recipient(instance, transaction, recipient or "", not refused)
            kind = ("d" if refused else "D") if recipient is None else ("r" if refused else "R")
            record = f"{kind}{instance}\0{recipient or ''}\0{charged}{accounts}"
        decisions = deciding.table.decisions
        decisions[status] = decisions.get(status, 0) + 1
        reply = self._refusal(deciding) if refused else admitted
        return Verdict(reply, request, refused, status, due, charged, deciding, deciding.used, record)

    def _count(self, counters: list[Counter], charged: int, messages: int) -> str:
        """Charge every limit, and look at what is reached by it; the accounts as the end of the journal's record.

        What is charged another number than that record says has a record of its own behind it.
        """
        deltas, strict_below = self.pending.open.deltas, self.strict_below
        accounts = others = ""
        for counter in counters:
            table = counter.table
            amount = messages if table.limit.by_message else charged
            if not amount:
                continue
            counter.used += amount
            deltas[counter] = deltas.get(counter, 0) + amount
            window = table.window if counter.expiry == table.window_end else table.window_of(counter.expiry)
            if amount == charged:
                accounts = f"{accounts}{window}{counter.key}"
            else:
                others += f"T\0\0{amount}{window}{counter.key}\n"
            if counter.is_new:
                counter.is_new = False
            if counter.used >= counter.notice_at:
                self.look(counter, False)
            if strict_below:
                left = counter.quota - counter.used
                # What was used up before this charge is refused here whatever other nodes charged.
                if -amount < left < counter.quota * strict_below + 1:
                    self.urgent = True
        return f"{accounts}\n{others}"

    def _exceeded(
        self, counters: list[Counter], due: int, messages: int, transaction: Transaction | None
    ) -> Counter | None:
        """The first enforced limit that these charges exceed, else the first that is not enforced."""
        not_enforced: Counter | None = None
        for counter in counters:
            if not counter.quota or counter.used + due <= counter.quota:
                continue
            limit = counter.table.limit
            if limit.by_message:
                if transaction is not None and transaction.admitted:  # the message was: so are its other recipients
                    continue
                if counter.used + messages <= counter.quota:
                    continue
            if limit.enforce:
                return counter
            not_enforced = not_enforced or counter
        return not_enforced

    def _refusal(self, counter: Counter) -> bytes:
        if counter.notice_at < NEVER:
            self.look(counter, True)
        return counter.table.limit.refusal(counter.key, counter.used, counter.quota, counter.expiry)


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
