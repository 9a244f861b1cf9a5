"""The decision on one request: its keys, what it is charged, whether every limit admits it.

Pure: counts and memo are given, time is an argument. What must be written to the journal before the reply, and what
must be logged after it, is in the verdict.
"""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from ratelimitd.core.action import DUNNO
from ratelimitd.core.counters import NEVER, Counter, Meter
from ratelimitd.core.limits import KeyFailed, Limit
from ratelimitd.core.memo import Memo, Transaction
from ratelimitd.core.pending import Pending
from ratelimitd.core.verdict import INSERT, OVER_QUOTA, UPDATE, WOULD_BLOCK, Charge, Tally, Verdict, Waiting
from ratelimitd.request import POLICY_REQUEST, Request
from ratelimitd.text import MAX_BYTES, shorten

AT_RECIPIENT = "RCPT"
AT_MESSAGE = ("DATA", "END-OF-MESSAGE")
COUNTED = frozenset((AT_RECIPIENT, *AT_MESSAGE))
MAX_RECIPIENTS = 1_000_000
"""No mail has more recipients; a forged count beyond it is charged as this many."""


class Rules(Struct, frozen=True):
    """What a configuration says about all limits together.

    `count_rejected`: what is refused is counted as well. `failure_reply`: the answer where a key plugin failed.
    `strict_below`: the share of a quota below which other nodes' charges must be read at once; 0: there are no others.
    """

    count_rejected: bool
    failure_reply: bytes
    strict_below: float


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


