"""What a start says once the daemon decides: a line in the log, and on a terminal what to do next.

What is to be pasted stands in the first column, and works as it is: in main.cf a line that begins with a blank
continues the one before it.
"""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from ratelimitd import __version__
from ratelimitd.config.read import Configuration
from ratelimitd.log.log import Log

OPTIONS = "timeout=10s, default_action=DUNNO"
TO_TRY = (
    "request=smtpd_access_policy",
    "protocol_state=DATA",
    "sasl_username=alice@example.com",
    "recipient_count=3",
    "",
)
"""A request that counts, as far as Postfix's is needed for that."""
_QUEUE = "/var/spool/postfix/"
"""Postfix's queue_directory unless main.cf says otherwise, which `ratelimitctl doctor` asks it."""


def announce(config: Configuration, store: str, addresses: Sequence[str], log: Log) -> None:
    """Say where the daemon listens, and which store and limits are in force."""
    ready = f"ratelimitd {__version__} is ready"
    limits = [
        f"{limit.name}: {limit.quota or 'unlimited'} {limit.period.name} per {limit.key_name}"
        for limit in config.limits
    ]
    log.info(ready, listen=" ".join(addresses), store=store, limits="; ".join(limits))
    if sys.stderr.isatty():
        said = [] if log.shows("info") else [ready]
        print(*said, *_banner(config, store, addresses, limits), sep="\n", file=sys.stderr, flush=True)


def _banner(config: Configuration, store: str, addresses: Sequence[str], limits: Sequence[str]) -> list[str]:
    address = addresses[0]
    asked = as_asked(address)
    ctl = shlex.join([str(Path(sys.argv[0]).with_name("ratelimitctl")), "-c", str(config.file)])
    return [
        *[f"  listening on  {each}" for each in addresses],
        f"  store         {store}",
        *[f"  limit         {limit}" for limit in limits],
        "  to try it     in another terminal, a request as Postfix sends it, and what was counted:",
        to_ask(address),
        f"{ctl} show alice@example.com",
        "  Postfix       in main.cf, then `postfix reload`:",
        f"smtpd_sender_restrictions = reject_unlisted_recipient, check_policy_service {{ {asked}, {OPTIONS} }}",
        "  to check it   as root:",
        f"{ctl} doctor",
        "  to stop       Ctrl-C",
    ]


def as_asked(address: str) -> str:
    """An address of `listen` as main.cf has it; a socket in the usual queue of Postfix as its chroot has it, too."""
    if address.startswith("unix:"):
        return f"unix:{address.removeprefix('unix:').removeprefix(_QUEUE)}"
    return f"inet:{address}"


def to_ask(address: str) -> str:
    """A command for bash that asks at an address, and prints the answer."""
    request = shlex.join(TO_TRY)
    if address.startswith("unix:"):
        path = address.removeprefix("unix:")
        code = (
            "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); "
            "s.sendall(sys.stdin.buffer.read()); print(s.recv(999).decode().strip())"
        )
        return f"printf '%s\\n' {request} | {shlex.join([sys.executable, '-c', code, path])}"
    host, _, port = address.rpartition(":")
    return f"(exec 3<>/dev/tcp/{host.strip('[]')}/{port}; printf '%s\\n' {request} >&3; head -n 1 <&3)"
