"""A process that outlives the test run only to kill what the run left behind.

It reads `+SESSION` and `-SESSION` lines, and at end of file (the test run is gone, even by kill -9) kills
every session that is still noted.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterable


def session_pids(session: int) -> list[int]:
    """The processes of a session, zombies aside."""
    pids = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                state, _, _, its_session = file.read().rpartition(")")[2].split()[:4]
        except (OSError, ValueError):
            continue
        if int(its_session) == session and state not in "ZX":
            pids.append(int(name))
    return pids


def kill_session(session: int) -> None:
    """Kill every process of a session, and those it forks meanwhile."""
    while pids := session_pids(session):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def watch(lines: Iterable[str]) -> None:
    """Follow the notes to their end, then kill what is left."""
    sessions: set[int] = set()
    for line in lines:
        session = int(line[1:])
        if line.startswith("+"):
            sessions.add(session)
        else:
            sessions.discard(session)
    for session in sessions:
        kill_session(session)


if __name__ == "__main__":
    watch(iter(sys.stdin.readline, ""))
