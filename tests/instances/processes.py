"""A server process in a session of its own, which never survives the test run."""

import atexit
import contextlib
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from . import guard
from .waiting import wait_until


@functools.cache
def _guard() -> "subprocess.Popen[str]":
    """The guard process, started with the first server."""
    process = subprocess.Popen(
        [sys.executable, "-I", guard.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        cwd="/",
    )
    atexit.register(process.communicate)
    return process


def _note(sign: str, session: int) -> None:
    pipe = _guard().stdin
    assert pipe is not None
    pipe.write(f"{sign}{session}\n")
    pipe.flush()


class Running(Protocol):
    """What a Process needs of Popen."""

    pid: int

    @property
    def returncode(self) -> int | None: ...
    def poll(self) -> int | None: ...
    def wait(self) -> int: ...
    def send_signal(self, number: int, /) -> None: ...


class Process:
    """A running server. What it prints goes to the file `log`; its stderr to the descriptor `stderr`, if given."""

    def __init__(self, argv: Sequence[str | Path], log: Path, stderr: int | None = None) -> None:
        self.argv = [str(word) for word in argv]
        self.log = log
        _guard()
        with log.open("ab") as output:
            errors = output.fileno() if stderr is None else stderr
            self._process = self._begin(output.fileno(), errors, os.environ | {"LC_ALL": "C"})
        self.pid = self._process.pid
        _note("+", self.pid)

    def _begin(self, stdout: int, stderr: int, env: Mapping[str, str]) -> Running:
        return subprocess.Popen(
            self.argv,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            env=env,
            cwd="/",
        )

    def running(self) -> bool:
        """Whether the server itself runs."""
        return self._process.poll() is None

    def wait(self, timeout: float = 60) -> int:
        """Wait until it ends by itself: its exit status."""
        wait_until(lambda: not self.running(), f"the end of {self.argv[0]}", timeout)
        _note("-", self.pid)
        return self._process.wait()

    def check(self) -> None:
        """RuntimeError, with the end of its log, when the server has ended."""
        if not self.running():
            raise RuntimeError(f"{self.argv[0]} ended with {self._process.returncode}:\n{self.tail()}")

    def tail(self, length: int = 4000) -> str:
        """The end of what it printed."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-length:]

    def cpu_s(self) -> float:
        """User and system time so far, of the server and its children, also of those that have ended."""
        ticks = 0
        for pid in guard.session_pids(self.pid):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += sum(map(int, fields[11:15]))  # its own, and of the children that it has waited for
        return ticks / os.sysconf("SC_CLK_TCK")

    def signal(self, number: int) -> None:
        """Send a signal to the server itself."""
        self._process.send_signal(number)

    def signal_all(self, number: int) -> None:
        """Send a signal to the server and all its children."""
        for pid in guard.session_pids(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(self, timeout: float = 30) -> None:
        """SIGTERM, then wait until it and its children are gone; what is left after `timeout` is killed."""
        try:
            self.signal_all(signal.SIGCONT)
            self.signal(signal.SIGTERM)
            wait_until(self._gone, "the server's end", timeout)
        except TimeoutError:
            pass
        finally:
            self.kill()

    def kill(self) -> None:
        """SIGKILL for it and its children."""
        guard.kill_session(self.pid)
        self._process.wait()
        _note("-", self.pid)

    def _gone(self) -> bool:
        return not self.running() and not guard.session_pids(self.pid)
