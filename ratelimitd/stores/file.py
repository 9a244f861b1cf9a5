"""The file of the SQLite store: checked before it is opened, and known again afterwards.

Somebody may replace or remove it while it is open. Then its old content goes on being read and written, and nobody
will ever see that: so it is compared with what stands at its path, by device and inode.
"""

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from ratelimitd.errors import StoreError, StoreReplaced, StoreUnsuitable

BUSY_TIMEOUT_S = 5.0
"""How long a flush waits for another process that writes (an administrator's sqlite3)."""

_MODE = 0o640
_BESIDE = ("-wal", "-shm")
_PRIMARY_CODE = 0xFF
_UNUSABLE = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)

Identity = tuple[int, int]
"""A device and an inode."""


class DatabaseFile:
    """The file at a path: `prepare` it, `connect`, `remember` what is open; then `check`. `discard` after closing.

    Methods block; they raise sqlite3.Error and OSError besides what they say.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._identity: Identity | None = None
        self._beside: dict[Path, Identity | None] = {}

    def prepare(self) -> None:
        """Create the file, unless it is there and sound. Raises StoreUnsuitable; the file is left as it is then."""
        with suppress(FileExistsError):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE))
        self._identity = _identity(self.path)
        try:
            # Read-only: a connection that may write would write as it closes.
            with closing(sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", BUSY_TIMEOUT_S, uri=True)) as read:
                ((found,),) = read.execute("PRAGMA quick_check(1)")
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & _PRIMARY_CODE not in _UNUSABLE:
                raise
            found = str(error)
        if found != "ok":
            reason = " ".join(found.replace("*** in database main ***", "").split())
            raise StoreUnsuitable(f"{self.path}: damaged, or no SQLite database; it is left as it is: {reason}")

    def connect(self) -> sqlite3.Connection:
        """A connection."""
        connection = sqlite3.connect(
            self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, cached_statements=16
        )
        connection.text_factory = _text
        return connection

    def remember(self) -> None:
        """Note what stands beside the file, once it is open. Raises StoreError where it was replaced meanwhile."""
        if self._identity is None or _identity(self.path) != self._identity:
            raise StoreError(f"{self.path}: replaced while it was opened")
        self._beside = {path: _identity(path) for path in self._paths_beside()}

    def check(self) -> None:
        """Raise StoreReplaced where another file, or none, stands at the path."""
        found = _identity(self.path)
        if found != self._identity:
            raise StoreReplaced(f"{self.path} was {'replaced' if found else 'removed'}")

    def discard(self) -> None:
        """Remove the log of changes of a file that was replaced, after it was closed: else SQLite would apply it to the
        one that stands there now."""
        if self._identity is not None and _identity(self.path) != self._identity:
            for path in self._paths_beside():
                if (left := _identity(path)) and left == self._beside.get(path):
                    path.unlink()
        self._identity = None

    def _paths_beside(self) -> list[Path]:
        return [self.path.with_name(self.path.name + suffix) for suffix in _BESIDE]


def _identity(path: Path) -> Identity | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _text(value: bytes) -> str:
    """A text of the database, with surrogates for what is not UTF-8: the driver would give up the whole query."""
    return value.decode("utf-8", "surrogateescape")
