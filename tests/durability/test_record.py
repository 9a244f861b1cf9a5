"""Somebody changes what the database records as stored, or holds as used: nothing is lost silently, or doubled."""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ratelimitd.core.rows import Known
from tests.durability.node import Node, make_limit

NOW = 1_900_000_000
REPLACED, LOST, ASIDE = "the database was replaced", "the store is unavailable", "segments of an earlier run are set"
WRONG = ["99999", "-1", "'abc'", "''", "x'00'", "1.5", "9223372036854775807"]
"""Numbers that no run has, as SQL: above every segment, or none at all."""
Make = Callable[[], Awaitable[Node]]


class Clock:
    """A time that stands still."""

    def __call__(self) -> float:
        return NOW


def build(folder: Path) -> Node:
    return Node(folder, [make_limit(quota=1000)], Clock())


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    """It has stored 10 recipients of alice."""
    made = build(tmp_path)
    await made.start()
    await made.ask("alice", 10)
    assert await made.flush()
    yield made
    await made.stop()


async def again(node: Node) -> Node:
    """The next run on the same files."""
    made = build(node.folder)
    await made.start()
    return made


async def used(node: Node, key: str = "alice") -> int:
    row = (await node.rows()).get(("default", key))
    return row.used if row is not None else 0


def record(node: Node, number: str, run: str = "") -> None:
    """What somebody types who must not."""
    node.edit(f"UPDATE ratelimit_node SET segment = {number} WHERE node = ?", run or node.journal.node)


def aside(node: Node) -> list[str]:
    return sorted(path.name for path in (node.folder / "journal").glob("*.aside"))


# -- this run's number -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", WRONG)
async def test_a_number_of_this_run_that_cannot_be_is_set_right_and_every_charge_counts(
    node: Node, number: str
) -> None:
    record(node, number)
    for recipients in (1, 2, 3):
        await node.ask("alice", recipients)
        assert await node.flush()
    assert await used(node) == 16
    assert (await node.ask("alice", 1)).used == 17
    assert len(node.said(REPLACED)) == 1
    assert not node.said(LOST)
    assert await node.store.recorded(node.journal.node) == node.backlog.recorded


@pytest.mark.parametrize("number", WRONG)
async def test_a_number_that_cannot_be_lets_nobody_past_a_quota(node: Node, number: str) -> None:
    admitted = 10
    for _ in range(5):
        record(node, number)
        for _ in range(300):
            admitted += not (await node.ask("alice", 1)).refused
        assert await node.flush()
    assert admitted == 1000


@pytest.mark.parametrize("number", WRONG)
async def test_a_number_is_set_right_before_the_first_flush(tmp_path: Path, number: str) -> None:
    node = build(tmp_path)
    await node.start()
    node.edit(f"INSERT INTO ratelimit_node (node, segment) VALUES (?, {number})", node.journal.node)
    await node.ask("alice", 3)
    assert await node.flush()
    assert await used(node) == 3
    await node.stop()


async def test_an_account_is_looked_up_rightly_while_the_number_is_wrong(node: Node) -> None:
    """Its charges are pending, and no flush has come since."""
    await node.ask("alice", 5)
    assert not await node.flush("before")
    record(node, "99999")
    node.policy.meters[0].counters["alice"].knowledge = node.policy.meters[0].counters["alice"].knowledge.UNREAD
    node.sync.link.succeeded()
    assert (await node.ask("alice", 1)).used == 16
    assert await node.flush()
    assert await used(node) == 16


@pytest.mark.parametrize("times", [1, 3])
async def test_a_flush_whose_commit_was_not_acknowledged_is_no_number_that_cannot_be(node: Node, times: int) -> None:
    for _ in range(times):
        await node.ask("alice", 5)
        assert not await node.flush("after")
    assert await node.flush()
    assert await used(node) == 10 + 5 * times
    assert not node.said(REPLACED)


