"""`ratelimitctl doctor`: looks at the daemon and at Postfix, and says what is wrong and how to fix it."""

import grp
import os
import pwd
import socket
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from ratelimitd.config.read import Configuration
from ratelimitd.control.answers import Evidence
from ratelimitd.control.commands import Doctor, Refused
from ratelimitd.ctl.answers import Diagnosis, Fault
from ratelimitd.ctl.client import NoDaemon, ask
from ratelimitd.ctl.doctor import postconf, sasl, wiring
from ratelimitd.ctl.doctor.postconf import Postfix
from ratelimitd.ctl.doctor.restrictions import Use, examine, recipients_unknown, uses
from ratelimitd.net.listeners import Address, parse_address
from ratelimitd.text import counted, escape

ENOUGH_REQUESTS = 20
"""If none of so many requests has a login, that is no coincidence."""
LOCALHOST = ("127.0.0.1", "::1", "localhost")
ANY = ("0.0.0.0", "::")  # noqa: S104
_LISTENING = "0A"  # the state in /proc/net/tcp


def diagnose(configuration: Configuration, folder: Path | None) -> Diagnosis:
    """Everything that is wrong. `folder` is that of Postfix's main.cf, None the default one. Raises Refused."""
    evidence: Evidence | None = None
    try:
        evidence = ask(configuration.control_socket, Doctor())
    except NoDaemon as error:
        faults = [Fault("not-running", f"{error}", "start ratelimitd")]
    else:
        faults = list(_seen(evidence))
    listen = evidence.listen if evidence is not None else configuration.settings.server.listen
    addresses = [parse_address(text) for text in listen]
    try:
        postfix = postconf.read(folder)
    except Refused as error:  # what was found of the daemon is worth saying all the same
        return Diagnosis([*faults, Fault("postfix-unread", f"Postfix cannot be examined: {error}", postconf.REMEDY)])
    shown = listen[0] if listen[0].startswith("unix:") else f"inet:{listen[0]}"

    def is_ours(use: Use) -> bool:
        return _is_ours(use, postfix, addresses)

    faults += examine(postfix, is_ours)
    faults += wiring.examine(postfix, is_ours, shown)
    free = [limit.name for limit in configuration.limits if limit.free]
    faults += recipients_unknown(postfix, is_ours, free)
    faults += _unreachable(postfix, addresses)
    if not configuration.settings.keys.domains:
        faults += sasl.examine(postfix, evidence.many_domains if evidence is not None else ())
    faults += _shared_ports(postfix, addresses, running=evidence is not None)
    return Diagnosis(list(dict.fromkeys(faults)))


def text(answer: Diagnosis) -> str:
    """The faults for people."""
    if not answer.faults:
        return "Nothing wrong was found.\n"
    return "".join(f"WRONG  {escape(fault.what)}\n  fix  {escape(fault.fix)}\n" for fault in answer.faults)


# -- what the daemon has seen --------------------------------------------------------------------------------------


def _seen(evidence: Evidence) -> Iterator[Fault]:
    if evidence.store_unavailable:
        what = f"the store is unavailable, and counts are in memory and journal alone: {evidence.store_unavailable}"
        yield Fault("store-unavailable", what, "see what `ratelimitctl check` says of the store")
    if evidence.without_login >= ENOUGH_REQUESTS and not evidence.decisions and not evidence.without_key:
        what = f"all {counted(evidence.without_login, 'request')} came without sasl_username, so nothing was counted"
        fix = "wire the smtpd that users log in to (submission, port 587 or 465), or let them log in where they send"
        yield Fault("without-login", what, fix)
    pairs = evidence.bare_and_qualified
    if pairs:
        bare, qualified = pairs[0]
        domain = qualified.partition("@")[2]
        more = f" (users like that: {len(pairs)})" if len(pairs) > 1 else ""
        what = f"{bare} and {qualified} are counted separately{more}: one user, two quotas"
        yield Fault("two-names", what, f'if they are one account: [keys] default_domain = "{domain}"')
    for text in evidence.other_windows:
        fix = "set `timezone` (and `week_starts`) alike on all nodes that share the database"
        yield Fault("other-windows", f"nodes that share the database count in different windows: {text}", fix)


# -- which address is which ----------------------------------------------------------------------------------------


