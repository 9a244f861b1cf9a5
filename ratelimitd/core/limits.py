"""A limit as configured: whom it counts, over which period, how many recipients, what to answer beyond."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ratelimitd.core.action import Template
from ratelimitd.core.recipients import NONE, FreeRecipients
from ratelimitd.core.windows import Message, Period, Sliding
from ratelimitd.errors import RatelimitdError
from ratelimitd.keys import EVERYBODY, normalise
from ratelimitd.request import Request

UNLIMITED = 0
"""A quota of 0: it is counted, and nothing is refused, as with the Perl daemon."""


class KeyFailed(RatelimitdError):
    """A key plugin raised an exception, or returned something that is no key, for one request."""


@dataclass(slots=True)
class KeyHealth:
    """What a limit's key plugin did wrong since the last `take`: counts and the latest failure, not a list."""

    failures: int = 0
    failure: str = ""  # the last one's
    slow: int = 0
    slowest_s: float = 0.0

    def failed(self, why: str) -> None:
        """Count a request for which the plugin failed."""
        self.failures += 1
        self.failure = why

    def was_slow(self, took_s: float) -> None:
        """Count a call that took longer than it may."""
        self.slow += 1
        self.slowest_s = max(self.slowest_s, took_s)

    def take(self) -> "KeyHealth":
        """What was counted so far; counting begins again at 0."""
        taken = KeyHealth(self.failures, self.failure, self.slow, self.slowest_s)
        self.failures, self.failure, self.slow, self.slowest_s = 0, "", 0, 0.0
        return taken

    def add(self, other: "KeyHealth") -> None:
        """Count what another counted, later."""
        self.failures += other.failures
        self.failure = other.failure or self.failure
        self.slow += other.slow
        self.slowest_s = max(self.slowest_s, other.slowest_s)


@dataclass(frozen=True, slots=True)
class Limit:
    """One `[[limit]]`. `key_of` gives the normalised key of a request, or None: the limit does not apply."""

    name: str
    key_name: str
    key_of: Callable[[Request], str | None]
    period: Period
    quota: int
    action: Template
    quotas: Mapping[str, int] = field(default_factory=dict)
    health: KeyHealth = field(default_factory=KeyHealth, compare=False)
    enforce: bool = True  # otherwise what exceeds it is logged and admitted
    by_message: bool = False  # SMTP transactions are counted, not recipients
    of_login: bool = False  # the key depends on the login alone
    lowercase: bool = True  # keys are
    count_rejected: bool = True  # what it refuses is charged to it
    free: FreeRecipients = NONE  # recipients that it does not count

    @property
    def of_message(self) -> bool:
        """Whether it counts the recipients of one SMTP transaction: in the memo alone, nothing is stored."""
        return isinstance(self.period, Message)

    @property
    def sliding(self) -> bool:
        """Whether its windows slide."""
        return isinstance(self.period, Sliding)

    def configured_quota(self, key: str) -> int:
        """Recipients per period for a key: its own exception, else its domain's (`@a.domain`), else `quota`."""
        exception = self.exception_for(key) if self.quotas else None
        return self.quota if exception is None else self.quotas[exception]

    def exception_for(self, key: str) -> str | None:
        """The name in `quotas` that holds for a key: its own, else its domain's; None: `quota` holds."""
        for name in (key, "@" + key.rpartition("@")[2]):
            if name in self.quotas:
                return name
        return None

    def domain_of(self, key: str) -> str:
        """The `@a.domain` whose row in the database holds for an account that has no quota of its own; "": none does.

        Under the key `domain` the account is the domain, and its own row holds.
        """
        return "@" + key.rpartition("@")[2] if "@" in key and self.key_name != "domain" else ""

    def is_domain(self, key: str) -> bool:
        """Whether a row with this key is that of a domain, and not an account's."""
        return key.startswith("@") and self.domain_of(key) == key

    def normal(self, key: str) -> str:
        """A key as this limit's are."""
        return normalise(key, self.lowercase)

    def cannot_match(self, key: str) -> str:
        """Why a key, of a row or of `quotas`, can never be one of this limit's, nor a domain; "" if it may be."""
        if "*" in key and self.key_name in ("email", "domain"):
            return "there are no patterns: @a.domain is for all accounts of a domain"
        if self.key_name == "email" and "@" not in key and "." in key:
            return f"a domain is no login: @{key} is for all its accounts"
        if self.key_name == "all" and key != EVERYBODY:
            return f'the one key of this limit is "{EVERYBODY}"'
        if self.key_name == "domain" and "@" in key.removeprefix("@"):
            return "the keys of this limit are domains"
        return ""

    def cannot_hold(self, key: str) -> str:
        """Why the row of a domain gives nobody a quota; "" if it may."""
        if key.startswith("@") and not self.is_domain(key):
            return "the keys of this limit are domains: a row for one is written without @"
        return ""

    def refusal(self, key: str, used: int, quota: int, expiry: int) -> bytes:
        """The reply to a request that goes beyond the quota."""
        return self.action.render(
            used=used,
            quota=quota,
            key=key,
            period=self.period.name,
            reset=self.period.describe(expiry),
        )
