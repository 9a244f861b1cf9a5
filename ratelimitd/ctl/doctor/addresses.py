"""Which of the addresses that Postfix asks at are those that this service listens at, and at which nobody does."""

import socket
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ratelimitd.ctl.doctor.postconf import Postfix
from ratelimitd.ctl.doctor.restrictions import Use
from ratelimitd.net.listeners import Address

LOCALHOST = ("127.0.0.1", "::1", "localhost")
ANY = ("0.0.0.0", "::")  # noqa: S104
_LISTENING = "0A"  # the state in /proc/net/tcp


def is_ours(use: Use, postfix: Postfix, addresses: Sequence[Address]) -> bool:
    """Whether a use asks us."""
    kind, _, rest = use.address.partition(":")
    if kind == "unix":
        path = socket_path(use, postfix)
        # From its chroot Postfix may look elsewhere than at the path in main.cf; it still means us.
        return any(isinstance(ours, Path) and (same(ours, path) or same(ours, Path(rest))) for ours in addresses)
    host, port = host_and_port(rest)
    return any(isinstance(ours, tuple) and ours[1] == port and meets(host, ours[0]) for ours in addresses)


def as_asked(ours: Path, postfix: Postfix) -> str:
    """How main.cf names a unix socket of ours: below the queue as Postfix sees it from a chroot, too."""
    queue = postfix.queue_directory
    return f"unix:{ours.relative_to(queue) if ours.is_relative_to(queue) else ours}"


def socket_path(use: Use, postfix: Postfix) -> Path:
    """Where Postfix finds `unix:PATH`: relative to its queue, and below it if the smtpd is chrooted."""
    path = use.address.removeprefix("unix:")
    if use.smtpd.chroot or not path.startswith("/"):
        return postfix.queue_directory / path.lstrip("/")
    return Path(path)


def same(one: Path, other: Path) -> bool:
    """Whether two paths are one file."""
    try:
        return one == other or one.samefile(other)
    except OSError:
        return False


def host_and_port(text: str) -> tuple[str, int]:
    """`HOST:PORT` of main.cf, in which either may be a name; 0 for a port of an unknown name."""
    host, _, port = text.rpartition(":")
    try:
        number = int(port) if port.isdigit() else socket.getservbyname(port, "tcp")
    except OSError:
        number = 0
    return host.strip("[]") or "localhost", number


def meets(host: str, listens: str) -> bool:
    """Whether a connection to `host` reaches a service that listens at `listens`."""
    if host == listens or listens in ANY:
        return True
    if host == "localhost" or listens == "localhost":
        return host in LOCALHOST and listens in LOCALHOST
    try:
        return any(listens == found[4][0] for found in socket.getaddrinfo(host, None))
    except OSError:
        return False


def is_deserted(use: Use, postfix: Postfix, listening: Iterable[tuple[str, int]]) -> bool:
    """Whether a use asks on this machine where nobody listens: at an address that was ours, say. False if that cannot
    be told; `listening` are the addresses that are listened at."""
    if use.address.startswith("unix:"):
        try:
            socket_path(use, postfix).stat()
        except FileNotFoundError:
            return True
        except OSError:
            pass
        return False
    host, port = host_and_port(use.address.partition(":")[2])
    found = [*listening]
    return host in LOCALHOST and bool(found) and not any(port == p and meets(host, h) for h, p in found)


def listening() -> Iterator[tuple[str, int]]:
    """The addresses that are listened at on this machine over TCP; none if the system does not tell."""
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        try:
            lines = Path(f"/proc/net/{name}").read_text("ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            _, local, _, state, *_ = line.split()
            if state == _LISTENING:
                host, port = local.split(":")
                words = [bytes.fromhex(host[i : i + 8])[::-1] for i in range(0, len(host), 8)]  # in host byte order
                yield socket.inet_ntop(family, b"".join(words)), int(port, 16)
