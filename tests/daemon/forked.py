"""A ratelimitd that is forked by a process which has imported it already; see tests.daemon.forkserver."""

import atexit
import contextlib
import functools
import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.instances.processes import Process

from . import forkserver

PROGRAM = Path(sys.executable).with_name("ratelimitd")


@functools.cache
def _server() -> socket.socket:
    """The fork server's socket; it is started with the first daemon."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-I", forkserver.__file__, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env=os.environ | {"LC_ALL": "C"},
            start_new_session=True,
            cwd="/",
        )
    atexit.register(process.wait)
    atexit.register(ours.close)
    return ours


class _Child:
    """A child of the fork server, as Popen has its own children."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], stdout: int, stderr: int) -> None:
        self._reports, report = os.pipe()
        try:
            message = json.dumps({"argv": argv, "env": dict(env)}).encode()
            socket.send_fds(_server(), [message], [stdout, stderr, report])
        finally:
            os.close(report)
        self.returncode: int | None = None
        self.pid = self._number()

    def poll(self) -> int | None:
        if self.returncode is None:
            reports = select.poll()
            reports.register(self._reports, select.POLLIN)
            if reports.poll(0):
                self.wait()
        return self.returncode

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = self._number()
            os.close(self._reports)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it ends now
                os.kill(self.pid, number)

    def _number(self) -> int:
        data = os.read(self._reports, forkserver.NUMBER.size)
        if not data:
            raise RuntimeError("the fork server has ended")
        number: int = forkserver.NUMBER.unpack(data)[0]
        return number


class _Forked(Process):
    def _begin(self, stdout: int, stderr: int, env: Mapping[str, str]) -> _Child:
        return _Child(self.argv, env, stdout, stderr)


def start(
    arguments: Sequence[str | Path], log: Path, *, prefix: Sequence[str] = (), stderr: int | None = None
) -> Process:
    """The program ratelimitd with these arguments: forked, or started by the command `prefix` where there is one."""
    kind = Process if prefix else _Forked
    return kind([*prefix, PROGRAM, *arguments], log, stderr)
