"""What a request is answered, before it is sent and logged; and the requests that nothing was decided about."""

from collections.abc import Sequence
from typing import final

from msgspec import Struct

from ratelimitd.core.counters import Counter, Meter, Window
from ratelimitd.request import Request

INSERT = "INSERT"
UPDATE = "UPDATE"
OVER_QUOTA = "OVER_QUOTA"
WOULD_BLOCK = "WOULD_BLOCK"
"""It exceeds the quota of a limit that is not enforced."""
FREE = "FREE"
"""No limit that applies counts this recipient."""


class Charge(Struct, eq=False, gc=False):
    """What one request was charged: the journal has it before the reply is sent.

    `transaction` is the memo's key, "" where the request has no instance; `recipient` is None at DATA and
    END-OF-MESSAGE. `recipients` were asked about that were not admitted before. Each of the counters was charged its
    number of `amounts`: as a rule `recipients`; 0 or 1 under limits that count messages, and less where it was charged
    already when the same was refused. A limit that does not count the recipient is not there. Of a request that is
    refused, there are the counters that refused alone. `messages`: those that count messages, and count this one from
    now on (Counter.message).
    """

    transaction: str
    recipient: str | None
    recipients: int
    refused: bool
    counters: list[Counter]
    amounts: list[int]
    messages: Sequence[Window] = ()


class Verdict(Struct, eq=False, gc=False):
    """The answer to a request; where it asked for nothing new, `status` is "" and there is nothing to log.

    `counter` is the limit that decided: the one that refused, else the first that applied; `used` its count after
    this request. `charge` is None where there is nothing to remember.
    """

    reply: bytes
    request: Request
    refused: bool = False
    status: str = ""
    recipients: int = 0
    charged: int = 0
    counter: Counter | None = None
    used: int = 0
    charge: Charge | None = None


@final
class Waiting(Struct, eq=False, gc=False):
    """A request that cannot be decided before accounts have been looked up in the store.

    `keys`: the limits that apply, in the order of the configuration, and the key under each, so that a plugin is called
    once per request. `admitted` is the reply unless a limit refuses.
    """

    request: Request
    keys: list[tuple[Meter, str]]
    admitted: bytes

    def missing(self, now: int) -> list[tuple[Meter, str]]:
        """Those of the keys whose account must be looked up."""
        return [(meter, key) for meter, key in self.keys if meter.find(key, now) is None]


class Tally:
    """Requests that no limit applied to, by reason: they show an administrator that Postfix is configured wrongly."""

    __slots__ = ("other_states", "without_key", "without_login")

    def __init__(self) -> None:
        self.other_states = 0  # at CONNECT, EHLO, MAIL, VRFY, ...: nothing is counted there
        self.without_login = 0  # at RCPT, DATA, END-OF-MESSAGE, but nobody has logged in
        self.without_key = 0  # somebody has logged in

    def skip(self, *, logged_in: bool) -> None:
        """Count a request at RCPT, DATA or END-OF-MESSAGE."""
        if logged_in:
            self.without_key += 1
        else:
            self.without_login += 1
