"""The decision on one request: its keys, what it is charged, whether every limit admits it.

Pure: counts and memo are given, time is an argument. What must be written to the journal before the reply, and what
must be logged after it, is in the verdict.
"""

from collections.abc import Sequence

from msgspec import Struct

from ratelimitd.core.action import DUNNO
from ratelimitd.core.counters import PLAIN, Counter, Meter
from ratelimitd.core.dues import begin, counting, exceeded, first_dues, is_plain, messages_of, not_counted, spend
from ratelimitd.core.epoch import Epoch
from ratelimitd.core.limits import KeyFailed, Limit
from ratelimitd.core.memo import Memo, Transaction
from ratelimitd.core.meters import meters_of
from ratelimitd.core.parts import NEVER
from ratelimitd.core.pending import Pending
from ratelimitd.core.standing import reset
from ratelimitd.core.verdict import FREE, INSERT, OVER_QUOTA, UPDATE, WOULD_BLOCK, Charge, Tally, Verdict, Waiting
from ratelimitd.core.watcher import Watcher
from ratelimitd.request import POLICY_REQUEST, Request, recipient_count
from ratelimitd.text import MAX_BYTES, shorten

AT_RECIPIENT = "RCPT"
AT_MESSAGE = ("DATA", "END-OF-MESSAGE")
COUNTED = frozenset((AT_RECIPIENT, *AT_MESSAGE))


class Rules(Struct, frozen=True):
    """What a configuration says about all limits together.

    `failure_reply`: the answer where a key plugin failed. `strict_below`: the share of a quota below which other nodes'
    charges must be read at once; 0: there are no others.
    """

    failure_reply: bytes
    strict_below: float


