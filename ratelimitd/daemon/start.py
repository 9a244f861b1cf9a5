"""Before the parts are made: take over the service manager's sockets, do what only root may do, then stop being root.

Also what a start warns of.
"""

import importlib
import os
import resource
import signal
import sys
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

from ratelimitd.config.read import Configuration
from ratelimitd.daemon import handover, privileges
from ratelimitd.daemon.advice import at_start
from ratelimitd.errors import InUse, StartError
from ratelimitd.folders import opened, replace
from ratelimitd.log.log import Log
from ratelimitd.net import systemd
from ratelimitd.net.listeners import Listeners, control_address, group_id, parse_address
from ratelimitd.state.directory import CTL, StateDir
from ratelimitd.stores import Store, schema
from ratelimitd.text import escape

RESERVED = 64
"""File descriptors for the daemon itself: listeners, journal, database, log, control socket, notices."""
FEWEST = 16
"""Connections without which a daemon is of no use."""
WAIT_S = 10.0
"""How long a start waits for ratelimitctl, which holds state_dir while it changes something without a daemon."""
LOOK_AGAIN_S = 0.3
"""Who has just taken the lock may not have written its name yet."""
FIRST_FREE_PORT = 1024


class Sockets:
    """Every listening socket: for Postfix, and where they are wanted for Prometheus and ratelimitctl."""

    def __init__(self) -> None:
        self.policy = Listeners("server.listen")
        self.metrics = Listeners("metrics.listen")
        self.control = Listeners("control.socket")

    def open(self, config: Configuration) -> None:
        """Open those of Postfix and Prometheus that are not open yet. Raises StartError."""
        server, metrics = config.settings.server, config.settings.metrics
        self.policy.open(server.listen, server.socket_mode, server.unix_group)
        self.metrics.open([metrics.listen] if metrics.listen else [])

    def open_as_root(self, config: Configuration, identity: privileges.Identity) -> None:
        """Open those of Postfix and Prometheus that the user could not open itself. Raises StartError."""
        server, metrics = config.settings.server, config.settings.metrics
        gid = group_id(server.unix_group)
        listen = [text for text in server.listen if _only_root_can_open(text, identity, gid)]
        self.policy.open(listen, server.socket_mode, server.unix_group)
        self.metrics.open([metrics.listen] if metrics.listen and _only_root_can_open(metrics.listen, identity) else [])

    def open_control(self, config: Configuration) -> None:
        """Open the control socket. Raises StartError."""
        self.control.open([control_address(config.control_socket)], config.settings.control.socket_mode)

    def close(self) -> None:
        """Close all."""
        for listeners in (self.policy, self.metrics, self.control):
            listeners.close()


def _only_root_can_open(text: str, identity: privileges.Identity, gid: int = -1) -> bool:
    """Whether the user could not open this address, or not give it this group."""
    address = parse_address(text)
    if isinstance(address, tuple):
        return 0 < address[1] < FIRST_FREE_PORT
    try:
        with opened(address.parent) as folder:
            may_write = handover.may_write(os.fstat(folder), identity)
    except OSError as error:
        raise StartError(f"server.listen: {text}: {error.strerror}") from error
    return not may_write or (gid >= 0 and gid not in (identity.gid, *identity.groups))


@dataclass(frozen=True, slots=True)
class Held:
    """What a daemon holds before its parts are made: its store, with the secrets that only root may be able to read,
    its state directory, and its sockets."""

    store: Store
    state: StateDir
    sockets: Sockets = field(default_factory=Sockets)

    def release(self) -> None:
        """Close the sockets, unlock the state directory."""
        self.sockets.close()
        self.state.release()


