"""What is forgotten, and when."""

from pathlib import Path

from ratelimitd.log.log import Log
from ratelimitd.state.directory import StateDir
from ratelimitd.stores.sqlite import SQLiteStore
from ratelimitd.sync.schedule import StoreSync
from tests.core.build import MIDNIGHT, NOON, journal_in, limit, policy, row


async def test_accounts_are_not_forgotten_while_the_store_is_away(tmp_path: Path) -> None:
    asked = policy(limit(10))
    (meter,) = asked.meters
    meter.accept("alice", row("alice", quota=90, persist=True), 0, NOON)
    log = Log([], "postfix-policyd", "info")
    sync = StoreSync(
        SQLiteStore(tmp_path / "store"),
        asked,
        journal_in(tmp_path),
        StateDir(tmp_path),
        log,
        clock=lambda: MIDNIGHT + 1.0,
    )
    await sync.sweep()
    assert "alice" in meter.counters
    sync.link.succeeded()
    await sync.sweep()
    assert "alice" not in meter.counters
