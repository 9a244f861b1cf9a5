"""The state directory: the daemon's lock on it, its folders, files that are replaced atomically."""

import contextlib
import errno
import fcntl
import os
from pathlib import Path

from ratelimitd.errors import InUse, StartError

DAEMON, CTL = "ratelimitd", "ratelimitctl"
"""Who may hold the lock: the daemon, for as long as it runs; ratelimitctl, for a moment, while no daemon runs."""


class StateDir:
    """A folder that one daemon at a time works in. Raises StartError where it cannot.

    `holder` is who held the lock when `acquire` failed last: DAEMON or CTL.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.holder = ""
        self._lock = -1

    def acquire(self, program: str = DAEMON) -> None:
        """Create the folder if need be, and lock it until `release` or the end of this process. Raises InUse."""
        if self._lock >= 0:
            return
        try:
            self.path.mkdir(mode=0o750, parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._lock = os.open(self.path / "lock", flags, 0o640)
        except OSError as error:
            raise StartError(f"state_dir: {self.path}: {error.strerror}; it must be writable") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            *ctl, pid = os.read(self._lock, 64).decode("ascii", "replace").split() or ["?"]
            self.holder = CTL if ctl == [CTL] else DAEMON
            self.release()
            other = self.holder if self.holder == CTL else f"another {DAEMON}"
            raise InUse(f"state_dir: {self.path}: in use by {other} (pid {pid})") from error
        with contextlib.suppress(OSError):  # it is for the message above only; a full disk does no harm
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, b"%s%d\n" % (b"" if program == DAEMON else program.encode() + b" ", os.getpid()), 0)

    def release(self) -> None:
        """Unlock it."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def folder(self, name: str) -> Path:
        """A folder in it, created if need be, that this process may write to. Raises StartError."""
        path = self.path / name
        try:
            path.mkdir(mode=0o750, exist_ok=True)
        except OSError as error:
            raise StartError(f"state_dir: {path}: {error.strerror}; it must be writable") from error
        if not os.access(path, os.W_OK | os.X_OK):
            raise StartError(f"state_dir: {path}: {os.strerror(errno.EACCES)}; it must be writable")
        return path

    def replace(self, name: str, text: str) -> Path:
        """Write a file whole or not at all; it is on the disk then."""
        path = self.path / name
        fresh = path.with_name(f".{name}.new")
        try:
            fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        except OSError as error:
            raise StartError(f"state_dir: {path}: {error.strerror}") from error
        return path

    def append(self, name: str, text: str) -> None:
        """Append to a file; it is on the disk then. It blocks: for a thread."""
        path = self.path / name
        try:
            # O_NONBLOCK: a pipe that nobody reads fails at once.
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC
            with os.fdopen(os.open(path, flags, 0o640), "a", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StartError(f"state_dir: {path}: {error.strerror}") from error
