"""What `ratelimitctl` and a running daemon say to each other: a line of JSON each way, a type for each command.

A command is `{"verb": "show", "key": "alice@example.com"}`; an answer is an object, or `{"error": TEXT, "exit": N}`
with the exit status that `ratelimitctl` is to end with. `top` is answered with a line every `interval_s`.
"""

from typing import Annotated, Any

from msgspec import DecodeError, Meta, Struct, json

from ratelimitd.errors import RatelimitdError

OK, NO, WRONG, NO_DAEMON = range(4)
"""Exit statuses: done; the answer is no, or nothing was found; wrong usage or configuration; no daemon runs."""

MAX_COMMAND_BYTES = 65536
MAX_QUOTA = 4_294_967_295

Answer = dict[str, Any]
Key = Annotated[str, Meta(min_length=1, max_length=4096)]


class Refused(RatelimitdError):
    """What was asked cannot be done; `status` is the exit status that says why."""

    def __init__(self, text: str, status: int = WRONG) -> None:
        super().__init__(text)
        self.status = status


class Command(Struct, tag_field="verb", tag=str.lower, forbid_unknown_fields=True):
    """A command; its class's name in lower case is its verb."""


class Status(Command):
    """How the daemon is."""


class Show(Command):
    """An account under every limit."""

    key: Key


class Top(Command):
    """Who sends most in this period."""

    limit: str | None = None
    count: Annotated[int, Meta(ge=1, le=1000)] = 20
    interval_s: Annotated[float, Meta(ge=0.1, le=3600)] = 2.0
    once: bool = False


class Set(Command):
    """Give an account a quota; 0: unlimited."""

    key: Key
    quota: Annotated[int, Meta(ge=0, le=MAX_QUOTA)]
    persist: bool = False
    limit: str | None = None


class Reset(Command):
    """Set what an account has used to 0."""

    key: Key
    limit: str | None = None


class Dump(Command):
    """Write the cache to `state_dir/cache.dump`."""


class Reload(Command):
    """Read the configuration anew."""


class Doctor(Command):
    """What the daemon has seen that points to a wrong configuration of Postfix."""


_decoder = json.Decoder(Status | Show | Top | Set | Reset | Dump | Reload | Doctor)


def encode(command: Command) -> bytes:
    """A command as it is sent."""
    return json.encode(command) + b"\n"


def decode(line: bytes) -> Command:
    """A command that was received. Raises Refused."""
    try:
        command: Command = _decoder.decode(line)
    except (DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Refused(f"not a command: {error}") from error
    return command


def encode_answer(answer: Answer) -> bytes:
    """An answer as it is sent."""
    return json.encode(answer) + b"\n"


def decode_answer(line: bytes) -> Answer:
    """An answer that was received. Raises Refused for an error."""
    answer: Answer = json.decode(line, type=Answer)
    if "error" in answer:
        raise Refused(answer["error"], answer.get("exit", NO))
    return answer
