"""Who reads the SQLite file waits for nobody."""

import threading
from pathlib import Path

import pytest
import trio

from ratelimitd.core.rows import Account
from ratelimitd.stores import Changes, Cursor, sqlite_changes
from ratelimitd.stores.sqlite import SQLiteStore

NOW = 1_700_000_000


async def test_a_lookup_waits_for_no_long_look_at_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, done = threading.Event(), threading.Event()

    def since(*_: object) -> Changes:
        begun.set()
        done.wait()
        return Changes([], Cursor(""))

    monkeypatch.setattr(sqlite_changes, "since", since)
    store = SQLiteStore(tmp_path / "ratelimit.sqlite3")
    await store.open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.changes, None, NOW)
        await trio.to_thread.run_sync(begun.wait)
        try:
            with trio.fail_after(10):
                assert await store.lookup([Account("default", "alice@example.com")], NOW) == []
        finally:
            done.set()
    await store.close()
