"""The configured limits decide on the mails of a log, in the log's own time, by the core that the daemon runs.

Postfix asks about each recipient (RCPT), which is how it is best asked; about what a daemon's own line has as several,
it asked at once. There is no store: what accounts had used before the log begins, and what quotas a database has, is
not known. Beside it a second policy refuses nothing, and so has what the accounts tried to send.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

from msgspec import Struct

from ratelimitd.core.action import DUNNO
from ratelimitd.core.limits import UNLIMITED, KeyHealth, Limit
from ratelimitd.core.memo import Memo
from ratelimitd.core.parts import NEVER
from ratelimitd.core.pending import Pending
from ratelimitd.core.policy import AT_RECIPIENT, Policy, Rules
from ratelimitd.core.verdict import OVER_QUOTA, WOULD_BLOCK, Verdict, Waiting
from ratelimitd.core.watcher import Nobody
from ratelimitd.ctl.replay.days import Days
from ratelimitd.ctl.replay.mails import MAX_NAMED, Mail
from ratelimitd.ctl.replay.uses import Uses
from ratelimitd.logins import LoginRules
from ratelimitd.request import MAX_RECIPIENTS, POLICY_REQUEST, Request

_REFUSED = (OVER_QUOTA, WOULD_BLOCK)
_FORGET_EVERY = 1000
"""Mails: what would be stored by then needs not be kept apart."""
_MAX_TRANSACTIONS = 10_000
"""At a time: a mail is asked about at once, and only lines of a daemon come mixed."""
_Key = tuple[int, str]
"""The place of a limit among all, and an account under it."""


@dataclass(frozen=True, slots=True)
class _Silent(Limit):
    """A limit whose replies nobody reads: they take longer than the decision."""

    def refusal(self, key: str, used: int, quota: int, expiry: int) -> bytes:
        """No reply."""
        return DUNNO


class Refusals(Struct, gc=False):
    """What a limit would have refused an account."""

    recipients: int = 0
    first: int = 0
    instance: str = ""  # the latest message


class Trial:
    """Decides on mails; `refused` and `uses` have, for each limit, what came of it, and `days` for each day."""

    def __init__(self, limits: Sequence[Limit], rules: Rules, logins: LoginRules) -> None:
        self.messages = self.recipients = 0
        self.limits = limits
        self.refused: list[dict[str, Refusals]] = [{} for _ in limits]
        self.uses = [Uses() for _ in limits]
        self.days = Days(limits[0].period.zone)
        self._by_login = all(limit.of_login for limit in limits)
        self._with_free = [limit for limit in limits if limit.free]
        self._logins = logins
        self._policy = _policy([_silent(limit) for limit in limits], rules)
        self._demand = _policy([_without_quota(limit) for limit in limits], rules)
        self._places = {limit.name: i for i, limit in enumerate(limits)}
        self._asked = 0
        self._now = 0

    def take(self, mail: Mail) -> None:
        """Decide on a mail."""
        self.messages += mail.is_first
        self.recipients += mail.recipients
        day = self.days.of(mail.begun)
        day.messages += mail.is_first
        day.recipients += mail.recipients
        if mail.is_free:
            return
        self._now = now = mail.begun
        asked = _Asked(mail, self._logins, self._asked)
        self._asked += 1
        alike = (
            mail.is_first and not mail.at_once and not self._names_matter(mail)
        )  # one recipient is as good as another
        keys: list[_Key] = []
        for request in (asked.as_one(mail.recipients),) if alike else asked.at_rcpt(0):
            keys = self._use(_decide(self._demand, request, now))
        if alike:
            self._ask_alike(asked, keys)
        else:
            self._ask_each(asked, 0, None)
        if self._asked % _FORGET_EVERY == 0:
            for policy in (self._policy, self._demand):
                _forget(policy)

    def _names_matter(self, mail: Mail) -> bool:
        """Whether a limit may decide by who the recipients are, as far as the log knows them."""
        return bool(mail.named) and (
            not self._by_login or any(_text(name) in limit.free for limit in self._with_free for name in mail.named)
        )

    def _ask_alike(self, asked: "_Asked", keys: Sequence[_Key]) -> None:
        """Ask about those that every limit has room for at once: they are charged the same as one by one."""
        recipients = asked.mail.recipients
        fitting = min([recipients, *[self._room(place, key, 0) for place, key in keys]])
        if fitting > 0:
            _decide(self._policy, asked.as_one(fitting), self._now)
        if fitting < recipients:
            self._ask_each(asked, fitting, keys)

    def _ask_each(self, asked: "_Asked", admitted: int, keys: Sequence[_Key] | None) -> None:
        """Ask about one recipient after another, beyond those that are admitted; of recipients that are alike (`keys`)
        only until all others are refused by the same limits."""
        recipients = asked.mail.recipients
        left = recipients - admitted
        for request in asked.at_rcpt(admitted):
            verdict = _decide(self._policy, request, self._now)
            these = 1 if request.protocol_state == AT_RECIPIENT else left
            if verdict.status in _REFUSED:
                self._refuse(verdict, these)
            left -= these
            if not verdict.refused:
                admitted += these
            elif left and keys is not None and self._go_on_refusing(keys, admitted, recipients):
                _decide(self._policy, asked.as_one(recipients), self._now)
                self._refuse(verdict, left)
                return

    def _go_on_refusing(self, keys: Sequence[_Key], admitted: int, recipients: int) -> bool:
        """Whether each limit is used up or has room for all that was not admitted: then those that refuse one of them
        refuse each."""
        return all(not 0 < self._room(place, key, admitted) < recipients - admitted for place, key in keys)

    def _room(self, place: int, key: str, admitted: int) -> int:
        """What a limit has room for, for all that is known before it is asked. `admitted`: recipients of this mail,
        which is all that a limit of one message counts."""
        limit = self.limits[place]
        if limit.of_message:
            quota, used = limit.configured_quota(key), admitted
        else:
            counter = self._policy.meters[place].counters.get(key)
            quota, used = (counter.quota, counter.used) if counter is not None else (limit.configured_quota(key), 0)
        return max(0, quota - used) if quota else NEVER

    def _refuse(self, verdict: Verdict, recipients: int) -> None:
        counter = verdict.counter
        assert counter is not None
        self.days.of(self._now).refused += recipients
        refused = self.refused[self._places[counter.limit.name]]
        refusals = refused.get(counter.key)
        if refusals is None:
            refusals = refused[counter.key] = Refusals(first=self._now)
        instance = verdict.request.instance
        if counter.limit.by_message:
            refusals.recipients += refusals.instance != instance
            refusals.instance = instance
        else:
            refusals.recipients += recipients

    def _use(self, verdict: Verdict) -> list[_Key]:
        """Count what was tried; the limits that apply, and the account under each."""
        if verdict.charge is None:
            return []
        keys: list[_Key] = []
        for counter, amount in zip(verdict.charge.counters, verdict.charge.amounts, strict=True):
            place = self._places[counter.limit.name]
            keys.append((place, counter.key))
            if amount:
                self.uses[place].add(counter, amount, self._now, verdict.charge.transaction)
        return keys


class _Asked:
    """The requests that Postfix makes of a mail."""

    def __init__(self, mail: Mail, logins: LoginRules, number: int) -> None:
        login = mail.login
        texts = (login.client_address, login.client_name, mail.queue_id, mail.instance, login.sasl_method)
        address, name, queue_id, self._instance, method = map(_text, texts)
        username, sender, size = _text(login.sasl_username), _text(mail.sender), _text(mail.size)
        self.mail, self._logins, self._number = mail, logins, number
        self._ends = address, name
        self._login = queue_id, self._instance, method, username
        self._attributes = (
            f"request={POLICY_REQUEST}\nclient_address={address}\nclient_name={name}\nsender={sender}\n"
            f"queue_id={queue_id}\ninstance={self._instance}\nsize={size}\nsasl_method={method}\n"
            f"sasl_username={username}\n"
        )

    def at_rcpt(self, first: int) -> Iterator[Request]:
        """One for each recipient from the `first` on; those beyond MAX_NAMED together."""
        mail = self.mail
        if mail.at_once:
            yield self.as_one(mail.recipients)
            return
        for i in range(first, min(mail.recipients, MAX_NAMED)):
            known = i < len(mail.named)
            yield self._request(AT_RECIPIENT, _text(mail.named[i]) if known else f"{i}@{self._number}.invalid", "0")
        if mail.recipients > MAX_NAMED:
            yield self.as_one(mail.recipients)

    def as_one(self, recipients: int) -> Request:
        """One for so many recipients together."""
        return self._request("DATA", "", str(min(recipients, MAX_RECIPIENTS)))

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


def _silent(limit: Limit) -> Limit:
    return _Silent(*[getattr(limit, each.name) for each in fields(limit)])


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
