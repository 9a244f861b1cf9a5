"""SIGHUP and `ratelimitctl reload`: the configuration is read again, and applied whole or not at all.

Counters, connections and what is not stored yet stay. Everything that may fail is done before anything is changed.
"""

import gc
import socket
from dataclasses import dataclass
from pathlib import Path

import trio

from ratelimitd.config.read import Configuration, naming, read
from ratelimitd.daemon.advice import Advice, at_start
from ratelimitd.daemon.parts import Parts, bounds
from ratelimitd.errors import RatelimitdError
from ratelimitd.log.destinations import need_other_sinks, open_sinks
from ratelimitd.log.sinks import Sink
from ratelimitd.net import systemd
from ratelimitd.net.listeners import close_all
from ratelimitd.server.connections import Bounds
from ratelimitd.settings import needing_a_restart
from ratelimitd.sync.walk import walk


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was made for a new configuration: `sinks` is None where those that there are stay."""

    clients: Bounds
    listeners: dict[str, socket.socket]
    sinks: list[Sink] | None


class Reloader:
    """Applies configurations to the parts of a running daemon; `config` is the one in force."""

    def __init__(self, config: Configuration, parts: Parts) -> None:
        self.config = config
        self._started = config
        self._advised = list(at_start(config))
        self._parts = parts
        self._lock = trio.Lock()

    @property
    def summary(self) -> str:
        """What the daemon does, in a line for the service manager."""
        return "deciding at " + " ".join(self._parts.sockets.policy.addresses)

    async def reload(self) -> list[str]:
        """Apply the file as it is now; the changed settings that need a restart. Raises RatelimitdError.

        The log's files are reopened in any case.
        """
        systemd.reloading()
        try:
            async with self._lock:
                return await self._reload()
        finally:
            systemd.ready(self.summary)

    async def _reload(self) -> list[str]:
        log = self._parts.log
        self._reopen_log()
        try:
            # A file on a file system that hangs must not keep the daemon from stopping.
            fresh, advised = await trio.to_thread.run_sync(_read, self.config.file, abandon_on_cancel=True)
            with naming(fresh.file):
                prepared = self._prepare(fresh)
        except Exception as error:
            log.error("the configuration is not applied; nothing is changed", reason=error)
            if isinstance(error, RatelimitdError):
                raise
            raise RatelimitdError(f"{self.config.file}: {error!r}") from error
        self._apply(fresh, prepared)
        await self._follow()
        log.info("the configuration is reloaded", limits=" ".join(limit.name for limit in fresh.limits))
        for found in advised:
            if found not in self._advised:
                log.warning(found.event, **found.fields)
        self._advised = advised
        waiting = self._needing_a_restart(fresh)
        if waiting:
            log.warning("changed settings that need a restart", settings=" ".join(waiting))
        return waiting

    def _reopen_log(self) -> None:
        log = self._parts.log
        failures = log.reopen()
        for failure in failures:
            log.error("a log file cannot be reopened; the old one is still used", reason=failure)
        if not failures:
            log.info("log files are reopened")

    def _prepare(self, fresh: Configuration) -> Prepared:
        """Do what may fail. Raises StartError, with nothing changed."""
        clients, server = bounds(fresh), fresh.settings.server
        listeners = self._parts.sockets.policy.prepare(server.listen, server.socket_mode, server.unix_group)
        try:
            sinks = None
            if need_other_sinks(self.config.settings.log, fresh.settings.log):
                sinks = open_sinks(fresh.settings.log, fresh.folder)
        except BaseException:
            close_all(listeners)
            raise
        return Prepared(clients, listeners, sinks)

    def _apply(self, fresh: Configuration, prepared: Prepared) -> None:
        parts = self._parts
        self.config = fresh
        parts.configure(fresh, prepared.clients)
        parts.connections.listen_at(fresh.settings.server.listen, prepared.listeners)
        if prepared.sinks is not None:
            parts.log.replace(prepared.sinks)

    async def _follow(self) -> None:
        """Give the accounts in memory the quotas that are configured now: there may be a million, so in slices."""
        for meter in self._parts.policy.meters:
            async for keys in walk(list(meter.counters)):
                meter.follow(keys)
        gc.freeze()  # with the dicts of limits that are new, see Daemon._start

    def _needing_a_restart(self, fresh: Configuration) -> list[str]:
        old, new = self._started.settings, fresh.settings
        changed = needing_a_restart(old, new)
        if self._parts.sockets.policy.inherited and old.server.listen != new.server.listen:
            changed.append("server.listen")
        return changed


def _read(file: Path) -> tuple[Configuration, list[Advice]]:
    """A configuration, and what should be looked at in it; both look at files. Raises ConfigError."""
    fresh = read(file)
    return fresh, list(at_start(fresh))