# -- an earlier run's number -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", WRONG)
async def test_segments_of_a_run_whose_number_cannot_be_are_kept_aside_and_all_else_goes_on(
    node: Node, number: str
) -> None:
    await node.ask("alice", 5)
    await node.crash()
    record(node, number)
    run = node.journal.node
    node = await again(node)
    assert len(node.said(ASIDE)) == len(node.said(run)) == 1
    assert aside(node) == [f"{run[:8]}-2.aside"]
    assert (await node.ask("alice", 1)).used == 11
    assert await node.flush()
    assert await used(node) == 11
    assert not node.said(LOST)
    await node.crash()
    node = await again(node)
    assert not node.said(ASIDE)
    assert await used(node) == 11
    await node.stop()


async def test_what_was_kept_aside_counts_once_the_number_is_right(node: Node) -> None:
    await node.ask("alice", 5)
    await node.crash()
    record(node, "99999")
    run = node.journal.node
    node = await again(node)
    (name,) = aside(node)
    await node.stop()
    record(node, "1", run)
    folder = node.folder / "journal"
    (folder / name).rename(folder / "2.segment")
    node = await again(node)
    assert await node.flush()
    assert await used(node) == 15
    await node.stop()


@pytest.mark.parametrize("number", WRONG)
async def test_segments_that_were_replayed_without_the_store_are_kept_aside_by_the_first_flush(
    node: Node, number: str
) -> None:
    await node.ask("alice", 5)
    await node.ask("bob", 2)
    await node.crash()
    record(node, number)
    run = node.journal.node
    node = build(node.folder)
    node.store.fault = "away"
    await node.start()
    assert (await node.ask("alice", 1)).used == 6
    assert await node.flush()
    assert len(node.said(ASIDE)) == 1
    assert aside(node) == [f"{run[:8]}-2.aside"]
    assert (await node.ask("alice", 1)).used == 12
    assert await node.flush()
    assert (await used(node), await used(node, "bob")) == (12, 0)
    await node.crash()
    node = await again(node)
    assert (await node.ask("alice", 1)).used == 13
    await node.stop()


async def test_the_number_of_one_run_that_cannot_be_costs_another_nothing(node: Node) -> None:
    runs = [node.journal.node]
    for _ in range(2):
        await node.ask("alice", 5)
        await node.crash()
        node = build(node.folder)
        node.store.fault = "away"
        await node.start()
        runs.append(node.journal.node)
    await node.crash()
    record(node, "'abc'", runs[0])
    node = await again(node)
    assert await node.flush()
    assert await used(node) == 15
    assert len(node.said(ASIDE)) == 1
    await node.stop()


async def test_an_older_copy_of_the_state_directory_doubles_nothing(node: Node) -> None:
    """The run went on after the copy was made: its number is above every segment in it, and these are all stored."""
    await node.ask("alice", 5)
    folder = node.folder / "journal"
    copies = {path.name: path.read_bytes() for path in folder.glob("*.segment")}
    for _ in range(3):
        assert await node.flush()
        await node.ask("alice", 1)
    await node.stop()
    for name, content in copies.items():
        (folder / name).write_bytes(content)
    node = await again(node)
    assert (await node.ask("alice", 1)).used == 19
    assert await node.flush()
    assert await used(node) == 19
    await node.stop()


