"""The daemon: everything put together, in one nursery that lives as long as it does."""

import errno
import gc
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import trio

from ratelimitd.config.read import Configuration
from ratelimitd.control import dump
from ratelimitd.control.accounts import Accounts
from ratelimitd.control.socket import Control
from ratelimitd.control.status import DaemonStatus
from ratelimitd.control.verbs import Administration
from ratelimitd.core.memo import Memo
from ratelimitd.core.pending import Pending
from ratelimitd.core.policy import Policy
from ratelimitd.daemon.parts import bounds, open_log, open_store, rules
from ratelimitd.daemon.reload import Reloader
from ratelimitd.daemon.start import Sockets, announce, prepare, remove_pid_file, warn
from ratelimitd.errors import RatelimitdError, StartError
from ratelimitd.log.keywatch import KeyWatch
from ratelimitd.log.log import Log
from ratelimitd.net import systemd
from ratelimitd.net.http import serve
from ratelimitd.net.listeners import close_all, describe, open_control
from ratelimitd.net.systemd import keep_watchdog
from ratelimitd.notify.notifier import Notifier
from ratelimitd.server.pump import Pump
from ratelimitd.state.directory import StateDir
from ratelimitd.state.journal import Journal
from ratelimitd.sync.recovery import recover, show_progress
from ratelimitd.sync.schedule import StoreSync

STOPPING = (signal.SIGTERM, signal.SIGINT)
SIGNALS = (signal.SIGUSR1, signal.SIGHUP, *STOPPING)