def prepare(config: Configuration, held: Held) -> None:
    """Lock the state directory. As root with `user` set, do what only root can, then become that user.

    Nothing in a folder of the user's is opened as root. Call it with everything imported. Raises StartError.
    """
    settings = config.settings
    held.sockets.policy.inherit(systemd.take_sockets())
    identity = privileges.find(settings.user, settings.group)
    if identity is None:
        privileges.settle()
        hold(held.state)
        _write_pid_file(config)
        return
    handover.refuse_closed("state_dir", config.state_dir, identity)
    own_names = (settings.store.path, settings.control.socket)
    handover.give_state(config.state_dir, identity, own_names)
    if settings.log.file:
        handover.refuse_closed("log.file", config.path(settings.log.file), identity)
        handover.give_log(config.path(settings.log.file), identity)
    with privileges.acting_as(identity):
        hold(held.state)
    with privileges.acting_as(identity) if _pid_file_is_the_users(config, identity) else nullcontext():
        _write_pid_file(config)
    held.sockets.open_as_root(config, identity)
    load_what_is_loaded_late(config)
    systemd.connect()
    privileges.become(identity)


def hold(state: StateDir) -> None:
    """Lock the state directory; ratelimitctl, which holds it for a moment only, is waited for. Raises StartError."""
    # A shell starts programs in the background with SIGINT ignored; a wait must end by it all the same.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    began, said = time.monotonic(), False
    while True:
        try:
            state.acquire()
            return
        except InUse as error:
            is_ctl = state.holder == CTL
            if time.monotonic() - began >= (WAIT_S if is_ctl else LOOK_AGAIN_S):
                raise
            if is_ctl and not said:
                said = True
                print(f"ratelimitd: {error}; waiting for it", file=sys.stderr, flush=True)
        time.sleep(0.1)


def load_what_is_loaded_late(config: Configuration) -> None:
    """Import now what would be imported later: the user may not be able to read Python's own files."""
    importlib.import_module("encodings.idna")  # for names of hosts
    schema(config.settings.store.backend)
    if config.settings.metrics.listen:
        importlib.import_module("ratelimitd.metrics")
    if any(notify.url for notify in config.notify):
        importlib.import_module("ratelimitd.notify.webhook")


def warn(config: Configuration, max_connections: int, log: Log) -> None:
    """Log what works but should be changed. `max_connections` is what the file descriptors suffice for."""
    wanted = config.settings.server.max_connections
    if max_connections < wanted:
        log.warning(
            "file descriptors (ulimit -n, LimitNOFILE) do not suffice for server.max_connections",
            max_connections=wanted,
            in_force=max_connections,
        )
    for found in at_start(config):
        log.warning(found.event, **found.fields)
        if not log.sinks:
            print(f"ratelimitd: warning: {config.file}: {escape(str(found))}", file=sys.stderr, flush=True)
    if os.geteuid() == 0:
        log.warning('running as root; set user = "..." in the configuration')


def connections_for(wanted: int) -> int:
    """How many connections the descriptors suffice for, at most `wanted`. The soft limit is raised where it may be.

    Without this, many clients would take the descriptor that the next segment of the journal needs. Raises StartError.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + RESERVED
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return wanted
    if soft < min(wanted, FEWEST) + RESERVED:
        least = FEWEST + RESERVED
        raise StartError(f"the limit of open files (ulimit -n, LimitNOFILE) is {soft}; it must be at least {least}")
    return min(wanted, soft - RESERVED)


def _pid_file_is_the_users(config: Configuration, identity: privileges.Identity) -> bool:
    path = config.path(config.settings.pid_file)
    if not config.settings.pid_file:
        return False
    try:
        with opened(path.parent) as folder:
            return handover.may_write(os.fstat(folder), identity)
    except OSError as error:
        raise StartError(f"pid_file: {path}: {error.strerror}") from error


def _write_pid_file(config: Configuration) -> None:
    if config.settings.pid_file:
        write_pid_file(config.path(config.settings.pid_file))


def write_pid_file(path: Path) -> None:
    """Write this process's id, whole or not at all. Raises StartError."""
    try:
        replace(path, f"{os.getpid()}\n", 0o644)
    except OSError as error:
        raise StartError(f"pid_file: {path}: {error.strerror}") from error


def remove_pid_file(path: Path) -> None:
    """Remove the file, where it is ours and we may: one that root wrote stays, and names a process that is gone."""
    with suppress(OSError):
        if path.read_text("ascii").strip() == str(os.getpid()):
            path.unlink()
