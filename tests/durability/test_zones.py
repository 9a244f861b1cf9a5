"""Nodes on one database whose windows end at different times: both nodes' counts of the same hours add up."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from ratelimitd.core.windows import Period, PeriodName
from ratelimitd.stores.sqlite import SQLiteStore
from tests.durability.node import Node, make_limit

DATABASE = "ratelimit.sqlite3"
EVENING = int(datetime(2030, 3, 14, 21, 30, tzinfo=UTC).timestamp())
HOUR = 3600


class Clock:
    """A time that the test sets."""

    now = float(EVENING)

    def __call__(self) -> float:
        return self.now


class Cluster:
    """Nodes in the time zones that are named, with one database."""

    def __init__(self, folder: Path, period: PeriodName = "daily") -> None:
        self.folder = folder
        self.clock = Clock()
        self.period = period
        self.nodes: list[Node] = []

    async def add(self, zone: str, folder: str = "") -> Node:
        place = self.folder / (folder or f"node{len(self.nodes)}")
        place.mkdir(exist_ok=True)
        limit = make_limit(quota=100_000)
        limit = limit.__class__(
            limit.name, limit.key_name, limit.key_of, Period(self.period, ZoneInfo(zone), "sunday"), limit.quota,
            limit.action,
        )  # fmt: skip
        node = Node(place, [limit], self.clock)
        (place / DATABASE).unlink(missing_ok=True)
        node.store.__init__(self.folder / DATABASE)  # type: ignore[misc]
        self.nodes.append(node)
        await node.start()
        return node

    async def flush(self, nodes: Sequence[Node] = ()) -> None:
        for node in nodes or self.nodes:
            assert await node.flush()

    async def used(self) -> int:
        (row,) = (await SQLiteStore.changes(self.nodes[0].store, "0")).rows
        return row.used


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    made = Cluster(tmp_path)
    yield made
    for node in made.nodes:
        await node.stop()


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("zones", [("UTC", "Europe/Zurich"), ("America/New_York", "Europe/Zurich")])
async def test_counts_of_the_same_hours_add_up(cluster: Cluster, zones: tuple[str, str], order: int) -> None:
    nodes = [await cluster.add(zone) for zone in zones][::order]
    for node in nodes:
        await node.ask("alice", 5)
    await cluster.flush(nodes)
    assert await cluster.used() == 10
    for node in nodes:
        await node.ask("alice", 2)
    await cluster.flush(nodes)
    assert await cluster.used() == 14
    for node in nodes:
        await node.sync.refresh()
        assert (await node.ask("alice", 1)).used == 15
    await cluster.flush(nodes)


async def test_a_count_that_is_pending_when_another_windows_is_learnt_is_kept(cluster: Cluster) -> None:
    zurich, utc = await cluster.add("Europe/Zurich"), await cluster.add("UTC")
    await zurich.ask("alice", 5)
    await utc.ask("alice", 7)
    await cluster.flush([utc])
    await zurich.sync.refresh()
    assert (await zurich.ask("alice", 1)).used == 13
    await cluster.flush()
    assert await cluster.used() == 13


async def test_each_day_begins_again_and_nothing_is_carried_over(cluster: Cluster) -> None:
    nodes = [await cluster.add("UTC"), await cluster.add("Europe/Zurich")]
    for _ in range(4):
        for node in nodes:
            await node.ask("alice", 5)
        await cluster.flush()
        await cluster.flush()
        assert await cluster.used() == 10
        cluster.clock.now += 24 * HOUR


async def test_a_start_in_another_zone_while_the_database_is_unavailable_loses_nothing(cluster: Cluster) -> None:
    before = await cluster.add("Europe/Zurich", "one")
    await before.ask("alice", 5)
    assert await before.flush()
    await before.ask("alice", 3)
    assert not await before.flush("away")
    await before.crash()
    cluster.nodes.remove(before)
    after = await cluster.add("UTC", "one")
    await after.ask("alice", 4)
    assert not await after.flush("away")
    await after.ask("alice", 1)
    await cluster.flush()
    assert await cluster.used() == 13


async def test_counts_of_a_running_window_that_find_no_place_are_said_and_those_of_one_that_is_over_are_not(
    cluster: Cluster,
) -> None:
    """Half a period apart or more, it cannot be said whether windows are the same."""
    early, late = await cluster.add("Pacific/Auckland"), await cluster.add("America/Los_Angeles")
    cluster.clock.now = int(datetime(2030, 3, 14, 5, 0, tzinfo=UTC).timestamp())
    await early.ask("alice", 5)  # until 11:00
    cluster.clock.now += HOUR
    await late.ask("alice", 7)  # until 7:00
    cluster.clock.now += 2 * HOUR
    await late.ask("alice", 2)  # until 7:00 tomorrow
    await cluster.flush([late])
    await cluster.flush([early])
    assert await cluster.used() == 2
    assert [line.partition(": ")[2] for line in early.said("found no place")] == [
        "the rows have later windows, of other nodes: counts found no place: recipients=5"
    ]
    assert early.sync.flusher.without_place == 5
    assert not late.said("found no place")
