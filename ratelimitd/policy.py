"""The decision on one request: its keys, what it is charged, whether every limit admits it.

Pure: counts and memo are given, time is an argument. What must be written to the journal before the reply, and what
is to be logged after it, are in the verdict.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ratelimitd.action import DUNNO
from ratelimitd.charges import Charges, Transaction
from ratelimitd.counters import Counter, Pending, Table
from ratelimitd.plugins import KeyFailed
from ratelimitd.request import POLICY_REQUEST, Request

AT_RECIPIENT = "RCPT"
AT_MESSAGE = ("DATA", "END-OF-MESSAGE")
MAX_RECIPIENTS = 1_000_000
"""No mail has more recipients; a forged count beyond it is taken for this many."""

INSERT = "INSERT"
UPDATE = "UPDATE"
OVER_QUOTA = "OVER_QUOTA"

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
    """All limits, the counts and the memo; `keys`, then `missing`, then `decide`."""

    def __init__(
        self,
        tables: Sequence[Table],
        pending: Pending,
        charges: Charges,
        *,
        count_rejected: bool = True,
        failure_reply: bytes = DUNNO,
    ) -> None:
        self.tables = list(tables)
        self.pending = pending
        self.charges = charges
        self.count_rejected = count_rejected
        self.failure_reply = failure_reply
        self.key_failures: list[str] = []  # since they were last taken, for the log

    def keys(self, request: Request) -> Keys:
        """Which limits apply, and the key under each; empty: DUNNO, nothing to count."""
        if request["request"] != POLICY_REQUEST or not _counts(request["protocol_state"]):
            return []
        return [(table, key) for table in self.tables if (key := self._key(table, request)) is not None]

    def _key(self, table: Table, request: Request) -> str | None:
        try:
            return table.limit.key_of(request)
        except KeyFailed as error:
            self.key_failures.append(f"limit {table.limit.name}: {error}")
            return ""

    def missing(self, keys: Keys, now: int) -> Keys:
        """Those of the keys whose account is to be looked up in the store first."""
        return [(table, key) for table, key in keys if key and table.find(key, now) is None]

    def decide(self, request: Request, keys: Keys, now: int) -> Verdict | None:
        """The verdict, or None where an account has to be looked up first."""
        counters: list[Counter] = []
        admitted = DUNNO
        for table, key in keys:
            if not key:
                admitted = self.failure_reply
                continue
            counter = table.find(key, now)
            if counter is None:
                return None
            counters.append(counter)
        if not counters:
            return Verdict(admitted, request)
        instance = request["instance"]
        transaction = self.charges.find(instance) if instance else None
        if request["protocol_state"] == AT_RECIPIENT:
            verdict = self._at_recipient(request, counters, instance, transaction)
        else:
            verdict = self._at_message(request, counters, instance, transaction)
        if not verdict.refused:
            verdict.reply = admitted
        return verdict

    def _at_recipient(
        self, request: Request, counters: list[Counter], instance: str, transaction: Transaction | None
    ) -> Verdict:
        recipient = request["recipient"]
        before = None if transaction is None else transaction.recipients.get(recipient)
        if before:  # one already admitted stays admitted
            return Verdict(DUNNO, request)
        verdict = self._charge(request, counters, 1 if before is None else 0)
        admitted = not verdict.refused
        if transaction is not None and before is not None:
            transaction.recipients[recipient] = admitted
        if verdict.charged:
            if instance:
                transaction = transaction or self.charges.begin(instance)
                transaction.charge_recipient(recipient, admitted)
            verdict.record = f"{'R' if admitted else 'r'}{instance}\0{recipient}\0001{_fields(counters)}\n"
        return verdict

    def _at_message(
        self, request: Request, counters: list[Counter], instance: str, transaction: Transaction | None
    ) -> Verdict:
        count = _recipient_count(request)
        due = count if transaction is None else transaction.due_for_message(count)
        if due == 0 and (transaction is None or transaction.message_admitted):
            return Verdict(DUNNO, request)
        verdict = self._charge(request, counters, due)
        admitted = not verdict.refused
        if transaction is not None and due == 0:
            transaction.message_admitted = admitted
        if verdict.charged:
            if instance:
                transaction = transaction or self.charges.begin(instance)
                transaction.charge_message(due, admitted)
            verdict.record = f"{'D' if admitted else 'd'}{instance}\0\0{due}{_fields(counters)}\n"
        return verdict

    def _charge(self, request: Request, counters: list[Counter], due: int) -> Verdict:
        """Charge every limit and see whether one is exceeded; due 0 asks again about what was refused before."""
        deciding = counters[0]
        refused = False
        for counter in counters:
            if counter.quota and counter.used + due > counter.quota:
                deciding, refused = counter, True
                break
        status = "" if due == 0 else OVER_QUOTA if refused else INSERT if deciding.is_new else UPDATE
        charged = 0 if refused and not self.count_rejected else due
        if charged:
            for counter in counters:
                self.pending.charge(counter, charged)
                counter.is_new = False
        reply = DUNNO
        if refused:
            reply = deciding.table.limit.refusal(deciding.key, deciding.used, deciding.quota, deciding.expiry)
        return Verdict(reply, request, refused, status, due, charged, deciding, deciding.used)


def _counts(state: str) -> bool:
    return state == AT_RECIPIENT or state in AT_MESSAGE


def _recipient_count(request: Request) -> int:
    text = request["recipient_count"]
    if not (text.isascii() and text.isdigit()):
        return 0
    digits = text.lstrip("0")
    return min(int(digits or 0), MAX_RECIPIENTS) if len(digits) < 10 else MAX_RECIPIENTS


def _fields(counters: list[Counter]) -> str:
    return "".join([f"\0{c.table.limit.name}\0{c.expiry}\0{c.key}" for c in counters])
