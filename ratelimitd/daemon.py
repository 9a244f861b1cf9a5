"""The daemon: everything put together, in one nursery that lives as long as it does."""

import signal
import sys
from collections.abc import AsyncIterator

import trio

from ratelimitd import __version__, dump
from ratelimitd.charges import Charges
from ratelimitd.config import Configuration
from ratelimitd.connections import Bounds
from ratelimitd.counters import Pending, Table
from ratelimitd.errors import JournalError, StartError
from ratelimitd.journal import Journal
from ratelimitd.keywatch import KeyWatch
from ratelimitd.listeners import describe, open_listener
from ratelimitd.logs import Log
from ratelimitd.policy import Policy
from ratelimitd.recovery import restore
from ratelimitd.server import Pump
from ratelimitd.sinks import FileSink, Sink, StderrSink, SyslogSink
from ratelimitd.state import StateDir
from ratelimitd.stores import Store
from ratelimitd.stores.access import access
from ratelimitd.stores.mysql import MySQLStore
from ratelimitd.stores.sqlite import SQLiteStore
from ratelimitd.sync import Sync

SIGNALS = (signal.SIGUSR1, signal.SIGHUP, signal.SIGTERM, signal.SIGINT)


def open_log(config: Configuration) -> Log:
    """The log as configured. Raises StartError."""
    settings = config.settings.log
    sinks: list[Sink] = []
    if settings.syslog:
        sinks.append(SyslogSink(settings.syslog, settings.ident, settings.facility))
    if settings.file:
        path = config.path(settings.file)
        try:
            sinks.append(FileSink(path))
        except OSError as error:
            raise StartError(f"log.file: {path}: {error.strerror}") from error
    if settings.stderr:
        sinks.append(StderrSink())
    log = Log(sinks, settings.format, settings.level)
    log.with_limit = len(config.limits) > 1
    return log


def open_store(config: Configuration) -> Store:
    """The store as configured, not yet connected. Raises StartError."""
    settings = config.settings.store
    if settings.backend == "mysql":
        return MySQLStore(access(settings, config.file.parent), config.names, settings.timeout_s)
    return SQLiteStore(config.state_dir / settings.path, config.names)


