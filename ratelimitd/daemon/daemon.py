"""The daemon's life: it starts, serves in one nursery, reacts to signals, and stops.

Its parts are made in parts.py; what only root may do is done before, in start.py.
"""

import gc
import os
import signal
import socket
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import trio

from ratelimitd.config.read import Configuration
from ratelimitd.control.socket import Control
from ratelimitd.control.verbs import Administration
from ratelimitd.daemon.banner import announce
from ratelimitd.daemon.parts import Parts, compose, hold
from ratelimitd.daemon.reaper import keep_reaping
from ratelimitd.daemon.reload import Reloader
from ratelimitd.daemon.start import prepare, remove_pid_file, warn
from ratelimitd.errors import InternalError, RatelimitdError
from ratelimitd.net import systemd
from ratelimitd.net.http import serve
from ratelimitd.sync.recovery import show_progress

STOPPING = (signal.SIGTERM, signal.SIGINT)
ENDS_AFTER = 2.6
"""A process that has not ended after so many times `shutdown_timeout_s` does not wait for its threads any more: half of
one is the clients', one the last flush's, and one the end of the store's."""
TICKS_PER_S = 2
SIGNALS = (signal.SIGUSR1, signal.SIGHUP, *STOPPING)


class Daemon:
    """One daemon. `run` ends after SIGTERM or SIGINT, when everything is stored.

    `lost`: it has ended, and could neither store nor keep in the journal what it had answered.
    """

    def __init__(self, config: Configuration, parts: Parts) -> None:
        self.lost = False
        self.parts = parts
        self._reloader = Reloader(config, parts)
        administration = Administration(parts.accounts, parts.status, parts.log, parts.dump, self._reloader.reload)
        self._control = Control(administration.answers, parts.log, config.settings.control.socket_mode)

    @property
    def config(self) -> Configuration:
        """The configuration in force."""
        return self._reloader.config

    async def run(self) -> None:
        """Start, serve, stop. Raises StartError; InternalError."""
        for number in SIGNALS:  # one that is still pending when the receiver closes must not kill
            signal.signal(number, signal.SIG_IGN)
        with trio.open_signal_receiver(*SIGNALS) as signals:
            try:
                await self._start()
                await self._serve(signals)
            except RatelimitdError:
                raise
            except Exception as error:
                raise self._fault(error) from error

    async def _start(self) -> None:
        """Everything up to the first request. Raises StartError, with the store closed again."""
        parts, config = self.parts, self.config
        progress = show_progress if sys.stderr.isatty() else None
        try:
            await parts.recover(progress)
            warn(config, parts.connections.bounds.max_connections, parts.log)
            await parts.notifier.begin()
            # The control socket first: whoever sees that mail is decided on can ask about it.
            parts.sockets.open_control(config)
            parts.sockets.open(config)
        except BaseException:
            await parts.sync.link.close()
            raise
        gc.freeze()  # with the dicts of the accounts, which the collector walks from Python 3.14 on
        announce(config, parts.sync.link.name, parts.sockets.policy.addresses, parts.log)
        systemd.ready(self._reloader.summary)

    async def _serve(self, signals: AsyncIterator[int]) -> None:
        parts = self.parts
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(parts.log.drain)
                nursery.start_soon(parts.sync.load, parts.pump)
                nursery.start_soon(parts.sync.keep)
                nursery.start_soon(parts.backlog.keep_ahead)
                nursery.start_soon(self._tick)
                nursery.start_soon(parts.notifier.run)
                nursery.start_soon(systemd.keep_watchdog)
                nursery.start_soon(keep_reaping)
                for listener in parts.sockets.metrics:
                    nursery.start_soon(self._serve_metrics, listener)
                for listener in parts.sockets.control:
                    nursery.start_soon(self._control.run, listener)
                jobs: dict[int, _OnDemand] = {
                    signal.SIGHUP: _OnDemand(self._reloader.reload),
                    signal.SIGUSR1: _OnDemand(parts.dump.write),
                }
                for job in jobs.values():
                    nursery.start_soon(job.run)
                nursery.start_soon(self._take_signals, signals, nursery, jobs)
                await parts.pump.run()
                await parts.notifier.stop()
                nursery.cancel_scope.cancel()
        finally:
            parts.pump.close()
            self.lost = not await parts.sync.finish(self.config.settings.server.shutdown_timeout_s)
            parts.log.info("ratelimitd has stopped", requests=parts.pump.requests)

    async def _tick(self) -> None:
        """Look at what is looked at now and then, by one timer, so that an idle daemon sleeps; as long as it runs."""
        parts = self.parts
        try:
            while True:
                parts.status.sample()
                parts.keywatch.look()
                for _ in range(TICKS_PER_S):
                    await trio.sleep(1 / TICKS_PER_S)
                    parts.pump.tick()
        finally:
            parts.keywatch.look()

    def _fault(self, error: Exception) -> InternalError:
        """Say in one line what has ended the daemon, and where; the traceback is for whoever looks for the fault."""
        first = error
        while isinstance(first, ExceptionGroup):
            first = first.exceptions[0]
        at = traceback.extract_tb(first.__traceback__)[-1]
        where = f"{Path(at.filename).name}:{at.lineno}"
        self.parts.log.error("an internal error has ended the daemon; please report it", error=repr(first), at=where)
        self.parts.log.debug("the internal error in full", traceback="".join(traceback.format_exception(error)))
        return InternalError(f"an internal error has ended the daemon; please report it: {first!r} at {where}")

    async def _serve_metrics(self, listener: socket.socket) -> None:
        from ratelimitd.metrics import Figures  # needs the extra `metrics`

        figures = Figures(self.parts, self.config.settings.metrics.top_accounts)
        await serve(listener, {"/metrics": figures.metrics, "/healthz": figures.healthz}, figures.failed)

    async def _take_signals(
        self, signals: AsyncIterator[int], nursery: trio.Nursery, jobs: dict[int, "_OnDemand"]
    ) -> None:
        """Take signals, and wait for nothing that they ask for: the one to stop may be next."""
        async for number in signals:
            if number in jobs:
                jobs[number].ask()
            else:
                self._stop(number)
                nursery.start_soon(self._stop_by_deadline)

    def _stop(self, number: int) -> None:
        systemd.stopping()
        for again in STOPPING:  # a second one, or a storm of them, changes nothing
            signal.signal(again, signal.SIG_IGN)
        self.parts.log.info("stopping", signal=signal.Signals(number).name)
        trio.lowlevel.spawn_system_task(self._end_by_deadline)
        self.parts.pump.shut_down()

    async def _end_by_deadline(self) -> None:
        """End the process where a thread keeps it from ending: one that a file blocks, which nothing can cancel.

        All tasks but this one may be waiting for it. What is not stored is in the journal already.
        """
        await trio.sleep(ENDS_AFTER * self.config.settings.server.shutdown_timeout_s)
        lost = self.parts.sync.flusher.in_memory_only
        said = "stopping without the last flush, which a file or disk blocks; counts are in the journal"
        self.parts.log.error(f"{said}, or lost where it could not be written" if lost else said)
        self.parts.log.close()
        if self.config.settings.pid_file:
            remove_pid_file(self.config.path(self.config.settings.pid_file))
        os._exit(lost)

    async def _stop_by_deadline(self) -> None:
        await trio.sleep(self.config.settings.server.shutdown_timeout_s / 2)
        self.parts.pump.abort()


