"""A file that is only looked at, while no daemon runs: nothing is created, written or locked.

`lookup`, `recorded` and `changes` work as ever; what would write fails.
"""

import sqlite3
from collections.abc import Collection
from pathlib import Path

import trio

from ratelimitd.errors import StoreError
from ratelimitd.stores import Names
from ratelimitd.stores.file import text, uri
from ratelimitd.stores.sqlite import SQLiteStore

_LATER = ("seen", "until", "in_parts")
"""Columns that tables of earlier versions lack."""


class SQLiteLook(SQLiteStore):
    """One file, for reading alone."""

    def __init__(self, path: Path, names: Names | None = None) -> None:
        super().__init__(path, names)
        self._at = path
        self._reader: sqlite3.Connection | None = None
        self._scanner: sqlite3.Connection | None = None
        self._alone = False  # no daemon had the file open
        self._lacks: list[str] = []  # columns; SQLite would take the name of one that is not there for a text

    async def open(self) -> None:
        """Open the file, if there is one."""
        await self._run(self._look, self._reading)

    async def forget(self, but: Collection[str], now: int) -> None:
        """Nothing: a daemon forgets runs of long ago."""

    async def check(self) -> None:
        """Raise StoreError where a daemon has begun to write to the file: what was read since may be half of each."""
        if self._alone and await trio.to_thread.run_sync(self._has_log):
            raise StoreError(f"{self.name}: a daemon has started meanwhile; ask again")

    def _has_log(self) -> bool:
        return self._at.with_name(self._at.name + "-wal").exists()

    async def settle_default(self, *, change: bool) -> None:
        """Nothing: a start does."""

    def _look(self) -> None:
        # Without a write-ahead log the file is complete, and `immutable` keeps SQLite from making one for us.
        self._alone = not self._has_log()
        address = f"{uri(self._at)}?mode=ro{'&immutable=1' if self._alone else ''}"
        reader = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)
        try:
            self._find_lacks(reader)
        except BaseException:
            reader.close()
            raise
        self._reader = self._scanner = reader

    def _find_lacks(self, reader: sqlite3.Connection) -> None:
        reader.text_factory = text
        # A file of a version before may lack these: its rows say what was used.
        self._history.exists = bool(reader.execute(f'PRAGMA table_info("{self._names.table}_history")').fetchall())
        there = {name for _, name, *_ in reader.execute(f'PRAGMA table_info("{self._names.table}")')}
        ours = dict(self._names.columns)
        self._lacks = [name for name in _LATER if ours.get(name, name) not in there]

    def _sql(self, statement: str) -> str:
        for name in self._lacks:
            statement = statement.replace(f'"{name}"', "NULL")
        return super()._sql(statement)
