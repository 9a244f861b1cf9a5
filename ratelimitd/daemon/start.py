"""Before the loop runs: take over the service manager's sockets, do what only root may do, then stop being root.

Also what a start says: warnings, and on a terminal how to wire Postfix.
"""

import importlib
import os
import resource
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ratelimitd import __version__
from ratelimitd.config.read import Configuration
from ratelimitd.daemon import privileges
from ratelimitd.errors import StartError
from ratelimitd.log.log import Log
from ratelimitd.net.listeners import Listeners, control_address
from ratelimitd.net.systemd import take_sockets
from ratelimitd.state.directory import StateDir
from ratelimitd.stores import schema

RESERVED = 64
"""File descriptors for the daemon itself: listeners, journal, database, log, control socket, notices."""
FEWEST = 16
"""Connections without which a daemon is of no use."""


class Sockets:
    """Every listening socket: for Postfix, and where they are wanted for Prometheus and ratelimitctl."""

    def __init__(self) -> None:
        self.policy = Listeners("server.listen")
        self.metrics = Listeners("metrics.listen")
        self.control = Listeners("control.socket")

    def open(self, config: Configuration) -> None:
        """Open those of Postfix and Prometheus that are not open yet. Raises StartError."""
        server, metrics = config.settings.server, config.settings.metrics
        self.policy.open(server.listen, int(server.unix_mode, 8), server.unix_group)
        self.metrics.open([metrics.listen] if metrics.listen else [])

    def open_control(self, config: Configuration) -> None:
        """Open the control socket. Raises StartError."""
        self.control.open([control_address(config.control_socket)], int(config.settings.control.mode, 8))

    def close(self) -> None:
        """Close all."""
        for listeners in (self.policy, self.metrics, self.control):
            listeners.close()


def prepare(config: Configuration, state: StateDir, sockets: Sockets) -> None:
    """Take over the sockets of a service manager; as root with `user` set, open the others and become that user.

    Call it before trio runs and with everything imported. Raises StartError.
    """
    settings = config.settings
    sockets.policy.inherit(take_sockets())
    identity = privileges.find(settings.user, settings.group)
    if identity is not None:
        sockets.open(config)
        state.acquire()
    if settings.pid_file:
        write_pid_file(config.path(settings.pid_file))
    if identity is not None:
        log_file = [config.path(settings.log.file)] if settings.log.file else []
        _load_what_is_loaded_late(settings.store.backend)
        privileges.hand_over([state.path, *log_file], identity)
        privileges.become(identity)


def _load_what_is_loaded_late(backend: str) -> None:
    """Import now what would be imported later: the user may not be able to read Python's own files."""
    importlib.import_module("encodings.idna")  # for names of hosts
    schema(backend)


def warn(config: Configuration, max_connections: int, log: Log) -> None:
    """Log what works but should be changed. `max_connections` is what the file descriptors suffice for."""
    wanted = config.settings.server.max_connections
    if max_connections < wanted:
        log.warning(
            "file descriptors (ulimit -n, LimitNOFILE) do not suffice for server.max_connections",
            max_connections=wanted,
            in_force=max_connections,
        )
    if config.has_secrets and privileges.readable_by_all(config.file):
        log.warning("every user may read the configuration, which has a password in it; chmod o-r", file=config.file)
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


def write_pid_file(path: Path) -> None:
    """Write this process's id, whole or not at all. Raises StartError."""
    fresh = path.with_name(f".{path.name}.new")
    try:
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with os.fdopen(fd, "w", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")
        fresh.replace(path)
    except OSError as error:
        raise StartError(f"pid_file: {path}: {error.strerror}") from error


def remove_pid_file(path: Path) -> None:
    """Remove the file, where it is ours and we may: one that root wrote stays, and names a process that is gone."""
    with suppress(OSError):
        if path.read_text("ascii").strip() == str(os.getpid()):
            path.unlink()


def announce(config: Configuration, store: str, addresses: Sequence[str], log: Log) -> None:
    """Say where the daemon listens, and which store and limits are in force."""
    ready = f"ratelimitd {__version__} is ready"
    limits = [
        f"{limit.name}: {limit.quota or 'unlimited'} {limit.period.name} per {limit.key_name}"
        for limit in config.limits
    ]
    log.info(ready, listen=" ".join(addresses), store=store, limits="; ".join(limits))
    if sys.stderr.isatty():
        first = addresses[0] if addresses[0].startswith("unix:") else f"inet:{addresses[0]}"
        print(
            ready,
            *[f"  listening on  {address}" for address in addresses],
            f"  store         {store}",
            *[f"  limit         {limit}" for limit in limits],
            "  Postfix       in main.cf, then `postfix reload`:",
            "    smtpd_sender_restrictions = check_policy_service",
            f"        {{ {first}, timeout=10s, default_action=DUNNO }}",
            "  to stop       Ctrl-C",
            sep="\n",
            file=sys.stderr,
            flush=True,
        )
