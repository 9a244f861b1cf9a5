"""Before the loop runs: what only root may do, and what a service manager hands over; then be root no more."""

import importlib
import os
import socket
from dataclasses import dataclass, field

from ratelimitd.config.read import Configuration
from ratelimitd.daemon import pidfile, privileges
from ratelimitd.log.log import Log
from ratelimitd.net.listeners import open_listener, open_listeners
from ratelimitd.net.systemd import take_sockets
from ratelimitd.state.directory import StateDir
from ratelimitd.stores import schema


@dataclass(slots=True)
class Sockets:
    """The listening sockets: for Postfix, and for Prometheus where it is wanted."""

    policy: list[socket.socket] = field(default_factory=list)
    metrics: socket.socket | None = None

    def open(self, config: Configuration) -> None:
        """Open what is not open yet. Raises StartError."""
        server, metrics = config.settings.server, config.settings.metrics
        if not self.policy:
            self.policy = open_listeners(server.listen, int(server.unix_mode, 8), server.unix_group)
        if metrics.listen and self.metrics is None:
            self.metrics = open_listener(metrics.listen, setting="metrics.listen")


def prepare(config: Configuration, state: StateDir, sockets: Sockets) -> None:
    """Take the sockets of a service manager; as root with a `user` set, open the others and become that user.

    Call it before trio runs and with everything imported. Raises StartError.
    """
    settings = config.settings
    sockets.policy = take_sockets()
    identity = privileges.find(settings.user, settings.group)
    if identity is not None:
        sockets.open(config)
        state.acquire()
    if settings.pid_file:
        pidfile.write(config.path(settings.pid_file))
    if identity is not None:
        log_file = [config.path(settings.log.file)] if settings.log.file else []
        _load_what_is_loaded_late(settings.store.backend)
        privileges.hand_over([state.path, *log_file], identity)
        privileges.become(identity)


def _load_what_is_loaded_late(backend: str) -> None:
    """The user need not be able to read Python's own files."""
    importlib.import_module("encodings.idna")  # for names of hosts
    schema(backend)


def warn(config: Configuration, log: Log) -> None:
    """Say what works, but should not stay so."""
    if config.has_secrets and privileges.readable_by_all(config.file):
        log.warning("every user may read the configuration, which has a password in it; chmod o-r", file=config.file)
    if os.geteuid() == 0:
        log.warning('running as root; set user = "..." in the configuration')
