"""Where log lines go: syslog, a file, stderr. None of them ever blocks; what does not fit is dropped and counted.

/dev/log holds some ten datagrams; with its reader stopped, a blocking sender would stop the mail, and so would a disk
that hangs. So every sink has a bounded backlog: a task drains it when the reader is back, or a thread (scribe.py) as
fast as the disk is.
"""

import errno
import os
import select
import socket
import stat
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import trio

from ratelimitd.log import colour
from ratelimitd.log.scribe import Scribe

RETRY_S = 1.0
_PIPE_BUF = 4096  # a pipe that select calls writable takes this much without blocking (pipe(7))

PRIORITIES = {"critical": 2, "error": 3, "warning": 4, "notice": 5, "info": 6, "debug": 7}
FACILITIES = {
    "kern": 0,
    "user": 1,
    "mail": 2,
    "daemon": 3,
    "auth": 4,
    "syslog": 5,
    "lpr": 6,
    "news": 7,
    "uucp": 8,
}
FACILITIES |= {"cron": 9, "authpriv": 10, "ftp": 11} | {f"local{n}": 16 + n for n in range(8)}

_COLOURS = {
    level: colour.around(paint)
    for level, paint in {"critical": colour.RED, "error": colour.RED, "warning": colour.YELLOW}.items()
}
"""On a terminal. A warning is also what is over its quota."""

Entry = tuple[str, str]
"""A level, which is a key of PRIORITIES, and a line for the log without a time."""


class Sink(Protocol):
    """Takes lines without ever waiting."""

    @property
    def dropped(self) -> int:
        """How many lines it could not take."""
        ...

    @property
    def on_stderr(self) -> bool:
        """Whether its lines are seen on stderr."""
        ...

    @property
    def scribe(self) -> Scribe | None:
        """Who writes to its file; None where it has none."""
        ...

    def write(self, entries: Iterable[Entry]) -> None:
        """Take the lines, or drop and count them."""
        ...

    async def drain(self) -> None:
        """Deliver the backlog as the reader allows; runs as long as the daemon."""
        ...

    def reopen(self) -> None:
        """Open it again: the file was rotated, the socket replaced. Raises OSError, with nothing changed."""
        ...

    def close(self) -> None:
        """Deliver what can be delivered, without waiting for a reader, and close. It blocks where a disk is slow."""
        ...


