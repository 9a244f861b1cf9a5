"""The history of the store is what was charged: over kill -9, lost COMMITs, outages, with nodes whose clocks differ."""

import contextlib
import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from ratelimitd.settings import StoreSettings
from tests.core.build import NOON
from tests.durability.history import LIMITS, Pair, history_of
from tests.durability.node import FaultyStore, Node
from tests.instances.waiting import wait_until

SELECT = "SELECT limit_name, sender, expiry, used FROM ratelimit_history"


async def _sums_are_what_was_charged(folder: Path, seed: int, steps: int) -> None:
    file = folder / "shared.sqlite3"
    pair = Pair(folder, lambda: FaultyStore(file), random.Random(seed))
    await pair.start()
    for _ in range(steps):
        await pair.step()
    rows = await pair.stop()
    with contextlib.closing(sqlite3.connect(file)) as connection:
        stored = history_of(connection.execute(SELECT).fetchall())
    assert stored == pair.charged
    for row in rows:
        ends = [end for (name, key, end), _ in stored.items() if (name, key) == ("sliding", row.key)]
        assert row.expiry == max(ends)


@pytest.mark.parametrize("seed", range(6))
async def test_the_history_is_what_was_charged_by_window_whatever_fails(tmp_path: Path, seed: int) -> None:
    await _sums_are_what_was_charged(tmp_path, seed, 150)


@pytest.mark.long
async def test_the_history_is_what_was_charged_in_many_random_walks(tmp_path: Path) -> None:
    for number in range(200):
        seed = random.randrange(1 << 32)
        print("seed", seed)
        (folder := tmp_path / str(number)).mkdir()
        await _sums_are_what_was_charged(folder, seed, 300)


@pytest.mark.parametrize("days", [0, 30])
async def test_windows_that_end_in_an_outage_are_kept_where_the_history_is(tmp_path: Path, days: int) -> None:
    """Segments are merged while the store is unavailable: only the history needs those of windows that are over."""
    now = NOON
    node = Node(tmp_path, LIMITS[:1], lambda: now, history_days=days)
    await node.start()
    for _ in range(40):
        await node.ask("alice@example.com", 2, instance=str(now))
        assert not await node.flush("away")
        now += 1800
    assert len(node.policy.pending.closed) < 20
    await node.stop()
    with contextlib.closing(sqlite3.connect(tmp_path / "ratelimit.sqlite3")) as connection:
        stored = history_of(connection.execute(SELECT).fetchall())
    assert stored.total() == (80 if days else 0)
    assert len(stored) == (20 if days else 0)


async def test_a_reload_begins_and_ends_the_history_and_what_is_old_goes_while_the_daemon_runs(tmp_path: Path) -> None:
    node = Node(tmp_path, LIMITS[:1], time.time)
    await node.start()

    def count() -> int:
        with contextlib.closing(sqlite3.connect(tmp_path / "ratelimit.sqlite3")) as connection:
            ((found,),) = connection.execute("SELECT COUNT(*) FROM ratelimit_history")
        return int(found)

    async def until(wanted: int) -> None:
        await trio.to_thread.run_sync(wait_until, lambda: count() == wanted, f"{wanted} rows", 30)

    async with trio.open_nursery() as nursery:
        node.sync.configure(StoreSettings(flush_interval_s=0.05), 1000)
        nursery.start_soon(node.sync.keep)
        await node.ask("alice@example.com", 2, instance="1")
        await until(0)
        node.sync.configure(StoreSettings(flush_interval_s=0.05, history_days=3), 1000)
        await node.ask("alice@example.com", 2, instance="2")
        await until(1)
        insert = "INSERT INTO ratelimit_history VALUES ('bob@example.com', 'hourly', ?, 1)"
        with contextlib.closing(sqlite3.connect(tmp_path / "ratelimit.sqlite3")) as connection, connection:
            old = int(time.time()) - 3 * 86_400
            connection.executemany(insert, [(old - ago,) for ago in range(2500)])
        node.sync.configure(StoreSettings(flush_interval_s=0.05, history_days=3), 1000)
        await until(1)
        nursery.cancel_scope.cancel()
    await node.stop()


class Reloading(FaultyStore):
    """Has something done while old rows go for the first time; `asked` is set when they go again."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.meanwhile: list[Callable[[], None]] = []
        self.asked = trio.Event()

    async def forget_history(self, now: int) -> bool:
        if not self.meanwhile:
            self.asked.set()
        more = await super().forget_history(now)
        while self.meanwhile:
            self.meanwhile.pop()()
        return more


async def test_a_reload_while_old_rows_go_is_not_missed(tmp_path: Path) -> None:
    store = Reloading(tmp_path / "ratelimit.sqlite3")
    node = Node(tmp_path, LIMITS[:1], time.time, store=store)
    await node.start()
    store.meanwhile.append(lambda: node.sync.configure(StoreSettings(flush_interval_s=0.05, history_days=3), 1000))
    node.sync.configure(StoreSettings(flush_interval_s=0.05), 1000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.sync.keep)
        with trio.fail_after(10):
            await store.asked.wait()
        nursery.cancel_scope.cancel()
    await node.stop()
