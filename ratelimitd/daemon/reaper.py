"""As PID 1 (a container without an init), what commands leave behind becomes our child: it is reaped here.

The loop reaps what it has started itself, as soon as it ends. So a zombie that was there a while ago is nobody else's.
"""

import os
from collections.abc import Iterator
from contextlib import suppress

import trio

PERIOD_S = 5.0


async def keep_reaping() -> None:
    """Reap orphans, where we are PID 1; runs as long as the daemon."""
    zombies: set[int] = set()
    while os.getpid() == 1:
        await trio.sleep(PERIOD_S)
        zombies = await trio.to_thread.run_sync(reap, zombies)


def reap(known: set[int]) -> set[int]:
    """Reap our zombies that are `known`; the others."""
    zombies = set(_zombies())
    for pid in zombies & known:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    return zombies - known


def _zombies() -> Iterator[int]:
    """Our children that have ended and were not waited for (proc(5): PID (NAME) STATE PPID ...)."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    state, parent = file.read().rpartition(b")")[2].split()[:2]
            except (OSError, ValueError):  # gone meanwhile
                continue
            if state == b"Z" and int(parent) == os.getpid():
                yield int(name)
