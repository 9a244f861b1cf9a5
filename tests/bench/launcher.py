"""The daemon as the bench runs it: `launcher.py CONFIG [--no-journal] [--watch FILE]`.

`--no-journal`: charges are not journaled; to see what the journal costs. `--watch FILE`: a task that sleeps a
millisecond at a time notes how late it wakes; SIGUSR2 flushes, and appends a line of JSON to FILE about that flush.
"""

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import trio

from ratelimitd.core.verdict import Charge
from ratelimitd.daemon import main as cli
from ratelimitd.daemon.daemon import Daemon
from ratelimitd.state.journal import Journal

TICK_S = 0.001


class Steps(trio.abc.Instrument):
    """The longest step of any task in CPU time, since `worst_s` was last set to 0: what is our own in a stall."""

    def __init__(self) -> None:
        self.worst_s = 0.0
        self.worst = ""
        self._began = 0.0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """A task goes on."""
        self._began = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """It waits, or has ended."""
        took = time.thread_time() - self._began
        if took > self.worst_s:
            self.worst_s, self.worst = took, task.name


class Watch:
    """How late a task wakes, at worst, since `worst_s` was last set to 0."""

    def __init__(self, daemon: Daemon, file: Path) -> None:
        self.worst_s = 0.0
        self.steps = Steps()
        self._daemon = daemon
        self._file = file

    async def tick(self) -> None:
        """Measure, as long as the daemon runs."""
        last = trio.current_time()
        while True:
            await trio.sleep(TICK_S)
            now = trio.current_time()
            self.worst_s = max(self.worst_s, now - last - TICK_S)
            last = now

    async def obey(self) -> None:
        """At SIGUSR2: the worst lag of a flush, and of as long a time without one."""
        with trio.open_signal_receiver(signal.SIGUSR2) as signals:
            async for _ in signals:
                accounts = len(self._daemon.parts.policy.pending)
                self.worst_s = self.steps.worst_s = 0.0
                began = trio.current_time()
                stored = await self._daemon.parts.sync.flush()
                seconds, worst_s = trio.current_time() - began, self.worst_s
                await trio.sleep(TICK_S * 10)
                step = {"step_s": self.steps.worst_s, "step": self.steps.worst}
                self.worst_s = 0.0
                await trio.sleep(seconds)
                noted = {"accounts": accounts, "stored": stored, "seconds": seconds, "stall_s": worst_s}
                with self._file.open("a") as file:
                    file.write(json.dumps(noted | step | {"idle_stall_s": self.worst_s}) + "\n")


def _write_nothing(self: Journal, charges: Sequence[Charge]) -> None:
    """What Journal.write is replaced by."""


def _watch(file: Path) -> None:
    """Have every Daemon watched."""
    run = Daemon.run

    async def watched(self: Daemon) -> None:
        watch = Watch(self, file)
        async with trio.open_nursery() as nursery:
            trio.lowlevel.add_instrument(watch.steps)
            nursery.start_soon(watch.tick)
            nursery.start_soon(watch.obey)
            await run(self)
            nursery.cancel_scope.cancel()

    Daemon.run = watched  # type: ignore[method-assign]


def main() -> int:
    """Run the daemon until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("config")
    parser.add_argument("--no-journal", action="store_true")
    parser.add_argument("--watch", type=Path)
    options = parser.parse_args()
    if options.no_journal:
        Journal.write = _write_nothing  # type: ignore[method-assign]
    if options.watch:
        _watch(options.watch)
    return cli.main(["-c", options.config])


if __name__ == "__main__":
    sys.exit(main())
