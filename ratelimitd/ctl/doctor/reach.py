"""Whether Postfix can reach the addresses that it asks this service at, and is admitted there."""

import grp
import os
import pwd
import socket
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from ratelimitd.config.values import Network
from ratelimitd.ctl.answers import Fault, Line
from ratelimitd.ctl.doctor.addresses import as_asked, host_and_port, is_ours, meets, same, socket_path
from ratelimitd.ctl.doctor.postconf import Postfix
from ratelimitd.ctl.doctor.remedy import right
from ratelimitd.ctl.doctor.restrictions import uses
from ratelimitd.folders import is_there
from ratelimitd.net.admission import is_in
from ratelimitd.net.listeners import Address

OURS = "ratelimitd.toml"


def shut_out(
    postfix: Postfix, addresses: Sequence[Address], allow: Sequence[str], networks: Sequence[Network]
) -> Iterator[Fault]:
    """Where Postfix connects from an address that `server.allow` does not have: `allow` as written, and as read."""
    for use in uses(postfix):
        if use.address.startswith("unix:") or not is_ours(use, postfix, addresses):
            continue
        for source in _sources(*host_and_port(use.address.partition(":")[2]), addresses):
            if not is_in(source, networks):
                what = f"{use.where}: Postfix connects from {source}, which server.allow does not have: it is refused"
                admitted = ", ".join(f'"{text}"' for text in (*allow, source))
                lines = [Line(OURS, "[server]", f"allow = [{admitted}]")]
                yield Fault("shut-out", what, f"under [server] of {OURS}, then `ratelimitctl reload`", lines)


def _sources(host: str, port: int, addresses: Sequence[Address]) -> Iterator[str]:
    """The addresses that connections of this machine to those at which we listen come from; nothing is sent."""
    listens = [address[0] for address in addresses if isinstance(address, tuple) and address[1] == port]
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except OSError:
        return
    for family, kind, _, _, address in found:
        if not any(meets(str(address[0]), each) and (":" in each) == (family == socket.AF_INET6) for each in listens):
            continue
        try:
            with socket.socket(family, kind) as probe:
                probe.connect(address)
                yield str(probe.getsockname()[0])
        except OSError:
            continue


def unreachable(postfix: Postfix, addresses: Sequence[Address]) -> Iterator[Fault]:
    """Unix sockets that Postfix does not find, or may not connect to."""
    for use in uses(postfix):
        if use.address.startswith("unix:") and is_ours(use, postfix, addresses):
            path = socket_path(use, postfix)
            meant = next(ours for ours in addresses if isinstance(ours, Path))
            if not any(isinstance(ours, Path) and same(ours, path) and _is_there(path) for ours in addresses):
                what = f"{use.where}: {use.address} is {path} to Postfix, but ratelimitd listens on {meant}"
                if meant.is_relative_to(postfix.queue_directory):
                    yield Fault("unreachable", what, "in main.cf", right(use, as_asked(meant, postfix)))
                    continue
                inside = postfix.queue_directory / "private" / meant.name
                settings = (f'listen = ["unix:{inside}"]', f'unix_group = "{postfix.owner}"')
                lines = [*(Line(OURS, "[server]", setting) for setting in settings)]
                lines += right(use, as_asked(inside, postfix))
                yield Fault("unreachable", what, f"under [server] of {OURS}, before a restart, and in main.cf", lines)
            elif not _may_connect(path, postfix.owner):
                what = f"{use.where}: the user {postfix.owner} may not connect to {path}"
                settings = ('unix_mode = "0660"', f'unix_group = "{postfix.owner}"')
                lines = [Line(OURS, "[server]", setting) for setting in settings]
                yield Fault("unreachable", what, f"under [server] of {OURS}, before a restart", lines)


def _is_there(path: Path) -> bool:
    """Whether there is such a socket; True if that cannot be determined."""
    try:
        return is_there(path)
    except OSError:
        return True


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