def _is_ours(use: Use, postfix: Postfix, addresses: Sequence[Address]) -> bool:
    kind, _, rest = use.address.partition(":")
    if kind == "unix":
        path = _socket_path(use, postfix)
        # From its chroot Postfix may look elsewhere than at the path in main.cf; it still means us.
        return any(isinstance(ours, Path) and (_same(ours, path) or _same(ours, Path(rest))) for ours in addresses)
    host, port = _host_and_port(rest)
    return any(isinstance(ours, tuple) and ours[1] == port and _meets(host, ours[0]) for ours in addresses)


def _socket_path(use: Use, postfix: Postfix) -> Path:
    """Where Postfix finds `unix:PATH`: relative to its queue, and below it if the smtpd is chrooted."""
    path = use.address.removeprefix("unix:")
    if use.smtpd.chroot or not path.startswith("/"):
        return postfix.queue_directory / path.lstrip("/")
    return Path(path)


def _same(one: Path, other: Path) -> bool:
    try:
        return one == other or one.samefile(other)
    except OSError:
        return False


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    try:
        number = int(port) if port.isdigit() else socket.getservbyname(port, "tcp")
    except OSError:
        number = 0
    return host.strip("[]") or "localhost", number


def _meets(host: str, listens: str) -> bool:
    """Whether a connection to `host` reaches a service that listens at `listens`."""
    if host == listens or listens in ANY:
        return True
    if host == "localhost" or listens == "localhost":
        return host in LOCALHOST and listens in LOCALHOST
    try:
        return any(listens == found[4][0] for found in socket.getaddrinfo(host, None))
    except OSError:
        return False


# -- unix sockets --------------------------------------------------------------------------------------------------


def _unreachable(postfix: Postfix, addresses: Sequence[Address]) -> Iterator[Fault]:
    for use in uses(postfix):
        if use.address.startswith("unix:") and _is_ours(use, postfix, addresses):
            path = _socket_path(use, postfix)
            meant = next(ours for ours in addresses if isinstance(ours, Path))
            if not any(isinstance(ours, Path) and _same(ours, path) and path.exists() for ours in addresses):
                what = f"{use.where}: {use.address} is {path} to Postfix, but ratelimitd listens on {meant}"
                inside = postfix.queue_directory / "private" / meant.name
                fix = f'[server] listen = ["unix:{inside}"], and unix:private/{meant.name} in main.cf'
                yield Fault("unreachable", what, fix)
            elif not _may_connect(path, postfix.owner):
                what = f"{use.where}: the user {postfix.owner} may not connect to {path}"
                yield Fault("unreachable", what, f'[server] unix_mode = "0660" and unix_group = "{postfix.owner}"')


def _may_connect(path: Path, user: str) -> bool:
    """Whether a user may enter the folders and write to the socket; True if that cannot be determined."""
    try:
        entry = pwd.getpwnam(user)
        groups = {entry.pw_gid, *(group.gr_gid for group in grp.getgrall() if user in group.gr_mem)}
        passable = all(_may(folder.stat(), entry.pw_uid, groups, os.X_OK) for folder in path.resolve().parents)
        return passable and _may(path.stat(), entry.pw_uid, groups, os.W_OK)
    except (OSError, KeyError):
        return True


def _may(status: os.stat_result, uid: int, groups: set[int], wanted: int) -> bool:
    mode = stat.S_IMODE(status.st_mode)
    if uid == 0:
        return True
    if status.st_uid == uid:
        return bool(mode >> 6 & wanted)
    return bool((mode >> 3 if status.st_gid in groups else mode) & wanted)


# -- ports ---------------------------------------------------------------------------------------------------------


def _shared_ports(postfix: Postfix, addresses: Sequence[Address], *, running: bool) -> Iterator[Fault]:
    ours = [address for address in addresses if isinstance(address, tuple)]
    listening = list(_listening())
    for host, port in ours:
        for name in postfix.ports:
            if _host_and_port(name)[1] == port:
                what = f"master.cf has a service of Postfix on the port of ratelimitd: {name}"
                yield Fault("shared-port", what, "give one of them another port")
        for other, number in listening:
            known = running and any(number == p and (other == h or h == "localhost") for h, p in ours)
            if number == port and not known and (other in LOCALHOST or other in ANY or other == host):
                what = f"another service listens on port {port}, at {other}; Postfix may ask either"
                fix = f"find it with `ss -ltnp 'sport = :{port}'`, stop it, and give an address, not a name, in main.cf"
                yield Fault("shared-port", what, fix)


def _listening() -> Iterator[tuple[str, int]]:
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
