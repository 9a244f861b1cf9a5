"""Puts together what a log says of each mail, in the order in which the mails were begun: what a daemon is asked.

Postfix logs at a mail's first recipient who has logged in (smtpd), and at its end how many recipients it has (qmgr):
there the mail is known. Until then it waits, and those that were begun after it wait behind it, for an hour of the log
at most. A mail that no qmgr took was never sent. Each queue id counts once, until another mail is begun under it.

Where a daemon logged its own decisions, too, these count, for they have also what was refused; what Postfix says of the
same mail does not.
"""

from collections import deque
from collections.abc import Iterator

from msgspec import Struct

from ratelimitd.ctl.replay.lines import Decided, Delivered, Event, Login, Queued, Removed

HELD_S = 3600
MAX_HELD = 100_000
_MAX_DONE = 20_000
MAX_NAMED = 1000
"""Recipients of a mail whose addresses are kept: Postfix's own smtpd_recipient_limit."""
_COVERED_S = 60
"""A daemon decides before the mail is queued, and at most so long before it is begun."""
_SETTLED_S = 5
"""What a daemon said in another file, of a clock that is not quite the same, has been read so much later."""
_LOGGED = bytes(byte if 0x20 <= byte < 0x7F else ord("?") for byte in range(256))
_SAYS_ALL = (b"INSERT", b"UPDATE", b"WOULD_BLOCK", b"FREE")


class Mail(Struct, gc=False, kw_only=True):
    """Recipients that a daemon is asked about at `begun`.

    `instance` names the SMTP transaction. `named`: those recipients that are known by their addresses. `at_once`: they
    are admitted or refused together, at DATA. `is_first`: nothing was asked of this transaction before.
    """

    begun: int
    login: Login
    instance: bytes
    recipients: int = -1  # not known yet
    named: list[bytes]
    complete: bool = False
    known_at: int = 0  # when it was queued; 0: it is a daemon's line
    sender: bytes = b""
    size: bytes = b""
    at_once: bool = False
    is_first: bool = True
    is_free: bool = False  # a daemon said that no limit counts them

    @property
    def queue_id(self) -> bytes:
        """Its queue id, or b""."""
        return self.login.mail.rpartition(b" ")[2]


class Mails:
    """`take` what the log says, in order; `finish` at its end. Both give the mails that are known by then.

    `with_recipients`: the log is read for addresses of recipients, and mails wait for them.
    """

    def __init__(self, *, with_recipients: bool) -> None:
        self.begun = self.unfinished = 0  # mails of Postfix's; those that no queue manager took
        self._with_recipients = with_recipients
        self._held: deque[Mail] = deque()
        self._open: dict[bytes, Mail] = {}  # by host and queue id
        self._done: dict[bytes, int] = {}  # when those were begun that were queued recently
        self._done_before: dict[bytes, int] = {}
        self._decided: dict[bytes, int] = {}  # when a daemon admitted something of a login, latest
        self._asked: dict[tuple[bytes, bytes], tuple[bytes, bytes]] = {}  # each login's latest mail and instance
        self._instances = 0

    def take(self, instant: int, event: Event) -> Iterator[Mail]:
        """What an event completes."""
        if type(event) is Login:
            self._begin(instant, event)
        elif type(event) is Queued:
            self._queued(instant, event)
        elif type(event) is Decided:
            self._decide(instant, event)
        elif type(event) is Delivered or type(event) is Removed:
            self._named(event)
        held = self._held
        while held and (
            (held[0].complete and held[0].known_at < instant - _SETTLED_S)
            or held[0].begun < instant - HELD_S
            or len(held) > MAX_HELD
        ):
            mail = held.popleft()
            self._forget(mail)
            if self._counts(mail):
                yield mail

    def finish(self) -> Iterator[Mail]:
        """What is left."""
        yield from filter(self._counts, self._held)
        self._held.clear()
        self._open.clear()

    def _begin(self, instant: int, login: Login) -> None:
        key = login.mail
        before = self._open.get(key)
        if before is not None and before.begun == instant:
            return  # the same line, in another file
        if self._done.get(key, self._done_before.get(key)) == instant:
            return
        if before is not None:
            before.complete = True
        mail = Mail(begun=instant, login=login, instance=b"%b %d" % (key, instant), named=[])
        self._open[key] = mail
        self._held.append(mail)
        self.begun += 1

    def _counts(self, mail: Mail) -> bool:
        """Whether a mail was sent, and no daemon has said what it decided on it."""
        if mail.recipients < 0:
            self.unfinished += 1
            return False
        said_at = self._decided.get(_logged(mail.login.sasl_username), 0) if mail.known_at and self._decided else 0
        return said_at < mail.begun - _COVERED_S

    def _queued(self, instant: int, event: Queued) -> None:
        mail = self._open.get(event.mail)
        if mail is None or mail.recipients >= 0:
            return
        mail.known_at = instant
        mail.recipients, mail.sender, mail.size = event.recipients, event.sender, event.size
        if not self._with_recipients:
            self._end(mail)

    def _named(self, event: Delivered | Removed) -> None:
        mail = self._open.get(event.mail)
        if mail is None or mail.recipients < 0:
            return
        if type(event) is Delivered and event.recipient not in mail.named:
            mail.named.append(event.recipient)
        if type(event) is Removed or len(mail.named) >= min(mail.recipients, MAX_NAMED):
            self._end(mail)

    def _end(self, mail: Mail) -> None:
        mail.complete = True
        self._forget(mail)
        if len(self._done) >= _MAX_DONE:
            self._done_before, self._done = self._done, {}
        self._done[mail.login.mail] = mail.begun

    def _forget(self, mail: Mail) -> None:
        if self._open.get(mail.login.mail) is mail:
            del self._open[mail.login.mail]

    def _decide(self, instant: int, event: Decided) -> None:
        login = event.login
        if event.status in _SAYS_ALL:
            self._decided[_logged(login.sasl_username)] = instant
        instance, is_first = self._instance(event)
        mail = Mail(begun=instant, login=login, instance=instance, recipients=event.recipients, named=[])
        mail.complete, mail.sender, mail.is_first = True, event.sender, is_first
        mail.at_once = event.recipients > 1 and is_first
        mail.is_free = event.status == b"FREE"
        self._held.append(mail)

    def _instance(self, event: Decided) -> tuple[bytes, bool]:
        """The transaction of a decision, and whether it is its first.

        The line has it as JSON. Else it is that of the login's decision before it, if both have one queue id, or that
        one had none yet; what is asked at once is a transaction of its own.
        """
        login, host = event.login, event.login.mail.rpartition(b" ")[0]
        whose, mail = (host, login.sasl_username), event.instance or login.mail
        before, instance = self._asked.get(whose, (b"", b""))
        if event.recipients <= 1 or event.instance:
            same = before == mail if event.instance else (before in (mail, host + b" ") and mail != host + b" ")
            if before and same:
                self._asked[whose] = mail, instance
                return instance, False
        self._instances += 1
        instance = b"%b %d" % (mail, self._instances)
        self._asked[whose] = mail, instance
        return instance, True


def _logged(login: bytes) -> bytes:
    """A login as Postfix logs it where it shows nothing but ASCII; controls are `?` in any case."""
    return login.translate(_LOGGED)
