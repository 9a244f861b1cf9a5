"""Nodes on one database whose windows end at different times: both nodes' counts of the same hours add up."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from ratelimitd.core.calendars import Calendar
from ratelimitd.core.windows import PeriodName
from ratelimitd.stores import Cursor
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
            limit.name, limit.key_name, limit.key_of, Calendar(self.period, ZoneInfo(zone), "sunday"), limit.quota,
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
        (row,) = (await SQLiteStore.changes(self.nodes[0].store, Cursor("0"), 0)).rows
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


FAR_APART = [
    ("hourly", ("UTC", "Asia/Kolkata")),  # 30 minutes
    ("daily", ("UTC", "Etc/GMT-12")),  # 12 hours
    ("daily", ("UTC", "America/Los_Angeles")),  # 7 hours or 17
    ("daily", ("Europe/Zurich", "Pacific/Auckland")),
    ("weekly", ("UTC", "Pacific/Auckland")),
]


@pytest.mark.parametrize("minute", [10, 40])
@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(("period", "zones"), FAR_APART)
async def test_of_windows_that_both_run_no_count_is_lost_however_far_apart_they_end(
    tmp_path: Path, period: PeriodName, zones: tuple[str, str], order: int, minute: int
) -> None:
    cluster = Cluster(tmp_path, period)
    cluster.clock.now = EVENING - 30 * 60 + minute * 60
    nodes = [await cluster.add(zone) for zone in zones][::order]
    for _ in range(4):
        for node in nodes:
            await node.ask("alice", 5)
        await cluster.flush(nodes)
    assert await cluster.used() == 40
    for node in nodes:
        await node.sync.refresh()
        assert (await node.ask("alice", 1)).used == 41
        assert node.sync.flusher.without_place == 0
    await cluster.flush(nodes)
    assert await cluster.used() == 42
    for node in nodes:
        await node.stop()


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("zones", [("UTC", "Etc/GMT-12"), ("UTC", "America/Los_Angeles"), ("UTC", "Europe/Zurich")])
async def test_what_was_used_in_a_window_that_is_over_is_not_carried_into_the_next_day(
    cluster: Cluster, zones: tuple[str, str], order: int
) -> None:
    """The common window ends at the end of one of the nodes' days, and both begin the next within one flush."""
    nodes = [await cluster.add(zone) for zone in zones][::order]
    for _ in range(30):
        for node in nodes:
            await node.ask("alice", 1)
        await cluster.flush(nodes)
        await cluster.flush(nodes)
        assert await cluster.used() <= 2 * 25
        cluster.clock.now += 2 * HOUR


async def test_counts_of_a_running_window_that_find_no_place_are_said_and_those_of_one_that_is_over_are_not(
    cluster: Cluster,
) -> None:
    """Another node's clock is ahead, so that it is in the next window already."""
    behind, ahead = await cluster.add("UTC"), await cluster.add("UTC")
    await behind.ask("alice", 5)
    cluster.clock.now += 3 * HOUR
    await ahead.ask("alice", 2)
    await cluster.flush([ahead])
    cluster.clock.now -= 3 * HOUR
    await cluster.flush([behind])
    assert await cluster.used() == 2
    assert [line.partition(": ")[2] for line in behind.said("found no place")] == [
        "the rows have later windows, of other nodes: counts found no place: recipients=5"
    ]
    assert behind.sync.flusher.without_place == 5
    await behind.ask("alice", 1)
    cluster.clock.now += 2 * 24 * HOUR
    await ahead.ask("alice", 1)
    await cluster.flush([ahead])
    await cluster.flush([behind])
    assert len(behind.said("found no place")) == 1