class _OnDemand:
    """A job that is done when it is asked for; asked for while it is done, it is done once more."""

    def __init__(self, job: Callable[[], Awaitable[object]]) -> None:
        self._job = job
        self._asked = trio.Event()

    def ask(self) -> None:
        """Have it done."""
        self._asked.set()

    async def run(self) -> None:
        """Do it whenever it is asked for; runs as long as the daemon."""
        while True:
            await self._asked.wait()
            self._asked = trio.Event()
            with suppress(RatelimitdError):  # it is in the log
                await self._job()


def run(config: Configuration) -> bool:
    """Run a daemon until SIGTERM or SIGINT; whether nothing was lost. Raises StartError; InternalError."""
    # The garbage collector has little to walk: accounts and transactions are not tracked (gc=False), and what exists
    # at the start is frozen. Small steps, because a flush makes many objects: 1 ms at most while 10,000 are stored.
    gc.freeze()
    gc.set_threshold(1_000, 10, 50)
    held = hold(config)
    try:
        prepare(config, held)
        parts = compose(config, held)
        try:
            daemon = Daemon(config, parts)
            trio.run(daemon.run, strict_exception_groups=True)
        finally:
            parts.close()
    finally:
        if config.settings.pid_file:
            remove_pid_file(config.path(config.settings.pid_file))
        held.release()
    return not daemon.lost
