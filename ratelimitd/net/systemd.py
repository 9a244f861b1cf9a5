"""The service manager: it learns of readiness, reloads and stops, watches the daemon, and may open its sockets.

The protocol of sd_notify(3) and sd_listen_fds(3), which other managers speak too. Without a manager nothing happens.
"""

import errno
import os
import socket
import time
from contextlib import suppress

import trio

from ratelimitd.errors import StartError

FIRST_FD = 3


_connected: list[socket.socket] = []
"""To the manager, where the daemon has become a user who may not reach its socket by name."""


def connect() -> None:
    """Connect to the manager while that is allowed: start-stop-daemon listens in a folder that only root may enter."""
    address = _address()
    if address:
        sock = _datagrams()
        try:
            sock.connect(address)
        except OSError:
            sock.close()
        else:
            _connected.append(sock)


def notify(*lines: str) -> bool:
    """Send these lines to the manager; whether they were sent. Never waits, never raises."""
    data, address = "\n".join(lines).encode(), _address()
    if not address:
        return False
    with suppress(OSError), _datagrams() as sock:
        sock.sendto(data, address)
        return True
    for sock in _connected:
        with suppress(OSError):
            sock.send(data)
            return True
    return False


def _address() -> str:
    address = os.environ.get("NOTIFY_SOCKET", "")
    return "\0" + address[1:] if address.startswith("@") else address


def _datagrams() -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.setblocking(False)
    return sock


def ready(status: str) -> None:
    """The daemon serves, after its start or a reload."""
    notify("READY=1", f"STATUS={status}")


def failed() -> None:
    """The daemon does not start: start-stop-daemon waits no longer. Why is said elsewhere; this has no words for it."""
    notify(f"ERRNO={errno.EINVAL}")


def reloading() -> None:
    """The daemon reads its configuration again; `ready` follows."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def stopping() -> None:
    """The daemon has begun to stop."""
    notify("STOPPING=1")


def watchdog_s() -> float:
    """Seconds within which the manager expects a sign of life; 0: it expects none."""
    text, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not text.isdigit() or (pid and pid != str(os.getpid())):
        return 0.0
    return int(text) / 1e6


async def keep_watchdog() -> None:
    """Give a sign of life twice per interval, from the loop that decides; runs as long as the daemon."""
    interval_s = watchdog_s()
    while interval_s:
        notify("WATCHDOG=1")
        await trio.sleep(interval_s / 2)


def take_sockets() -> list[socket.socket]:
    """The listening sockets that the manager opened for us; programs we start do not get them. Raises StartError."""
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    return [_take(fd) for fd in range(FIRST_FD, FIRST_FD + int(count))]


def _take(fd: int) -> socket.socket:
    try:
        listener = socket.socket(fileno=fd)
        listener.set_inheritable(False)
        listener.setblocking(False)
        listens = listener.type == socket.SOCK_STREAM and listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise StartError(f"socket activation: descriptor {fd}: {error.strerror}") from error
    if not listens:
        listener.detach()
        raise StartError(f"socket activation: descriptor {fd} is no listening stream socket (ListenStream=)")
    return listener