async def test_what_a_full_disk_kept_in_memory_alone_doubles_nothing(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Segments without files are stored, and the daemon is killed before older files are put away."""
    await node.ask("alice", 5)
    assert not await node.flush("before")
    node.journal.folder.chmod(0o555)
    monkeypatch.setattr("os.open", _refuse)
    for _ in range(3):
        await node.ask("alice", 1)
        await node.flush("before")
    monkeypatch.setattr(node.backlog, "put_away", _nothing)
    assert await node.flush()
    monkeypatch.undo()
    node.journal.folder.chmod(0o755)
    await node.crash()
    node = await again(node)
    assert (await node.ask("alice", 1)).used == 19
    assert await node.flush()
    assert await used(node) == 19
    await node.stop()


def _refuse(*_: object, **__: object) -> int:
    raise OSError(28, "No space left on device")


async def _nothing(_: object) -> None:
    """A kill comes first."""


# -- what is used ------------------------------------------------------------------------------------------------------

NONSENSE = ["used = 'abc'", "used = -5", "expiry = '2026-12-31'", "expiry = -1", "used = 'x', expiry = 'y'",
            "used = '', quota = 'many', persist = 'yes'"]  # fmt: skip


@pytest.mark.parametrize("seen", [False, True])
@pytest.mark.parametrize("nonsense", NONSENSE)
async def test_a_use_that_is_none_costs_nothing_that_memory_knows(node: Node, nonsense: str, seen: bool) -> None:
    node.edit(f"UPDATE ratelimit SET {nonsense}")
    if seen:
        await node.sync.refresh()
    await node.ask("alice", 5)
    await node.ask("bob", 1)
    assert await node.flush()
    assert await used(node) == 15
    assert (await node.ask("alice", 1)).used == 16
    assert await node.flush()
    assert (await used(node), await used(node, "bob")) == (16, 1)
    assert not node.said(LOST)


@pytest.mark.parametrize("nonsense", NONSENSE[:-1])
async def test_a_use_that_is_none_is_replaced_without_another_charge(node: Node, nonsense: str) -> None:
    node.edit(f"UPDATE ratelimit SET {nonsense}")
    await node.sync.refresh()
    assert await node.flush()
    assert await used(node) == 10
    await node.stop()
    node = await again(node)
    assert (await node.ask("alice", 1)).used == 11
    await node.stop()


@pytest.mark.parametrize("nonsense", NONSENSE[:-1])
async def test_a_use_that_is_none_while_a_commit_is_in_doubt_counts_once(node: Node, nonsense: str) -> None:
    node.edit(f"UPDATE ratelimit SET {nonsense}")
    await node.ask("alice", 5)
    assert not await node.flush("after")
    assert await node.flush()
    assert (await node.ask("alice", 1)).used == 16
    assert await node.flush()
    assert await used(node) == 16


@pytest.mark.parametrize("nonsense", NONSENSE[:-1])
async def test_a_use_that_is_none_again_as_soon_as_it_was_repaired_costs_no_charge(node: Node, nonsense: str) -> None:
    """Memory does not take the row that the flush had written over the first one: that has the last charges alone."""
    restore = node.store.restore

    async def hindered(known: Sequence[Known], now: int) -> None:
        await restore(known, now)
        node.edit(f"UPDATE ratelimit SET {nonsense}")

    node.store.restore = hindered  # type: ignore[method-assign]
    node.edit(f"UPDATE ratelimit SET {nonsense}")
    await node.ask("alice", 5)
    assert await node.flush()
    node.store.restore = restore  # type: ignore[method-assign]
    assert (await node.ask("alice", 1)).used == 16
    assert await node.flush()
    assert await used(node) == 16


async def test_uses_of_accounts_that_nobody_knows_are_left_alone(node: Node) -> None:
    for n in range(30):
        node.edit("INSERT INTO ratelimit (sender, limit_name, used) VALUES (?, 'default', 'abc')", f"user{n}")
    await node.sync.refresh()
    assert await node.flush()
    assert not node.store.remarks.unread
    assert (await node.ask("user1", 1)).used == 1
    assert await node.flush()
    assert await used(node, "user1") == 1


@pytest.mark.parametrize("fault", ["away", "before", "between", "after"])
async def test_a_use_that_is_none_costs_nothing_where_the_flush_fails(node: Node, fault: str) -> None:
    node.edit("UPDATE ratelimit SET used = 'abc'")
    await node.ask("alice", 5)
    assert not await node.flush(fault)
    await node.ask("alice", 1)
    assert await node.flush()
    assert await used(node) == 16
    assert (await node.ask("alice", 1)).used == 17


async def test_a_quota_that_is_given_with_a_use_that_is_none_is_kept(node: Node) -> None:
    node.edit("UPDATE ratelimit SET used = 'abc', quota = 14, persist = 1")
    await node.ask("alice", 1)
    assert await node.flush()
    row = (await node.rows())["default", "alice"]
    assert (row.used, row.quota, row.persist) == (11, 14, True)
    assert (await node.ask("alice", 4)).refused


@pytest.mark.parametrize("nonsense", [*NONSENSE, "quota = 'many'", "persist = 'yes'"])
async def test_a_row_that_makes_no_sense_is_put_back_with_what_memory_knows(node: Node, nonsense: str) -> None:
    node.edit(f"UPDATE ratelimit SET {nonsense}")
    node.edit("DELETE FROM ratelimit_node")
    await node.ask("alice", 5)
    assert await node.flush()
    assert await used(node) == 15
    assert len(node.said(REPLACED)) == 1


@pytest.mark.parametrize("there", [5, 50])
@pytest.mark.parametrize("later_s", [-3600, 3600])
async def test_a_window_of_another_time_zone_is_the_same_to_what_is_put_back(
    node: Node, later_s: int, there: int
) -> None:
    node.edit("UPDATE ratelimit SET expiry = expiry + ?, used = ?", later_s, there)
    node.edit("DELETE FROM ratelimit_node")
    await node.ask("alice", 1)
    assert await node.flush()
    assert await used(node) == max(10, there) + 1


# -- quotas ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("persist", [0, 1])
async def test_a_quota_that_memory_has_not_seen_yet_outlives_a_number_that_is_lost(node: Node, persist: int) -> None:
    node.edit("UPDATE ratelimit SET quota = 12, persist = ?", persist)
    node.edit("DELETE FROM ratelimit_node")
    await node.ask("alice", 1)
    assert await node.flush()
    row = (await node.rows())["default", "alice"]
    assert (row.used, row.quota_at(NOW, 1000), row.persist) == (11, 12, bool(persist))
    assert (await node.ask("alice", 2)).refused


# -- any of it, in any order -------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.sampled_from(["ask", "flush", "before", "after", "number", "lower", "text", "gone", "used", "expiry"]),
    max_size=12,
)
_folders = itertools.count(1)


@example(["ask", "flush", "used", "ask", "after", "flush", "number"])
@given(STEPS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_no_order_of_faults_loses_what_memory_knows(tmp_path: Path, steps: list[str]) -> None:
    """A number that is changed while a COMMIT is in doubt may count that flush again; nothing counts less."""
    folder = tmp_path / str(next(_folders))
    folder.mkdir()
    node = build(folder)
    await node.start()
    edits = {
        "number": "UPDATE ratelimit_node SET segment = 99999",
        "lower": "UPDATE ratelimit_node SET segment = segment - 1",
        "text": "UPDATE ratelimit_node SET segment = 'abc'",
        "gone": "DELETE FROM ratelimit_node",
        "used": "UPDATE ratelimit SET used = 'abc'",
        "expiry": "UPDATE ratelimit SET expiry = '2026-12-31'",
    }
    asked = in_doubt = 0
    doubled = False
    for step in steps:
        if step == "ask":
            asked += 1
            await node.ask("alice", 1)
        elif step in edits:
            node.edit(edits[step])
            doubled |= bool(in_doubt) and step in ("number", "lower", "text", "gone")
        elif await node.flush("" if step == "flush" else step):
            in_doubt = 0
        else:
            in_doubt += step == "after"
    if asked:
        await node.ask("alice", 1)
        assert await node.flush()
        assert await used(node) == asked + 1 or (doubled and await used(node) > asked)
    await node.stop()