class SyslogSink:
    """Datagrams to a local syslog socket in the form that syslog(3) sends (RFC 3164, without a host name)."""

    on_stderr = False
    scribe = None

    def __init__(self, path: str, ident: str, facility: str, backlog_bytes: int) -> None:
        self.dropped = 0
        self._path = path
        self._facility = FACILITIES[facility] << 3
        self._tag = f"{ident}[{os.getpid()}]: "
        self._backlog: deque[bytes] = deque()
        self._backlog_bytes = 0
        self._max_backlog_bytes = backlog_bytes
        self._wake = trio.Event()
        self._socket: socket.socket | None = None
        self._stamp_at = -1
        self._stamp = ""
        self._connect()

    def write(self, entries: Iterable[Entry]) -> None:
        """Send each line as a datagram."""
        now = int(time.time())
        if now != self._stamp_at:
            local = time.localtime(now)
            self._stamp_at = now
            self._stamp = time.strftime("%b ", local) + f"{local.tm_mday:2d}" + time.strftime(" %H:%M:%S ", local)
        for level, text in entries:
            data = f"<{self._facility + PRIORITIES[level]}>{self._stamp}{self._tag}{text}".encode()
            if self._backlog or not self._send(data):
                self._keep(data)

    def _keep(self, data: bytes) -> None:
        if self._backlog_bytes + len(data) > self._max_backlog_bytes:
            self.dropped += 1
            return
        self._backlog.append(data)
        self._backlog_bytes += len(data)
        self._wake.set()

    def _send(self, data: bytes) -> bool:
        """Whether the datagram is sent, or cannot be."""
        if self._socket is None:
            return False
        try:
            self._socket.send(data)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                self.dropped += 1
                return True
            self._disconnect()
            return False
        return True

    async def drain(self) -> None:
        """Send the backlog once the reader is back; connect again where the socket was replaced."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            while self._backlog:
                if self._socket is None and not self._connect():
                    await trio.sleep(RETRY_S)
                elif self._socket is not None and not self._send_backlog():
                    with suppress(trio.ClosedResourceError):  # reopened meanwhile
                        await trio.lowlevel.wait_writable(self._socket)

    def _send_backlog(self) -> bool:
        while self._backlog:
            if not self._send(self._backlog[0]):
                return self._socket is None
            self._backlog_bytes -= len(self._backlog.popleft())
        return True

    def _connect(self) -> bool:
        connecting = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        connecting.setblocking(False)
        try:
            connecting.connect(self._path)
        except OSError:
            connecting.close()
            return False
        self._socket = connecting
        return True

    def _disconnect(self) -> None:
        if self._socket is not None:
            closing, self._socket = self._socket, None
            with suppress(RuntimeError):  # before trio runs nothing waits for it
                trio.lowlevel.notify_closing(closing)
            closing.close()

    def reopen(self) -> None:
        """Connect again."""
        self._disconnect()
        self._connect()

    def close(self) -> None:
        """Send what the reader takes now, count the rest as dropped."""
        self._send_backlog()
        self.dropped += len(self._backlog)
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class FileSink:
    """Appends to a file, each line after its time as ctime(3) has it: the Perl daemon's log file.

    `bare`: the lines alone; they have their time in them.
    """

    on_stderr = False

    def __init__(self, path: Path, backlog_bytes: int, *, bare: bool = False) -> None:
        self._path = path
        self.scribe = Scribe(self._open(), backlog_bytes)
        self._bare = bare
        self._stamp_at = -1
        self._stamp = ""

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o640)

    @property
    def dropped(self) -> int:
        """How many lines are not in the file."""
        return self.scribe.dropped

    def write(self, entries: Iterable[Entry]) -> None:
        """Append the lines together."""
        now = int(time.time())
        if now != self._stamp_at:
            self._stamp_at, self._stamp = now, "" if self._bare else time.ctime(now) + " "
        stamp = self._stamp
        lines = [text for _, text in entries]
        if lines:
            self.scribe.write((stamp + f"\n{stamp}".join(lines) + "\n").encode())

    async def drain(self) -> None:
        """Nothing: while the disk is slow, a thread writes."""

    def reopen(self) -> None:
        """Write to the file that has the name now: logrotate has moved the old one."""
        self.scribe.switch(self._open())

    def close(self) -> None:
        """Write what waits, and close the file."""
        self.scribe.close()


class StderrSink:
    """Writes to stderr as long as it takes lines without blocking: a terminal that is stopped must not stop mail.

    On a terminal lines are coloured by their level; the text between the colours is the same. A file is written to as
    any log file is: it says that it takes everything, and waits for the disk.
    """

    on_stderr = True

    def __init__(self, backlog_bytes: int, fd: int = 2) -> None:
        self._fd = fd
        self._colours = _COLOURS if colour.wanted(fd) else {}
        self.scribe = Scribe(os.dup(fd), backlog_bytes) if _is_file(fd) else None
        self._refused = 0

    @property
    def dropped(self) -> int:
        """How many lines it did not take."""
        return self._refused + (self.scribe.dropped if self.scribe else 0)

    def write(self, entries: Iterable[Entry]) -> None:
        """Write each line, or drop it."""
        if self.scribe is not None:
            self.scribe.write("".join([f"{text}\n" for _, text in entries]).encode())
            return
        for level, text in entries:
            begin, end = self._colours.get(level, (b"", b""))
            data = begin + text.encode()[: _PIPE_BUF - 1] + end + b"\n"
            try:
                _, writable, _ = select.select([], [self._fd], [], 0)
                if not writable:
                    self._refused += 1
                    continue
                os.write(self._fd, data)
            except (OSError, ValueError):
                self._refused += 1

    async def drain(self) -> None:
        """Nothing: a stopped terminal's lines are dropped, and a thread writes while the disk under a file is slow."""

    def reopen(self) -> None:
        """Nothing: stderr stays."""

    def close(self) -> None:
        """Write what waits; stderr is not ours to close."""
        if self.scribe is not None:
            self.scribe.close()


def _is_file(fd: int) -> bool:
    try:
        return stat.S_ISREG(os.fstat(fd).st_mode)
    except OSError:
        return False