class Daemon:
    """One daemon. `run` ends when SIGTERM or SIGINT has been obeyed."""

    def __init__(self, config: Configuration) -> None:
        self.config = config
        settings = config.settings
        self.state = StateDir(config.state_dir)
        self.log = open_log(config)
        self.policy = Policy(
            [Table(limit) for limit in config.limits],
            Pending(),
            Charges(settings.server.max_transactions),
            count_rejected=settings.count_rejected,
            failure_reply=config.failure_action.fixed,
        )
        self.keywatch = KeyWatch(self.policy, self.log)
        self.store = open_store(config)

    async def run(self) -> None:
        """Start, serve, stop. Raises StartError."""
        for number in SIGNALS:  # one that is still pending when the receiver closes must not kill
            signal.signal(number, signal.SIG_IGN)
        with trio.open_signal_receiver(*SIGNALS) as signals:
            self.state.acquire()
            try:
                await self._run(signals)
            finally:
                self.log.close()
                self.state.release()

    async def _run(self, signals: AsyncIterator[int]) -> None:
        settings = self.config.settings
        self.journal = self._open_journal()
        server = settings.server
        self.sync = Sync(
            self.store,
            self.policy,
            self.journal,
            self.state,
            self.log,
            timeout_s=settings.store.timeout_s,
            max_accounts=server.max_accounts,
        )
        await self._recover()
        mode = int(server.unix_mode, 8)
        listeners = [open_listener(text, mode, server.unix_group) for text in server.listen]
        bounds = Bounds(
            self.config.allow,
            server.max_connections,
            server.max_request_bytes,
            server.request_timeout_s,
            self.config.unix_uids,
        )
        self.pump = Pump(
            listeners,
            self.policy,
            self.journal,
            self.log,
            bounds,
            default_domain=settings.keys.default_domain,
        )
        self._announce([describe(listener) for listener in listeners])
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.log.drain)
                nursery.start_soon(self.keywatch.run)
                nursery.start_soon(self.sync.load, self.pump)
                nursery.start_soon(self.sync.keep, settings.store.flush_interval_s, settings.store.refresh_s)
                nursery.start_soon(self.pump.tick)
                nursery.start_soon(self._obey, signals, nursery)
                await self.pump.run()
                nursery.cancel_scope.cancel()
        finally:
            self.pump.close()
            with trio.move_on_after(settings.server.shutdown_timeout_s, shield=True):
                await self.sync.finish()
            self.log.info("ratelimitd has stopped", requests=self.pump.requests)

    def _open_journal(self) -> Journal:
        folder = self.state.path / "journal"
        try:
            folder.mkdir(mode=0o750, exist_ok=True)
        except OSError as error:
            raise StartError(f"state_dir: {folder}: {error.strerror}; it must be writable") from error
        return Journal(folder, self.state.node(), self.config.settings.journal_sync)

    async def _recover(self) -> None:
        """Replay the segments of an earlier run that are not stored."""
        try:
            segments = self.journal.recover()
        except (JournalError, OSError) as error:
            raise StartError(f"journal: {error}") from error
        recorded = await self.sync.begin(segments[-1].number if segments else 0)
        stored = [segment for segment in segments if segment.node == self.journal.node and segment.number <= recorded]
        left = [segment for segment in segments if segment not in stored]
        if stored:
            self.journal.delete(stored[-1].number)
        records = restore(
            left,
            self.policy.tables,
            self.policy.pending,
            self.policy.charges,
            self.config.settings.server.max_transactions,
        )
        if records:
            self.log.warning("counts of an earlier run are replayed from the journal", records=records)
        for segment in left:
            if segment.damaged:
                self.log.warning("a segment's torn end is cut", number=segment.number, size=segment.damaged)

    async def _obey(self, signals: AsyncIterator[int], nursery: trio.Nursery) -> None:
        async for number in signals:
            if number == signal.SIGUSR1:
                await self.write_dump()
            elif number == signal.SIGHUP:
                self.log.reopen()
                self.log.info("log files are opened anew")
            else:
                self.log.info("stopping", signal=signal.Signals(number).name)
                self.pump.shut_down()
                nursery.start_soon(self._stop_by_deadline)

    async def _stop_by_deadline(self) -> None:
        await trio.sleep(self.config.settings.server.shutdown_timeout_s / 2)
        self.pump.abort()

    async def write_dump(self) -> None:
        """Write the cache to `state_dir/cache.dump`, and say so."""
        text = [part async for part in dump.lines(self.policy)]
        numbers = {"Requests": self.pump.requests, "Connections": len(self.pump.connections.open)}
        text.append(dump.totals(self.policy, **numbers, **{"Log lines dropped": self.log.dropped}))
        try:
            path = await trio.to_thread.run_sync(self.state.replace, "cache.dump", "".join(text))
        except StartError as error:
            self.log.error("the cache cannot be dumped", reason=error)
            return
        self.log.info("the cache is dumped", file=path)

    def _announce(self, addresses: list[str]) -> None:
        limits = [
            f"{limit.name}: {limit.quota or 'unlimited'} {limit.period.name} per {limit.key_name}"
            for limit in self.config.limits
        ]
        self.log.info(
            f"ratelimitd {__version__} is ready",
            listen=" ".join(addresses),
            store=self.store.name,
            limits="; ".join(limits),
        )
        if sys.stderr.isatty():
            first = addresses[0] if addresses[0].startswith("unix:") else f"inet:{addresses[0]}"
            print(
                f"ratelimitd {__version__} is ready",
                *[f"  listening on  {address}" for address in addresses],
                f"  store         {self.store.name}",
                *[f"  limit         {limit}" for limit in limits],
                "  Postfix       in main.cf, then `postfix reload`:",
                "    smtpd_sender_restrictions = check_policy_service",
                f"        {{ {first}, timeout=10s, default_action=DUNNO }}",
                "  to stop       Ctrl-C",
                sep="\n",
                file=sys.stderr,
                flush=True,
            )


def run(config: Configuration) -> None:
    """Run a daemon until it is told to stop. Raises StartError."""
    trio.run(Daemon(config).run, strict_exception_groups=True)
