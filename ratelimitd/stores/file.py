"""The file of the SQLite store: checked before it is opened, and known again afterwards.

Somebody may replace, remove or cut it while it is open, or the log of changes beside it. Then its old content goes on
being read and written, and nobody will ever see that: so all are compared with what stands at their paths, by device
and inode, and by size. The file is never opened here but by SQLite: closing it would end all locks that SQLite has.
"""

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import quote

from ratelimitd.errors import StoreError, StoreReplaced, StoreUnsuitable
from ratelimitd.stores.remarks import Remarks
from ratelimitd.stores.sqlite_writing import Writer

BUSY_TIMEOUT_S = 5.0
"""How long a flush waits for another process that writes (an administrator's sqlite3)."""

READ_ONLY = "the daemon's user may not write the database, which an administrator must change"
_MODE = 0o640
_BESIDE = ("-wal", "-shm")
_PRIMARY_CODE = 0xFF
_UNUSABLE = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)

C = TypeVar("C", bound=sqlite3.Connection)


class Found(NamedTuple):
    """What stands at a path."""

    device: int
    inode: int
    size: int

    def is_same(self, other: "Found | None") -> bool:
        """Whether it is the same file, of any size."""
        return other is not None and self[:2] == other[:2]


class DatabaseFile:
    """The file at a path: `prepare` it, `connect`, `remember` what is open; then `check`. `discard` after closing.

    Methods block; they raise sqlite3.Error and OSError besides what they say.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cut = False
        """Whether the open file has lost a part of itself: then nothing may be written to it as it is closed."""
        self._file: Found | None = None
        self._beside: dict[Path, Found | None] = {}

    def prepare(self, remarks: Remarks) -> None:
        """Create the file, unless it is there and sound. Raises StoreUnsuitable; the file is left as it is then.

        One that can be read and not written is a remark: SQLite would say so only at the first flush.
        """
        with suppress(FileExistsError):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE))
        if not self.path.is_file():  # SQLite would wait for somebody at the other end of a pipe
            raise StoreUnsuitable(f"{self.path}: not a regular file")
        self._file = _found(self.path)
        if fault := self._fault():
            raise StoreUnsuitable(f"{self.path}: damaged, or no SQLite database; it is left as it is: {fault}")
        for path in (self.path, *self._paths_beside()):
            if path.exists() and not os.access(path, os.W_OK):
                remarks.demand(READ_ONLY, f"chown {os.geteuid()} {path}")

    def connect(self) -> Writer:
        """A connection that may write."""
        return self._connected("rw", Writer)

    def connect_to_read(self) -> sqlite3.Connection:
        """A connection that cannot write, not even as it is closed; it holds the file from now on."""
        connection = self._connected("ro", sqlite3.Connection)
        try:
            connection.execute("PRAGMA schema_version").fetchone()
        except BaseException:
            connection.close()
            raise
        return connection

    def _connected(self, mode: str, kind: type[C]) -> C:
        connection: C = sqlite3.connect(
            f"{uri(self.path)}?mode={mode}", factory=kind,
            timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, cached_statements=8, uri=True,
        )  # fmt: skip
        connection.text_factory = text
        return connection

    def remember(self) -> None:
        """Note what stands beside the file, once it is open. Raises StoreError where it was replaced meanwhile."""
        found = _found(self.path)
        if self._file is None or not self._file.is_same(found):
            raise StoreError(f"{self.path}: replaced while it was opened")
        self._file = found
        self._beside = {path: _found(path) for path in self._paths_beside()}

    def check(self) -> None:
        """Raise StoreReplaced where another file, or none, stands at the path or beside it, or one was cut.

        SQLite removes none of them while the file is open. It makes them shorter, as somebody's VACUUM does: what has
        become shorter is read once, and must be sound.
        """
        file, beside = _found(self.path), {path: _found(path) for path in self._beside}
        shorter: list[Path] = []
        for path, before, now in [(self.path, self._file, file), *((p, self._beside[p], beside[p]) for p in beside)]:
            if before is not None and not before.is_same(now):
                raise StoreReplaced(f"{path} was {'replaced' if now else 'removed'}")
            if before is not None and now is not None and now.size < before.size:
                shorter.append(path)
        if shorter and (file is None or not file.size or self._fault()):
            self.cut = True
            raise StoreReplaced(f"{shorter[0]} was cut")
        self._file, self._beside = file, beside

    def discard(self) -> None:
        """Remove the log of changes of a file that was replaced, after it was closed: else SQLite would apply it to the
        one that stands there now."""
        if self._file is not None and not self._file.is_same(_found(self.path)):
            for path, known in self._beside.items():
                if known is not None and known.is_same(_found(path)):
                    path.unlink()
        self._file, self.cut = None, False

    def _fault(self) -> str:
        """What is wrong with the file as it can be read now; "" for nothing."""
        try:
            # Read-only: a connection that may write would write as it closes.
            with closing(sqlite3.connect(f"{uri(self.path)}?mode=ro", timeout=BUSY_TIMEOUT_S, uri=True)) as read:
                ((found,),) = read.execute("PRAGMA quick_check(1)")
        except sqlite3.DatabaseError as error:
            if not _is_damage(getattr(error, "sqlite_errorcode", 0)):
                raise
            found = str(error)
        return "" if found == "ok" else " ".join(found.replace("*** in database main ***", "").split())

    def _paths_beside(self) -> list[Path]:
        return [self.path.with_name(self.path.name + suffix) for suffix in _BESIDE]


def _is_damage(code: int) -> bool:
    """Whether an error of SQLite says that the file, or its log, is not whole."""
    return code & _PRIMARY_CODE in _UNUSABLE or code == sqlite3.SQLITE_IOERR_SHORT_READ


def _found(path: Path) -> Found | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return Found(found.st_dev, found.st_ino, found.st_size)


def uri(path: Path) -> str:
    """The address of a file for SQLite. Path.as_uri imports what it needs as it is called, since Python 3.13: the
    daemon's user may not be able to read that."""
    return f"file://{quote(os.fsencode(path.absolute()))}"


def text(value: bytes) -> str:
    """A text of the database, with surrogates for what is not UTF-8: the driver would give up the whole query."""
    return value.decode("utf-8", "surrogateescape")


def opened(connection: C | None) -> C:
    """The connection. Raises sqlite3.OperationalError where the store is not open."""
    if connection is None:
        raise sqlite3.OperationalError("not open")
    return connection
