"""A file that is only looked at, while no daemon runs: nothing is created, written or locked.

`lookup`, `recorded` and `changes` work as ever; what would write fails.
"""

import sqlite3
from collections.abc import Collection
from pathlib import Path
from urllib.parse import quote

from ratelimitd.stores import Names
from ratelimitd.stores.history import Kept
from ratelimitd.stores.sqlite import SQLiteStore


class SQLiteLook(SQLiteStore):
    """One file, for reading alone."""

    def __init__(self, path: Path, names: Names | None = None) -> None:
        super().__init__(path, names)
        self._at = path
        self._reader: sqlite3.Connection | None = None

    async def open(self) -> None:
        """Open the file, if there is one."""
        await self._run(self._look, self._reading)

    async def forget(self, but: Collection[str], now: int) -> None:
        """Nothing: a daemon forgets runs of long ago."""

    def _look(self) -> None:
        # Without a write-ahead log the file is complete, and `immutable` keeps SQLite from making one for us.
        alone = "" if self._at.with_name(self._at.name + "-wal").exists() else "&immutable=1"
        uri = f"file:{quote(str(self._at))}?mode=ro{alone}"
        self._reader = reader = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        if not reader.execute(f'PRAGMA table_info("{self._names.table}_history")').fetchall():
            self._history.configure(Kept())  # a file of the version before: its rows say what was used
