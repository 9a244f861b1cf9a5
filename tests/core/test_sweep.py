"""What is forgotten, and when."""

from pathlib import Path

from ratelimitd.stores.sqlite import SQLiteStore
from tests.core.build import MIDNIGHT, NOON, limit, policy, row, store_sync


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
