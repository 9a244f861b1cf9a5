"""What is forgotten, and when."""

from pathlib import Path

from ratelimitd.stores.sqlite import SQLiteStore
from tests.core.build import MIDNIGHT, NOON, charge, limit, policy, row, store_sync


async def test_accounts_are_not_forgotten_while_the_store_is_away(tmp_path: Path) -> None:
    asked = policy(limit(10))
    (meter,) = asked.meters
    meter.accept("alice", row("alice", quota=90, persist=True), 0, NOON)
    sync = store_sync(SQLiteStore(tmp_path / "store"), asked, tmp_path, lambda: MIDNIGHT + 1.0)
    await sync.sweep()
    assert "alice" in meter.counters
    sync.link.succeeded()
    await sync.sweep()
    assert "alice" not in meter.counters


async def test_an_account_that_is_stored_after_its_window_has_ended_is_forgotten_then(tmp_path: Path) -> None:
    asked = policy(limit(10))
    (meter,) = asked.meters
    now = float(NOON)
    sync = store_sync(SQLiteStore(tmp_path / "store"), asked, tmp_path, lambda: now)
    sync.link.succeeded()
    charge(asked.pending, meter.accept("alice", None, 0, NOON), 1)
    await sync.sweep()
    now = MIDNIGHT + 1.0
    await sync.sweep()
    assert "alice" in meter.counters
    asked.pending.close(2)
    asked.pending.stored(1)
    await sync.sweep()
    assert "alice" not in meter.counters