class Daemon:
    """One daemon. `run` ends when SIGTERM or SIGINT has been obeyed."""

    def __init__(self, config: Configuration, log: Log | None = None) -> None:
        self.config = config
        settings = config.settings
        self.state = StateDir(config.state_dir)
        self.log = log or open_log(config)
        self.notifier = Notifier(self.state, self.log)
        self.notifier.configure(config.notify)
        self.policy = Policy(
            config.limits,
            rules(config),
            Pending(),
            Memo(settings.server.max_transactions, settings.server.max_remembered_recipients),
            self.notifier.watch,
        )
        self.keywatch = KeyWatch(self.policy, self.log)
        self.store = open_store(config)
        self.sockets = Sockets()

    @asynccontextmanager
    async def at_rest(self) -> AsyncIterator[Accounts]:
        """Memory, journal and store while no daemon runs: what ratelimitctl works on then. Raises StartError."""
        self.state.acquire()
        try:
            self._open()
            await self._recover()
            try:
                yield self.accounts
            finally:
                await self.sync.finish(self.config.settings.server.shutdown_timeout_s)
        finally:
            self.log.close()
            self.state.release()

    def _open(self) -> None:
        settings = self.config.settings
        self.journal = self._open_journal()
        self.sync = StoreSync(
            self.store,
            self.policy,
            self.journal,
            self.state,
            self.log,
            timeout_s=settings.store.timeout_s,
            max_accounts=settings.server.max_accounts,
            flush_interval_s=settings.store.flush_interval_s,
            refresh_s=settings.store.refresh_s,
        )
        keys = settings.keys
        self.accounts = Accounts(self.policy, self.sync, lowercase=keys.lowercase, default_domain=keys.default_domain)

    async def run(self) -> None:
        """Start, serve, stop. Raises StartError."""
        for number in SIGNALS:  # one that is still pending when the receiver closes must not kill
            signal.signal(number, signal.SIG_IGN)
        with trio.open_signal_receiver(*SIGNALS) as signals:
            self.state.acquire()
            try:
                await self._run(signals)
            finally:
                if self.config.settings.pid_file:
                    remove_pid_file(self.config.path(self.config.settings.pid_file))
                self.log.close()
                self.state.release()

    async def _run(self, signals: AsyncIterator[int]) -> None:
        settings = self.config.settings
        clients = bounds(self.config)
        self._open()
        try:
            await self._recover()
            if clients.max_connections < settings.server.max_connections:
                self.log.warning(
                    "file descriptors (ulimit -n, LimitNOFILE) do not suffice for server.max_connections",
                    max_connections=settings.server.max_connections,
                    in_force=clients.max_connections,
                )
            warn(self.config, self.log)
            await self.notifier.begin()
            # Before the others: whoever sees that mail is decided on can ask about it.
            control_mode = int(settings.control.mode, 8)
            control_listener = open_control(self.config.control_socket, control_mode)
            try:
                self.sockets.open(self.config)
            except StartError:
                close_all([control_listener])
                raise
        except StartError:
            self.journal.close()
            await self.store.close()
            raise
        listeners = self.sockets.policy
        self.pump = Pump(
            listeners,
            self.policy,
            self.journal,
            self.log,
            clients,
            default_domain=settings.keys.default_domain,
            hurry=self.sync.hurry,
        )
        self.status = DaemonStatus(self.config.file, self.policy, self.pump, self.sync, self.journal, self.log)
        self.reloader = Reloader(
            self.config,
            self.policy,
            self.sync,
            self.pump,
            self.journal,
            self.log,
            self.accounts,
            self.notifier,
        )
        administration = Administration(self.accounts, self.status, self.log, self.write_dump, self.reload)
        announce(self.config, self.store.name, [describe(listener) for listener in listeners], self.log)
        systemd.ready(self._status())
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.log.drain)
                nursery.start_soon(self.keywatch.run)
                nursery.start_soon(self.sync.load, self.pump)
                nursery.start_soon(self.sync.keep)
                nursery.start_soon(self.pump.tick)
                nursery.start_soon(self.notifier.run)
                nursery.start_soon(keep_watchdog)
                if self.sockets.metrics is not None:
                    nursery.start_soon(self._serve_metrics, self.sockets.metrics)
                nursery.start_soon(self.status.sample)
                nursery.start_soon(Control(administration.answers, self.log, control_mode).run, control_listener)
                nursery.start_soon(self._obey, signals, nursery)
                await self.pump.run()
                await self.notifier.stop()
                nursery.cancel_scope.cancel()
        finally:
            self.pump.close()
            await self.sync.finish(settings.server.shutdown_timeout_s)
            self.log.info("ratelimitd has stopped", requests=self.pump.requests)

    def _open_journal(self) -> Journal:
        folder = self.state.path / "journal"
        try:
            folder.mkdir(mode=0o750, exist_ok=True)
        except OSError as error:
            raise StartError(f"state_dir: {folder}: {error.strerror}; it must be writable") from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise StartError(f"state_dir: {folder}: {os.strerror(errno.EACCES)}; it must be writable")
        return Journal(folder, secrets.token_hex(16), self.config.settings.journal_sync)

    async def _recover(self) -> None:
        await recover(
            self.sync.backlog,
            self.sync,
            self.policy,
            self.log,
            self.config.settings.server.max_transactions,
            show_progress if sys.stderr.isatty() else None,
        )

    async def _obey(self, signals: AsyncIterator[int], nursery: trio.Nursery) -> None:
        async for number in signals:
            if number == signal.SIGUSR1:
                with suppress(StartError):
                    await self.write_dump()
            elif number == signal.SIGHUP:
                with suppress(RatelimitdError):
                    await self.reload()
            else:
                systemd.stopping()
                for again in STOPPING:  # to be told twice, or in a storm of them, is no worse
                    signal.signal(again, signal.SIG_IGN)
                self.log.info("stopping", signal=signal.Signals(number).name)
                self.pump.shut_down()
                nursery.start_soon(self._stop_by_deadline)

    async def reload(self) -> list[str]:
        """Obey the configuration as it is now; the settings that only a new start obeys. Raises RatelimitdError."""
        systemd.reloading()
        try:
            return await self.reloader.reload()
        finally:
            self.config, self.sockets.policy = self.reloader.config, self.pump.connections.listeners
            systemd.ready(self._status())

    async def _serve_metrics(self, listener: socket.socket) -> None:
        from ratelimitd.metrics import Figures  # needs the extra `metrics`

        figures = Figures(self, self.config.settings.metrics.top_accounts)
        await serve(listener, {"/metrics": figures.metrics, "/healthz": figures.healthz}, figures.failed)

    def _status(self) -> str:
        return "deciding at " + " ".join(describe(listener) for listener in self.sockets.policy)

    async def _stop_by_deadline(self) -> None:
        await trio.sleep(self.config.settings.server.shutdown_timeout_s / 2)
        self.pump.abort()

    async def write_dump(self) -> Path:
        """Write the cache to `state_dir/cache.dump`, and say so. Raises StartError."""
        text = [part async for part in dump.lines(self.policy)]
        numbers = {"Requests": self.pump.requests, "Connections": len(self.pump.connections.open)}
        text.append(dump.totals(self.policy, **numbers, **{"Log lines dropped": self.log.dropped}))
        try:
            path = await trio.to_thread.run_sync(self.state.replace, "cache.dump", "".join(text))
        except StartError as error:
            self.log.error("the cache cannot be dumped", reason=error)
            raise
        self.log.info("the cache is dumped", file=path)
        return path


def run(config: Configuration) -> None:
    """Run a daemon until it is told to stop. Raises StartError."""
    # Accounts and transactions are not the collector's (gc=False), what is there from the start is frozen: what it
    # walks is little. Small steps, for a flush has many objects at a time: 1 ms at most while 10,000 are stored.
    gc.freeze()
    gc.set_threshold(1_000, 10, 50)
    daemon = Daemon(config)
    try:
        prepare(config, daemon.state, daemon.sockets)
        trio.run(daemon.run, strict_exception_groups=True)
    finally:
        close_all(daemon.sockets.policy)
