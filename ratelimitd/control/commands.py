"""What `ratelimitctl` and a running daemon say to each other: a line of JSON each way, a type for each.

A command is `{"verb": "show", "key": "alice@example.com"}`. Its class names the type of its answer; an error is a
Failure, with the exit status for `ratelimitctl`. `top` is answered with a line every `interval_s`.
"""

from typing import Annotated, Any, Generic, Literal, TypeVar, get_args

from msgspec import DecodeError, Meta, Struct, ValidationError, json

from ratelimitd.control.answers import (
    AccountHistory,
    Answer,
    Cache,
    CountsReset,
    DumpWritten,
    Evidence,
    Failure,
    QuotaSet,
    QuotasUnset,
    Ranking,
    Reloaded,
    RunningStatus,
    ShownAccount,
)
from ratelimitd.errors import RatelimitdError

OK, NO, WRONG, NO_DAEMON = range(4)
"""Exit statuses: done; something is wrong, or nothing was found; wrong usage or configuration; no daemon is running."""

MAX_COMMAND_BYTES = 65536
MAX_QUOTA = 4_294_967_295
MAX_COUNT = 1000
"""Accounts that `top` shows at most."""
MAX_DAYS = 3660
"""Days that a history has at most."""
MIN_INTERVAL_S, MAX_INTERVAL_S = 0.1, 3600.0

MAX_FOR_S = 4_294_967_295
MAX_REASON = 200
"""Characters of a reason."""

Key = Annotated[str, Meta(min_length=1, max_length=4096)]
Reason = Annotated[str, Meta(max_length=MAX_REASON)]
A = TypeVar("A", bound=Answer)


class Refused(RatelimitdError):
    """A command that cannot be carried out; `status` is the exit status for `ratelimitctl`."""

    def __init__(self, text: str, status: int = WRONG) -> None:
        super().__init__(text)
        self.status = status


class NotDone(Refused):
    """A change that the store did not take, or that it is not known to have taken."""

    def __init__(self, text: str) -> None:
        super().__init__(text, NO)


class Command(Struct, Generic[A], tag_field="verb", tag=str.lower, forbid_unknown_fields=True):
    """A command that is answered with an A. The verb is the class's name in lower case."""


class Status(Command[RunningStatus]):
    """How the daemon is doing."""


class Show(Command[ShownAccount]):
    """An account under every limit."""

    key: Key


class History(Command[AccountHistory]):
    """What an account used in each window of the last days, today among them."""

    key: Key
    limit: str | None = None
    days: Annotated[int, Meta(ge=1, le=MAX_DAYS)] = 30


class Top(Command[Ranking]):
    """Who has used most in this period, or most of its quota (`sort = "share"`)."""

    limit: str | None = None
    count: Annotated[int, Meta(ge=1, le=MAX_COUNT)] = 20
    interval_s: Annotated[float, Meta(ge=MIN_INTERVAL_S, le=MAX_INTERVAL_S)] = 2.0
    once: bool = False
    sort: Literal["use", "share"] = "use"


class Set(Command[QuotaSet]):
    """Give an account a quota (0: unlimited): for good (`persist`), until a time (`until`, an ISO date and time, or
    `for_s` seconds from now), or until its period ends. `@a.domain`: each account of the domain."""

    key: Key
    quota: Annotated[int, Meta(ge=0, le=MAX_QUOTA)]
    persist: bool = False
    limit: str | None = None
    until: Annotated[str, Meta(max_length=64)] | None = None
    for_s: Annotated[int, Meta(ge=1, le=MAX_FOR_S)] | None = None
    reason: Reason = ""


class Unset(Command[QuotasUnset]):
    """Take back whatever quota an account, or a domain, was given: for good, until a time, until its period ends."""

    key: Key
    limit: str | None = None
    reason: Reason = ""


class Reset(Command[CountsReset]):
    """Set what an account has used to 0."""

    key: Key
    limit: str | None = None
    reason: Reason = ""


class Dump(Command[DumpWritten]):
    """Write the cache to `state_dir/cache.dump`."""


class PrintDump(Command[Cache]):
    """The cache itself: all of it, or of a large one the accounts that have used most."""

    count: Annotated[int, Meta(ge=1, le=MAX_COUNT)]


class Reload(Command[Reloaded]):
    """Read the configuration again and apply it."""


class Doctor(Command[Evidence]):
    """What the daemon has seen that points to a wrong configuration of Postfix."""


AnsweredOnce = Status | Show | History | Set | Unset | Reset | Dump | PrintDump | Reload | Doctor
AnyCommand = AnsweredOnce | Top

_decoder: json.Decoder[AnyCommand] = json.Decoder(AnyCommand)


def encode(command: Command[Any]) -> bytes:
    """A command as it is sent."""
    return json.encode(command) + b"\n"


def decode(line: bytes) -> AnyCommand:
    """A command that was received. Raises Refused."""
    try:
        return _decoder.decode(line)
    except (DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Refused(f"not a command: {error}") from error


def answer_type(command: type[Command[A]]) -> type[A]:
    """The type of the answers to a command, as its class names it."""
    (found,) = get_args(command.__orig_bases__[0])  # type: ignore[attr-defined]
    return found  # type: ignore[no-any-return]


def encode_answer(answer: Answer) -> bytes:
    """An answer as it is sent."""
    return json.encode(answer) + b"\n"


def decode_answer(line: bytes, command: Command[A]) -> A:
    """The answer to a command, as it was received. Raises Refused: for a Failure, and for an answer not understood."""
    try:
        failure = json.decode(line, type=Failure)
    except ValidationError:  # it is no Failure
        pass
    except (DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Refused(f"the answer is not understood: {error}", NO) from error
    else:
        raise Refused(failure.error, failure.exit)
    try:
        return json.decode(line, type=answer_type(type(command)))
    except ValidationError as error:
        reason = "is the daemon another version than ratelimitctl? then restart it"
        raise Refused(f"the answer is not understood: {error}; {reason}", NO) from error
