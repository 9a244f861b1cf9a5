"""A stand-in for systemd: hears what a service tells it, opens sockets for it, and starts it as systemd does."""

import os
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

LAUNCHER = """\
import os, socket, sys
addresses, argv = sys.argv[1].split(","), sys.argv[2:]
for n, address in enumerate(addresses):
    if address.startswith("/"):
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(address)
    else:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", int(address)))
    if "{listen}" == "True":
        sock.listen(64)
    fd = sock.detach()
    if fd != 3 + n:
        os.dup2(fd, 3 + n)
        os.close(fd)
    os.set_inheritable(3 + n, True)
os.environ |= {{"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(addresses)), "LISTEN_FDNAMES": "a:b"}}
os.execv(argv[0], argv)
"""


def activation(addresses: Sequence[int | Path], listen: bool = True) -> list[str]:
    """What to put before a command so that it gets listening sockets: ports of 127.0.0.1, paths."""
    text = LAUNCHER.format(listen=listen)
    return [sys.executable, "-I", "-c", text, ",".join(str(address) for address in addresses)]


class Manager:
    """Hears notifications; `environment` is what the service has to be started with."""

    def __init__(self, folder: Path, watchdog_s: float = 0) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(folder / "notify"))
        self.environment = ["env", f"NOTIFY_SOCKET={folder / 'notify'}"]
        if watchdog_s:
            self.environment.append(f"WATCHDOG_USEC={int(watchdog_s * 1e6)}")
        os.environ.pop("WATCHDOG_PID", None)

    def hear(self, timeout_s: float = 60) -> dict[str, str]:
        """The next notification. Raises TimeoutError."""
        self._socket.settimeout(timeout_s)
        return dict(line.split("=", 1) for line in self._socket.recv(65536).decode().split("\n"))

    def drain(self) -> None:
        """Forget what was told so far."""
        with suppress(BlockingIOError):
            while True:
                self.hear(timeout_s=0)

    def wait_for(self, name: str) -> dict[str, str]:
        """The next notification of this kind; others are skipped."""
        while name not in (heard := self.hear()):
            pass
        return heard

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