class Policy:
    """All limits, the counts and the memo. `decide`; and `decide_waiting` where that had to wait.

    `urgent` is set by a charge that leaves less than the share `strict_below` of a quota: what other nodes charged the
    account must be read at once. `take_urgent` clears it.
    """

    def __init__(self, limits: Sequence[Limit], rules: Rules, pending: Pending, memo: Memo, watch: Watcher) -> None:
        self.pending = pending
        self.memo = memo
        self.tally = Tally()
        self.urgent = False
        self.meters: list[Meter] = []
        self.removed: dict[str, Meter] = {}  # of limits that are configured no more, by name, until `forget_removed`
        self._epoch = Epoch()
        self._now = 0
        self._watch = watch
        self.configure(limits, rules, 0)

    def configure(self, limits: Sequence[Limit], rules: Rules, now: int) -> None:
        """Decide by these limits from `now` on. A limit that was there before, by its name, keeps its accounts; those
        of a removed one, too: it may come back before they are stored, while the store is unavailable."""
        self._strict_below, self.failure_reply = rules.strict_below, rules.failure_reply
        known = [*self.removed.values(), *self.meters]
        self.meters, self.removed = meters_of(limits, known, self._epoch, now, self.pending)
        for meter, limit in zip(self.meters, limits, strict=True):
            meter.configure(limit, self._watch.notice_percent(limit.name))
        self._all_plain = all(map(is_plain, limits))
        self._watched = any(meter.notice_percent < NEVER for meter in self.meters)

    @property
    def kept(self) -> list[Meter]:
        """Those of the limits that have accounts: all but limits of one message."""
        return [meter for meter in self.meters if not meter.limit.of_message]

    @property
    def epoch(self) -> int:
        """It rises when a count has lost what had been charged to it (Epoch)."""
        return self._epoch.number

    @property
    def all_meters(self) -> list[Meter]:
        """Those that have accounts, also of limits that are configured no more."""
        return [*self.kept, *self.removed.values()]

    def add_removed(self, limit: Limit) -> Meter:
        """A meter for a limit that is configured no more, and has counts that are not stored."""
        meter = self.removed[limit.name] = Meter(limit, self._epoch)
        return meter

    def forget_removed(self) -> None:
        """Forget the accounts of removed limits that the store can give back: those that have nothing pending."""
        pending = {counter.meter for counter in self.pending.counters()}
        for name, meter in [*self.removed.items()]:
            if meter not in pending:
                del self.removed[name]
                meter.forget()
                self._epoch.end()

    def _clock_says(self, now: int) -> None:
        """Note a new second; where the clock was put back, counters may be in windows that are none by now."""
        if now < self._now:
            for meter in self.meters:
                meter.by_login = {}
        self._now = now

    def decide(self, request: Request, now: int) -> Verdict | Waiting:
        """The verdict at `now` (seconds since 1970), unless an account has to be looked up first."""
        if request.request != POLICY_REQUEST or request.protocol_state not in COUNTED:
            self.tally.other_states += 1
            return Verdict(DUNNO, request)
        if now != self._now:
            self._clock_says(now)
        counters: list[Counter] = []
        failed, all_known = False, True
        login = request.sasl_username
        for meter in self.meters:
            counter = meter.by_login.get(login)
            if counter is None or counter.expiry <= now or (counter.basis < PLAIN and not counter.holds(now)):
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
        key, transaction = request.instance, None
        if key:
            key = f"{key} {request.sasl_username}"
            if len(key) > MAX_BYTES:
                key = shorten(key)
            transaction = self.memo.find(key)
        at: str | None = None
        if request.protocol_state == AT_RECIPIENT:
            at = request.recipient
            if len(at) > MAX_BYTES:
                at = shorten(at)
            due = 0 if transaction is not None and transaction.answer(at) is True else 1
        else:
            due = recipient_count(request.recipient_count) - (0 if transaction is None else transaction.charged)
        if due <= 0:  # what was admitted stays admitted
            return Verdict(admitted, request)
        return self._charge(request, counters, key, at, due, admitted, transaction)

    def _charge(
        self,
        request: Request,
        counters: list[Counter],
        key: str,
        recipient: str | None,
        due: int,
        admitted: bytes,
        transaction: Transaction | None,
    ) -> Verdict:
        """Charge what every limit is due, unless one is exceeded."""
        known = False  # the same was refused before
        all_plain = self._all_plain
        if not all_plain:
            begin(counters, transaction)
            deciding, counters = counters[0], counting(counters, request, recipient)
            if not counters:
                return self._free(request, deciding, key, recipient, due, admitted, transaction)
        if transaction is None or transaction.refused is None:
            asked, dues = due, [due] * len(counters) if all_plain else first_dues(counters, due, transaction)
            owed = dues
        else:
            owed, dues = transaction.dues(counters, recipient, due, self.epoch)
            known = recipient is None or transaction.answer(recipient) is not None
            asked = max(owed) or due
        refusing = trial = None
        for counter, amount in zip(counters, dues):  # noqa: B905  nearly always that is all
            if counter.used + amount > counter.quota and counter.quota:
                refusing, trial = exceeded(counters, dues, owed, transaction)
                break
        if refusing:
            return self._refuse(request, refusing, key, recipient, asked, known, transaction)
        deciding = trial or counters[0]
        status = WOULD_BLOCK if trial else INSERT if deciding.key in deciding.meter.new else UPDATE
        messages = () if all_plain else messages_of(counters, transaction)
        self._count(counters, dues if all_plain else spend(counters, dues))
        if key:
            self.memo.admit(key, transaction, recipient, due)
            if not all_plain:
                self.memo.spend(key, [*messages, *(c.window for c in counters if c.meter.limit.of_message)], due)
        charge = Charge(key, recipient, due, False, counters, dues, messages)
        if known and not any(dues):  # all were charged when they refused
            return Verdict(admitted, request, charge=charge)
        decisions = deciding.meter.decisions
        decisions[status] = decisions.get(status, 0) + 1
        return Verdict(admitted, request, False, status, asked, asked, deciding, deciding.used, charge)

    def _free(
        self,
        request: Request,
        counter: Counter,
        key: str,
        recipient: str | None,
        due: int,
        admitted: bytes,
        transaction: Transaction | None,
    ) -> Verdict:
        """Admit what no limit counts; memo and journal know it, so that DATA does not count it either."""
        charge = None
        if key:
            self.memo.admit(key, transaction, recipient, due)
            charge = Charge(key, recipient, due, False, [], [])
        decisions = counter.meter.decisions
        decisions[FREE] = decisions.get(FREE, 0) + 1
        return Verdict(admitted, request, False, FREE, due, 0, counter, counter.used, charge)

    def _refuse(
        self,
        request: Request,
        refusing: list[tuple[Counter, int]],
        key: str,
        recipient: str | None,
        asked: int,
        known: bool,
        transaction: Transaction | None,
    ) -> Verdict:
        """Refuse, and charge the limits that do what they are due, where what is refused is counted."""
        deciding, more = refusing[0]
        if deciding.limit.of_message:
            deciding.used += more  # the reply and the log show how many it would be
        counting_it = [(counter, due) for counter, due in refusing if counter.limit.count_rejected]
        charged = not_counted(counting_it, transaction, recipient, self._now)
        if known and counting_it and not charged:
            return Verdict(self._refusal(deciding), request, True)
        charge = None
        if counting_it:
            counters, amounts = [counter for counter, _ in charged], [due for _, due in charged]
            self._count(counters, amounts)
            if key:
                self.memo.epoch = self.epoch
                for amount in dict.fromkeys(amounts or [1]):
                    windows = tuple([counter.window for counter, due in charged if due == amount])
                    transaction = self.memo.refuse(key, transaction, recipient, windows, amount)
            charge = Charge(key, recipient, asked, True, counters, amounts)
        decisions = deciding.meter.decisions
        decisions[OVER_QUOTA] = decisions.get(OVER_QUOTA, 0) + 1
        reply, counted = self._refusal(deciding), asked if charge is not None else 0
        return Verdict(reply, request, True, OVER_QUOTA, asked, counted, deciding, deciding.used, charge)

    def _count(self, counters: list[Counter], amounts: list[int]) -> None:
        """Charge counters, and have the Watcher look at accounts that reach their `notice_at` by it."""
        deltas, strict_below, watched = self.pending.open.deltas, self._strict_below, self._watched
        for counter, amount in zip(counters, amounts):  # noqa: B905
            if not amount:
                continue
            counter.used += amount
            deltas[counter] = deltas.get(counter, 0) + amount
            if counter.meter.new:
                counter.meter.new.discard(counter.key)
            if watched and counter.used >= counter.notice_at:
                self._watch.look(counter, False)
            if strict_below:
                left = counter.quota - counter.used
                # A quota that was used up before this charge is refused here, whatever other nodes charged.
                if -amount < left < counter.quota * strict_below + 1:
                    self.urgent = True

    def take_urgent(self) -> bool:
        """Whether what other nodes charged must be read at once; then somebody sees to it."""
        urgent, self.urgent = self.urgent, False
        return urgent

    def taken_over(self, counter: Counter, now: int) -> None:
        """Have the Watcher look at an account whose use was read from the store."""
        if self._watched and counter.used >= counter.notice_at and counter.expiry > now:
            self._watch.look(counter, False)

    def _refusal(self, counter: Counter) -> bytes:
        if self._watched and counter.notice_at < NEVER:
            self._watch.look(counter, True)
        return counter.meter.limit.refusal(counter.key, counter.used, counter.quota, reset(counter))
