"""SIGHUP and `ratelimitctl reload`: the configuration is read anew, and obeyed whole or not at all.

Counters, connections and what is not stored yet stay. Everything that may fail is done before anything is changed.
"""

import socket
from dataclasses import dataclass, field
from typing import Any

import msgspec
import trio

from ratelimitd.config import read as config
from ratelimitd.config.read import Configuration
from ratelimitd.control.accounts import Accounts
from ratelimitd.core.policy import Policy
from ratelimitd.daemon.parts import bounds, open_sinks, rules
from ratelimitd.errors import RatelimitdError
from ratelimitd.log.log import Log
from ratelimitd.log.sinks import Sink
from ratelimitd.net.listeners import Inherited, close_all, open_listener
from ratelimitd.notify.notifier import Notifier
from ratelimitd.server.connections import Bounds
from ratelimitd.server.pump import Pump
from ratelimitd.state.journal import Journal
from ratelimitd.sync.schedule import StoreSync
from ratelimitd.sync.walk import walk

LIVE = (
    *("timezone", "week_starts", "count_rejected", "journal_sync", "keys", "limit", "log", "notify"),
    *("store.flush_interval_s", "store.timeout_s", "store.refresh_s", "store.strict_below"),
    *("server.listen", "server.allow", "server.unix_users", "server.failure_action", "server.shutdown_timeout_s"),
    *("server.max_connections", "server.max_request_bytes", "server.max_transactions", "server.max_accounts"),
    "server.max_remembered_recipients",
    "server.request_timeout_s",
)
"""Settings, and tables of them, that a reload obeys. All others are said to need a new start."""

SINKS = ("syslog", "ident", "facility", "file", "stderr", "max_backlog_bytes")
"""Settings of `[log]` that need other sinks."""


@dataclass(slots=True)
class Prepared:
    """What was made for a new configuration: `sinks` is None where those that there are stay."""

    clients: Bounds
    listeners: dict[str, socket.socket] = field(default_factory=dict)
    sinks: list[Sink] | None = None


@dataclass(slots=True)
class Reloader:
    """The parts of a running daemon that a configuration reaches; `config` is the one in force."""

    config: Configuration
    policy: Policy
    sync: StoreSync
    pump: Pump
    journal: Journal
    log: Log
    accounts: Accounts
    notifier: Notifier
    _started: Configuration = field(init=False)
    _lock: trio.Lock = field(default_factory=trio.Lock)
    _listeners: dict[str, socket.socket] = field(init=False)

    def __post_init__(self) -> None:
        self._started = self.config
        listeners = self.pump.connections.listeners
        self._listeners = dict(zip(self.config.settings.server.listen, listeners, strict=False))

    async def reload(self) -> list[str]:
        """Obey the file as it is now; the changed settings that only a new start obeys. Raises RatelimitdError.

        The log's files are opened anew in any case.
        """
        async with self._lock:
            self._reopen_log()
            try:
                fresh = await trio.to_thread.run_sync(config.read, self.config.file)
                prepared = self._prepare(fresh)
            except Exception as error:
                self.log.error("the configuration is not obeyed, nothing is changed", reason=error)
                if isinstance(error, RatelimitdError):
                    raise
                raise RatelimitdError(f"{self.config.file}: {error!r}") from error
            self._swap(fresh, prepared)
            await self._follow()
            waiting = self._needing_a_start(fresh)
            self.log.info("the configuration is read anew", limits=" ".join(limit.name for limit in fresh.limits))
            if waiting:
                self.log.warning("changed settings that only a new start obeys", settings=" ".join(waiting))
            return waiting

    def _reopen_log(self) -> None:
        failures = self.log.reopen()
        for failure in failures:
            self.log.error("a log file cannot be opened anew; the old one is written on", reason=failure)
        if not failures:
            self.log.info("log files are opened anew")

    # -- what may fail ---------------------------------------------------------------------------------------------

    def _prepare(self, fresh: Configuration) -> Prepared:
        prepared = Prepared(bounds(fresh))
        old, new = self.config.settings.log, fresh.settings.log
        server = fresh.settings.server
        try:
            if not self._inherited:
                for text in server.listen:
                    if text not in self._listeners:
                        mode = int(server.unix_mode, 8)
                        prepared.listeners[text] = open_listener(text, mode, server.unix_group)
            if any(getattr(old, name) != getattr(new, name) for name in SINKS):
                prepared.sinks = open_sinks(fresh)
        except BaseException:
            close_all(list(prepared.listeners.values()))
            raise
        return prepared

    @property
    def _inherited(self) -> bool:
        """Whether the sockets are a service manager's."""
        return any(isinstance(listener, Inherited) for listener in self._listeners.values())

    # -- what may not ----------------------------------------------------------------------------------------------

    def _swap(self, fresh: Configuration, prepared: Prepared) -> None:
        self.config = fresh
        settings = fresh.settings
        self._swap_limits(fresh)
        self._listen(prepared.listeners)
        connections = self.pump.connections
        connections.configure(prepared.clients, settings.keys.default_domain)
        self.accounts.lowercase, self.accounts.default_domain = settings.keys.lowercase, settings.keys.default_domain
        store, server = settings.store, settings.server
        self.sync.configure(store.timeout_s, server.max_accounts, store.flush_interval_s, store.refresh_s)
        self.journal.sync = settings.journal_sync
        self.log.configure(settings.log.format, settings.log.level)
        self.log.with_limit = len(fresh.limits) > 1
        if prepared.sinks is not None:
            self.log.replace(prepared.sinks)

    def _swap_limits(self, fresh: Configuration) -> None:
        self.notifier.configure(fresh.notify)
        self.policy.configure(fresh.limits, rules(fresh))
        server = fresh.settings.server
        self.policy.memo.resize(server.max_transactions, server.max_remembered_recipients)

    def _listen(self, opened: dict[str, socket.socket]) -> None:
        if self._inherited:
            return
        wanted = self.config.settings.server.listen
        gone = [listener for text, listener in self._listeners.items() if text not in wanted]
        known = self._listeners | opened
        self._listeners = {text: known[text] for text in wanted}
        self.pump.connections.listen_on(list(self._listeners.values()))
        close_all(gone)

    async def _follow(self) -> None:
        """Give the accounts in memory the quotas that are configured now."""
        for meter in self.policy.meters:
            async for keys in walk(list(meter.counters)):
                meter.follow(keys)

    def _needing_a_start(self, fresh: Configuration) -> list[str]:
        old, new = _flat(self._started), _flat(fresh)
        changed = [name for name in new if new[name] != old.get(name) and not _is_live(name)]
        if self._inherited and new["server.listen"] != old["server.listen"]:
            changed.append("server.listen")
        return changed


def _is_live(name: str) -> bool:
    return name in LIVE or name.partition(".")[0] in LIVE


def _flat(configuration: Configuration) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in msgspec.to_builtins(configuration.settings).items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": setting for inner, setting in value.items()}
        else:
            flat[name] = value
    return flat