class Policy:
    """All limits, the counts and the memo. `decide`; and `decide_waiting` where that had to wait.

    `urgent` is set by a charge that leaves less than the share `strict_below` of a quota: what other nodes charged the
    account must be read at once. Who sees to that clears it.
    """

    def __init__(self, limits: Sequence[Limit], rules: Rules, pending: Pending, memo: Memo, watch: Watcher) -> None:
        self.pending = pending
        self.memo = memo
        self.tally = Tally()
        self.urgent = False
        self.meters: list[Meter] = []
        self._watch = watch
        self._look = watch.look
        self.configure(limits, rules)

    def configure(self, limits: Sequence[Limit], rules: Rules) -> None:
        """Decide by these limits from now on. A limit that was there before, by its name, keeps its accounts."""
        self._count_rejected = rules.count_rejected
        self._strict_below = rules.strict_below
        self.failure_reply = rules.failure_reply
        known = {meter.limit.name: meter for meter in self.meters}
        meters = []
        for limit in limits:
            meter = known.pop(limit.name, None) or Meter(limit)
            meter.configure(limit, watched=self._watch.watches(limit.name))
            meters.append(meter)
        for removed in known.values():  # what is not stored yet is still pending
            removed.forget()
        self.meters = meters

    def decide(self, request: Request, now: int) -> Verdict | Waiting:
        """The verdict at `now` (seconds since 1970), unless an account has to be looked up first."""
        if request.request != POLICY_REQUEST or request.protocol_state not in COUNTED:
            self.tally.other_states += 1
            return Verdict(DUNNO, request)
        counters: list[Counter] = []
        failed, all_known = False, True
        login = request.sasl_username
        for meter in self.meters:
            counter = meter.by_login.get(login)
            if counter is None or counter.expiry <= now or not counter.knowledge:
                try:
                    key = meter.limit.key_of(request)
                except KeyFailed as error:
                    meter.limit.health.failed(str(error))
                    failed = True
                    continue
                if key is None:
                    continue
                counter = meter.find(key, now)
                if counter is None:
                    all_known = False
                    counter = meter.stand_in(key)
                else:
                    meter.keep(login, counter)
            counters.append(counter)
        admitted = self.failure_reply if failed else DUNNO
        if not all_known:
            return Waiting(request, [(counter.meter, counter.key) for counter in counters], admitted)
        if not counters:
            if not failed:
                self.tally.skip(logged_in=request.login != "")
            return Verdict(admitted, request)
        return self._answer(request, counters, admitted)

    def decide_waiting(self, waiting: Waiting, now: int) -> Verdict:
        """The verdict after the lookup; accounts that are still not known are assumed to have used nothing."""
        counters = [meter.find(key, now) or meter.assume(key, now) for meter, key in waiting.keys]
        return self._answer(waiting.request, counters, waiting.admitted)

    def _answer(self, request: Request, counters: list[Counter], admitted: bytes) -> Verdict:
        """The verdict where these limits apply: what the memo knows, else a charge."""
        instance, recipient = request.instance, request.recipient
        if len(instance) > MAX_BYTES or len(recipient) > MAX_BYTES:
            instance, recipient = _bounded(instance), _bounded(recipient)
        transaction = self.memo.find(instance) if instance else None
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
        """Charge every limit and see whether one is exceeded; due 0: what was refused before is asked again."""
        messages = 1 if due and (transaction is None or not transaction.charged) else 0
        over = self._exceeded(counters, due, messages, transaction)
        refused = over is not None and over.meter.limit.enforce
        if not due:
            assert transaction is not None  # what is asked again was charged before
            transaction.answered(recipient, not refused)
            return Verdict(self._refusal(over) if over is not None and refused else admitted, request, refused)
        deciding = over or counters[0]
        status = OVER_QUOTA if refused else WOULD_BLOCK if over else INSERT if deciding.is_new else UPDATE
        charged = 0 if refused and not self._count_rejected else due
        charge = None
        if charged:
            self._count(counters, charged, messages)
            if instance and recipient is None:
                self.memo.charge_message(instance, transaction, charged, not refused)
            elif instance:
                self.memo.charge_recipient(instance, transaction, recipient or "", not refused)
            charge = Charge(instance, recipient, charged, refused, counters, messages)
        decisions = deciding.meter.decisions
        decisions[status] = decisions.get(status, 0) + 1
        reply = self._refusal(deciding) if refused else admitted
        return Verdict(reply, request, refused, status, due, charged, deciding, deciding.used, charge)

    def _count(self, counters: list[Counter], charged: int, messages: int) -> None:
        """Charge every limit, and have the Watcher look at accounts that reach their `notice_at` by it."""
        deltas, strict_below = self.pending.open.deltas, self._strict_below
        for counter in counters:
            amount = messages if counter.meter.limit.by_message else charged
            if not amount:
                continue
            counter.used += amount
            deltas[counter] = deltas.get(counter, 0) + amount
            if counter.is_new:
                counter.is_new = False
            if counter.used >= counter.notice_at:
                self._look(counter, False)
            if strict_below:
                left = counter.quota - counter.used
                # A quota that was used up before this charge is refused here, whatever other nodes charged.
                if -amount < left < counter.quota * strict_below + 1:
                    self.urgent = True

    def _exceeded(
        self, counters: list[Counter], due: int, messages: int, transaction: Transaction | None
    ) -> Counter | None:
        """The first enforced limit that these charges exceed, else the first that is not enforced."""
        not_enforced: Counter | None = None
        for counter in counters:
            if not counter.quota or counter.used + due <= counter.quota:
                continue
            limit = counter.meter.limit
            if limit.by_message:
                if transaction is not None and transaction.admitted:  # a message that was admitted stays admitted
                    continue
                if counter.used + messages <= counter.quota:
                    continue
            if limit.enforce:
                return counter
            not_enforced = not_enforced or counter
        return not_enforced

    def taken_over(self, counter: Counter, now: int) -> None:
        """Have the Watcher look at an account whose use was read from the store."""
        if counter.used >= counter.notice_at and counter.expiry > now:
            self._look(counter, False)

    def _refusal(self, counter: Counter) -> bytes:
        if counter.notice_at < NEVER:
            self._look(counter, True)
        return counter.meter.limit.refusal(counter.key, counter.used, counter.quota, counter.expiry)


def _bounded(text: str) -> str:
    """What memo and journal keep of a text that a client sent."""
    return text if len(text) <= MAX_BYTES else shorten(text)


def _recipient_count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        return 0
    digits = text.lstrip("0")
    return min(int(digits or 0), MAX_RECIPIENTS) if len(digits) < 10 else MAX_RECIPIENTS
