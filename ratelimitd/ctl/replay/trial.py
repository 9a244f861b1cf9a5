"""The configured limits decide on the mails of a log, in the log's own time, by the core that the daemon runs.

Postfix asks about each recipient (RCPT), which is how it is best asked; about what a daemon's own line has as several,
it asked at once. There is no store: what accounts had used before the log begins, and what quotas a database has, is
not known. Beside it a second policy refuses nothing, and so has what the accounts tried to send.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from msgspec import Struct

from ratelimitd.core.dues import MAX_RECIPIENTS
from ratelimitd.core.limits import UNLIMITED, KeyHealth, Limit
from ratelimitd.core.memo import Memo
from ratelimitd.core.pending import Pending
from ratelimitd.core.policy import AT_RECIPIENT, Policy, Rules
from ratelimitd.core.verdict import OVER_QUOTA, WOULD_BLOCK, Verdict, Waiting
from ratelimitd.core.watcher import Nobody
from ratelimitd.ctl.replay.mails import MAX_NAMED, Mail
from ratelimitd.ctl.replay.uses import Uses
from ratelimitd.request import POLICY_REQUEST, LoginRules, Request

_REFUSED = (OVER_QUOTA, WOULD_BLOCK)
_FORGET_EVERY = 10_000
"""Mails: what would be stored by then needs not be kept apart."""
_MAX_TRANSACTIONS = 100_000


class Refusals(Struct, gc=False):
    """What a limit would have refused an account."""

    recipients: int = 0
    first: int = 0
    instance: str = ""  # the latest message


class Trial:
    """Decides on mails; `refused` and `uses` have, for each limit, what came of it."""

    def __init__(self, limits: Sequence[Limit], rules: Rules, logins: LoginRules) -> None:
        self.messages = self.recipients = 0
        self.limits = limits
        self.refused: list[dict[str, Refusals]] = [{} for _ in limits]
        self.uses = [Uses() for _ in limits]
        self._logins = logins
        self._policy = _policy(limits, rules)
        self._demand = _policy([_without_quota(limit) for limit in limits], rules)
        self._places = {limit.name: i for i, limit in enumerate(limits)}
        self._asked = 0
        self._now = 0

    def take(self, mail: Mail) -> None:
        """Decide on a mail."""
        self.messages += mail.is_first
        self.recipients += mail.recipients
        if mail.is_free:
            return
        self._now = now = mail.begun
        asked = _Asked(mail, self._logins, self._asked)
        self._asked += 1
        for request in asked.at_rcpt():
            verdict = _decide(self._policy, request, now)
            if verdict.status in _REFUSED:
                self._refuse(verdict, request.instance)
        for request in asked.at_rcpt() if mail.named or not mail.is_first else asked.as_one():
            self._use(_decide(self._demand, request, now))
        if self._asked % _FORGET_EVERY == 0:
            for policy in (self._policy, self._demand):
                _forget(policy)

    def _refuse(self, verdict: Verdict, instance: str) -> None:
        counter = verdict.counter
        assert counter is not None
        refused = self.refused[self._places[counter.limit.name]]
        refusals = refused.get(counter.key)
        if refusals is None:
            refusals = refused[counter.key] = Refusals(first=self._now)
        if counter.limit.by_message:
            refusals.recipients += refusals.instance != instance
            refusals.instance = instance
        else:
            refusals.recipients += verdict.recipients

    def _use(self, verdict: Verdict) -> None:
        if verdict.charge is not None:
            for counter, amount in zip(verdict.charge.counters, verdict.charge.amounts, strict=True):
                if amount:
                    uses = self.uses[self._places[counter.limit.name]]
                    uses.add(counter, amount, self._now, verdict.charge.transaction)


class _Asked:
    """The requests that Postfix makes of a mail."""

    def __init__(self, mail: Mail, logins: LoginRules, number: int) -> None:
        login = mail.login
        texts = (login.client_address, login.client_name, mail.queue_id, mail.instance, login.sasl_method)
        address, name, queue_id, self._instance, method = map(_text, texts)
        username, sender, size = _text(login.sasl_username), _text(mail.sender), _text(mail.size)
        self._mail, self._logins, self._number = mail, logins, number
        self._ends = address, name
        self._login = queue_id, self._instance, method, username
        self._attributes = (
            f"request={POLICY_REQUEST}\nclient_address={address}\nclient_name={name}\nsender={sender}\n"
            f"queue_id={queue_id}\ninstance={self._instance}\nsize={size}\nsasl_method={method}\n"
            f"sasl_username={username}\n"
        )

    def at_rcpt(self) -> Iterator[Request]:
        """One for each recipient; those beyond MAX_NAMED together."""
        mail = self._mail
        if mail.at_once:
            yield from self.as_one()
            return
        named = [_text(recipient) for recipient in mail.named[: mail.recipients]]
        for recipient in named:
            yield self._request(AT_RECIPIENT, recipient, "0")
        for i in range(len(named), min(mail.recipients, MAX_NAMED)):  # whose addresses the log does not have
            yield self._request(AT_RECIPIENT, f"{i}@{self._number}.invalid", "0")
        if mail.recipients > MAX_NAMED:
            yield from self.as_one()

    def as_one(self) -> Iterator[Request]:
        """One for all recipients."""
        yield self._request("DATA", "", str(min(self._mail.recipients, MAX_RECIPIENTS)))

    def _request(self, state: str, recipient: str, count: str) -> Request:
        text = f"{self._attributes}protocol_state={state}\nrecipient={recipient}\nrecipient_count={count}\n"
        return Request(
            text, self._logins, POLICY_REQUEST, state, *self._ends, recipient, count, *self._login,
        )  # fmt: skip


def _text(value: bytes) -> str:
    """The value of an attribute."""
    text = value.decode("utf-8", "backslashreplace")
    return text if text.isprintable() else text.replace("\n", "\\n").replace("\0", "\\0")


def _policy(limits: Sequence[Limit], rules: Rules) -> Policy:
    memo = Memo(_MAX_TRANSACTIONS, _MAX_TRANSACTIONS)
    return Policy(limits, rules, Pending(), memo, Nobody())


def _without_quota(limit: Limit) -> Limit:
    return replace(limit, quota=UNLIMITED, quotas={}, health=KeyHealth())


def _decide(policy: Policy, request: Request, now: int) -> Verdict:
    """The verdict; an account that is new has used nothing."""
    verdict = policy.decide(request, now)
    if not isinstance(verdict, Waiting):
        return verdict
    for meter, key in verdict.missing(now):
        meter.accept(key, None, 0, now)
    return policy.decide_waiting(verdict, now)


def _forget(policy: Policy) -> None:
    """Forget what would be stored by now: windows that are over, and parts of sliding ones."""
    deltas = policy.pending.open.deltas
    for counter in deltas:
        counter.earlier = ()
    deltas.clear()
