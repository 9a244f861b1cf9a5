"""Faults around a flush: of the store at each step, of the journal, of the files; and what is left by earlier runs."""

import errno
import os
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import pytest

from ratelimitd.core.limits import Limit
from ratelimitd.core.rows import Account, Delta, Row
from ratelimitd.errors import StartError, StoreError, StoreUnsuitable
from ratelimitd.state import backlog, segments
from ratelimitd.stores import Flushed
from tests.core.build import rules
from tests.durability.node import Node, make_limit

NOW = 1_900_000_000
DAY = 86_400


class Clock:
    """A time that the test sets."""

    now = float(NOW)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(tmp_path: Path, clock: Clock) -> Callable[..., Node]:
    """Runs of the daemon on one state directory."""

    def make(*limits: Limit) -> Node:
        return Node(tmp_path, limits or [make_limit()], clock)

    return make


async def _started(make: Callable[..., Node], *limits: Limit) -> Node:
    node = make(*limits)
    await node.start()
    return node


async def _used(node: Node, key: str = "alice", limit: str = "default") -> int:
    row = (await node.rows()).get((limit, key))
    return row.used if row is not None else 0


@pytest.mark.parametrize("fault", ["away", "before", "between", "after"])
async def test_a_flush_that_fails_at_any_step_is_made_up_for(make: Callable[..., Node], fault: str) -> None:
    node = await _started(make)
    for _ in range(3):
        await node.ask("alice", 2)
        assert not await node.flush(fault)
    await node.ask("alice", 1)
    assert await node.flush()
    assert await _used(node) == 7
    assert node.journal.numbers() == [node.journal.number]
    assert len(node.said("the store is unavailable")) == len(node.said("the store is available again")) == 1
    await node.stop()


async def test_what_somebody_has_to_change_is_said_also_where_the_store_was_unavailable_before(
    make: Callable[..., Node],
) -> None:
    node = await _started(make)
    link = node.sync.link
    for error in ("gone", StoreUnsuitable("a wrong password"), "gone", StoreUnsuitable("another one")):
        link.failed(StoreError(error) if isinstance(error, str) else error)
    said = node.said("the store is unavailable")
    assert [("gone" in line, "a wrong password" in line) for line in said] == [(True, False), (False, True)]
    await node.stop()


@pytest.mark.parametrize("fault", ["away", "before", "between", "after"])
async def test_a_crash_after_a_flush_that_failed_at_any_step_is_made_up_for(
    make: Callable[..., Node], fault: str
) -> None:
    node = await _started(make)
    await node.ask("alice", 2)
    await node.flush(fault)
    await node.ask("alice", 3)
    await node.crash()
    node = await _started(make)
    verdict = await node.ask("alice", 1)
    assert verdict.used == 6
    assert await node.flush()
    assert await _used(node) == 6
    await node.stop()


@pytest.mark.parametrize("killed", [1, 2, 3])
async def test_a_request_is_charged_once_however_often_the_daemon_is_killed_before_it_is_answered(
    make: Callable[..., Node], killed: int
) -> None:
    node = await _started(make)
    assert (await node.ask("alice", instance="1.a")).charged == 1
    for _ in range(killed):
        await node.crash()
        node = await _started(make)
        await node.ask("bob", 1)
        assert await node.flush()
    assert (await node.ask("alice", instance="1.a")).charged == 0
    assert await node.flush()
    assert await _used(node) == 1
    await node.stop()


@pytest.mark.parametrize("ended", ["stop", "crash"])
@pytest.mark.parametrize("flushes", [[], [""], ["away"], ["after"], ["away"] * 20, [*["away"] * 20, ""]], ids=str)
async def test_a_restart_in_the_middle_of_a_transaction_charges_its_recipients_once(
    make: Callable[..., Node], ended: str, flushes: list[str]
) -> None:
    node = await _started(make)
    for i in range(30):
        assert (await node.ask("alice", instance="1.a", recipient=str(i))).charged == 1
        if i < len(flushes):
            await node.flush(flushes[i])
    for _ in range(2):
        await (node.stop() if ended == "stop" else node.crash())
        node = await _started(make)
    for i in range(30):
        assert (await node.ask("alice", instance="1.a", recipient=str(i))).charged == 0
    assert (await node.ask("alice", 50, instance="1.a")).charged == 20
    await (node.stop() if ended == "stop" else node.crash())
    node = await _started(make)
    assert (await node.ask("alice", 50, instance="1.a")).charged == 0
    assert await node.flush()
    assert await _used(node) == 50
    await node.stop()


async def test_a_refusal_is_remembered_with_its_limits_and_its_window_after_a_restart(
    make: Callable[..., Node], clock: Clock
) -> None:
    limits = (make_limit("mine", "email", "hourly", 2), make_limit("ours", "domain", "daily", 100))
    node = await _started(make, *limits)
    login = "alice@example.com"
    assert (await node.ask(login, 5, instance="1.a")).refused
    assert await node.flush()
    await node.stop()
    node = await _started(make, *limits)
    assert (await node.ask(login, 5, instance="1.a")).charged == 0
    clock.now += 3600
    again = await node.ask(login, 5, instance="1.a")
    assert (again.refused, again.charged, again.used) == (True, 5, 5)
    assert await node.flush()
    assert await _used(node, login, "mine") == 5
    assert await _used(node, "example.com", "ours") == 0
    await node.stop()


async def test_what_is_kept_of_stored_segments_makes_room_when_the_disk_is_full(
    make: Callable[..., Node], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await _started(make)
    await node.ask("alice", 1)
    assert await node.flush()
    kept = tmp_path / "journal" / "past"
    assert len(list(kept.iterdir())) == 1
    await node.ask("alice", 1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", _failing(errno.ENOSPC))
        await node.flush("away")
    assert list(kept.iterdir()) == []
    assert await node.flush()
    assert await _used(node) == 2
    await node.stop()


async def test_a_segment_that_cannot_be_deleted_is_not_stored_again(
    make: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await _started(make)
    await node.ask("alice", 2)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", _failing(errno.EROFS))
        patch.setattr(Path, "replace", _failing(errno.EROFS))
        assert await node.flush()
    assert node.said("a stored segment cannot be put away")
    await node.crash()
    node = await _started(make)
    assert (await node.ask("alice", 1)).used == 3
    assert await node.flush()
    assert await _used(node) == 3
    assert node.journal.numbers() == [node.journal.number]
    await node.stop()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
async def test_charges_made_while_the_disk_fails_are_in_the_journal_again_afterwards(
    make: Callable[..., Node], monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """The store is away all the time, and in the end the process is killed."""
    node = await _started(make)
    await node.flush("away")
    await node.ask("alice", 1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", _failing(code))
        patch.setattr(os, "fsync", _failing(code))
        for _ in range(3):
            assert (await node.ask("alice", 2)).charged == 2
            await node.flush("away")
    assert node.journal.failures == 3
    await node.ask("alice", 4)
    await node.flush("away")
    await node.ask("alice", 8)
    assert len(node.said("the journal cannot be written")) == len(node.said("the journal can be written again")) == 1
    await node.crash()
    node = await _started(make)
    assert await node.flush()
    assert await _used(node) == 19
    await node.stop()


async def test_a_journal_that_failed_while_nothing_was_asked_comes_back(
    make: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await _started(make)
    await node.ask("alice", 1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", _failing(errno.ENOSPC))
        assert await node.flush()
        assert not node.journal.writable
        assert await node.flush()
    assert await node.flush()
    await node.ask("alice", 2)
    await node.crash()
    node = await _started(make)
    assert await node.flush()
    assert await _used(node) == 3
    await node.stop()


async def test_what_is_stored_after_the_journal_came_back_is_not_stored_again(
    make: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory and journal go on in step: a segment is known to both by one number."""
    node = await _started(make)
    await node.ask("alice", 1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", _failing(errno.ENOSPC))
        assert await node.flush()
    assert await node.flush()
    await node.ask("alice", 2)
    assert await node.flush()
    await node.crash()
    node = await _started(make)
    assert await node.flush()
    assert await _used(node) == 3
    await node.stop()


async def test_only_what_the_journal_alone_knows_is_looked_up_for_an_administrator(
    make: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await _started(make)
    await node.ask("alice", 1)
    await node.crash()
    node = await _started(make)
    await node.ask("bob", 1)
    asked: list[list[Account]] = []
    monkeypatch.setattr(node.sync.loader, "look_up", _noting(asked))
    await node.sync.loader.look_up_unread([Account("default", key) for key in ("alice", "bob", "nobody")])
    await node.sync.loader.look_up_unread([Account("default", key) for key in ("bob", "nobody")])
    assert asked == [[Account("default", "alice")]]
    await node.stop()


def _noting(asked: list[list[Account]]) -> Callable[[list[Account]], Awaitable[None]]:
    async def look_up(accounts: list[Account]) -> None:
        asked.append(accounts)

    return look_up


async def test_a_sync_that_fails_has_the_segment_written_again(
    make: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await _started(make)
    await node.ask("alice", 1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", _failing(errno.EIO))
        await node.flush("away")
    assert node.said("the journal cannot be written")
    assert not node.backlog.incomplete, "rewritten whole, and synced"
    assert len(node.policy.pending.closed) == 1
    await node.crash()
    node = await _started(make)
    assert await node.flush()
    assert await _used(node) == 1
    await node.stop()


async def test_segments_are_bounded_while_the_store_is_away(make: Callable[..., Node]) -> None:
    node = await _started(make)
    for i in range(3 * backlog.MAX_CLOSED):
        await node.ask(f"user{i % 5}", 1)
        await node.flush("away")
        assert len(node.policy.pending.closed) <= backlog.MAX_CLOSED
        assert len(node.journal.numbers()) <= backlog.MAX_CLOSED + 1
    assert await node.flush()
    assert sum(row.used for row in (await node.rows()).values()) == 3 * backlog.MAX_CLOSED
    await node.stop()


async def test_of_many_windows_in_an_outage_the_last_is_kept_in_memory(make: Callable[..., Node], clock: Clock) -> None:
    node = await _started(make)
    for _ in range(backlog.MAX_CLOSED + 1):
        await node.ask("alice", 1)
        await node.flush("away")
        clock.now += DAY
    assert len(node.policy.pending) == 1
    await node.ask("alice", 3)
    assert await node.flush()
    assert await _used(node) == 3
    await node.stop()


async def test_segments_whose_storing_is_in_doubt_are_not_merged_with_others(
    make: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "MAX_CLOSED", 2)
    node = await _started(make)
    await node.ask("alice", 1)
    await node.flush("after")
    for _ in range(4):
        await node.ask("alice", 1)
        await node.flush("away")
    assert await node.flush()
    assert await _used(node) == 5
    await node.stop()


async def test_what_comes_in_while_a_flush_stores_is_divided_and_stored_by_the_next(
    make: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "ACCOUNTS", 1)
    node = await _started(make)
    await node.ask("alice", 1)
    with monkeypatch.context() as patch:
        flush = node.store.flush

        async def others_ask(run: str, segment: int, merge: Callable[[int], Iterable[Delta]]) -> Flushed:
            await node.ask("alice", 2)
            await node.ask("bob", 4)
            node.divide()
            return await flush(run, segment, merge)

        patch.setattr(node.store, "flush", others_ask)
        assert await node.flush()
    assert (await _used(node), await _used(node, "bob"), len(node.policy.pending.closed)) == (1, 0, 1)
    await node.crash()
    node = await _started(make)
    assert await node.flush()
    assert (await _used(node), await _used(node, "bob")) == (3, 4)
    await node.stop()


@pytest.mark.parametrize("fault", ["away", "before", "between", "after"])
async def test_each_transaction_stores_a_number_of_accounts(
    make: Callable[..., Node], monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(backlog, "ACCOUNTS", 2)
    node = await _started(make)
    for i in range(7):
        await node.ask(f"user{i}", 1)
        node.divide()
    assert [len(segment.deltas) for segment in node.policy.pending.closed] == [2, 2, 2]
    assert not await node.flush(fault)
    await node.ask("user7", 1)
    assert await node.flush()
    assert node.sync.flusher.count == 4
    assert [row.used for row in (await node.rows()).values()] == [1] * 8
    await node.stop()


async def test_a_start_that_finds_no_store_knows_later_what_is_stored_in_part(
    make: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of stored segments are left, as where they cannot be put away."""
    monkeypatch.setattr(backlog, "ACCOUNTS", 1)
    node = await _started(make)
    for i in range(3):
        await node.ask(f"user{i}", 1)
        node.divide()

    def stay(first: int, last: int) -> None:
        raise OSError(errno.EIO, "made to fail")

    monkeypatch.setattr(node.journal, "put_away", stay)
    assert await node.flush()
    await node.ask("user3", 1)
    await node.crash()
    node = make()
    node.store.fault = "away"
    await node.start()
    assert await node.flush()
    assert [await _used(node, f"user{i}") for i in range(4)] == [1] * 4
    assert not node.said("aside")
    await node.stop()


async def test_a_copied_state_directory_loses_and_doubles_nothing(
    make: Callable[..., Node], tmp_path: Path, clock: Clock
) -> None:
    """Both have the segments from before; each has its own from then on, with the same numbers."""
    node = await _started(make)
    await node.ask("alice", 1)
    await node.crash()
    copy = tmp_path / "copy"
    (copy / "journal").mkdir(parents=True)
    for path in (tmp_path / "journal").iterdir():
        (copy / "journal" / path.name).write_bytes(path.read_bytes())
    (copy / "ratelimit.sqlite3").symlink_to(tmp_path / "ratelimit.sqlite3")
    nodes = [await _started(make), Node(copy, [make_limit()], clock)]
    await nodes[1].start()
    for each in nodes:
        await each.ask("alice", 10)
        await each.ask("bob", 1)
    for each in nodes:
        assert await each.flush()
    assert await _used(nodes[0]) == 21
    assert await _used(nodes[0], "bob") == 2
    for each in nodes:
        await each.stop()


async def test_a_store_away_at_start_and_a_second_crash(make: Callable[..., Node]) -> None:
    node = await _started(make)
    await node.ask("alice", 1)
    await node.flush("after")
    await node.crash()
    for _ in range(2):
        node = make()
        node.store.fault = "away"
        await node.start()
        await node.ask("alice", 2)
        await node.flush("away")
        await node.crash()
    node = await _started(make)
    assert await node.flush()
    assert await _used(node) == 5
    await node.stop()


async def test_counts_of_a_limit_that_is_configured_no_more_are_stored(make: Callable[..., Node]) -> None:
    node = await _started(make, make_limit("old"), make_limit("kept"))
    await node.ask("alice", 3)
    await node.crash()
    node = await _started(make, make_limit("kept"), make_limit("new", quota=2))
    assert await node.flush()
    assert await _used(node, limit="old") == await _used(node, limit="kept") == 3
    assert await _used(node, limit="new") == 0
    await node.stop()


async def test_a_period_that_ends_between_charge_and_replay_gets_nothing_of_it(
    make: Callable[..., Node], clock: Clock
) -> None:
    node = await _started(make)
    await node.ask("alice", 3)
    await node.crash()
    clock.now += DAY
    node = await _started(make)
    assert (await node.ask("alice", 1)).used == 1
    assert await node.flush()
    assert await _used(node) == 1
    await node.stop()


async def test_a_row_deleted_by_hand_comes_back_with_the_next_mail(make: Callable[..., Node]) -> None:
    node = await _started(make)
    await node.ask("alice", 3)
    assert await node.flush()
    node.edit("DELETE FROM ratelimit")
    await node.ask("alice", 1)
    assert await node.flush()
    assert await _used(node) == 1
    assert (await node.ask("alice", 1)).used == 2
    await node.stop()


async def test_an_account_assumed_while_the_store_is_away_is_looked_up_when_it_is_back(
    make: Callable[..., Node],
) -> None:
    node = await _started(make)
    await node.ask("alice", 90)
    await node.stop()
    node = make()
    node.store.fault = "away"
    await node.start()
    assert (await node.ask("alice", 5)).used == 5
    assert not await node.flush("away")
    assert await node.flush()
    assert (await node.ask("alice", 5)).used == 100
    assert (await node.ask("alice", 1)).refused
    await node.stop()


async def test_a_lookup_that_a_flush_overtakes_counts_its_segment_once(make: Callable[..., Node]) -> None:
    """The row is read before the flush commits, and arrives after it is done."""
    node = await _started(make)
    await node.ask("alice", 3)
    await node.crash()
    node = await _started(make)
    lookup = node.store.lookup
    overtaken = False

    async def overtaken_lookup(accounts: list[Account], now: int) -> list[Row]:
        nonlocal overtaken
        rows = await lookup(accounts, now)
        if not overtaken:
            overtaken = True
            node.sync.loader.take_over = _nothing  # type: ignore[method-assign]
            assert await node.flush()
        return rows

    node.store.lookup = overtaken_lookup  # type: ignore[method-assign,assignment]
    assert (await node.ask("alice", 1)).used == 4
    assert overtaken
    await node.stop()


async def _nothing(rows: list[Row], stored: object = (), included: object = None) -> int:
    """A flush whose rows are taken over later than the lookup's."""
    return 0


async def test_a_record_that_the_database_refuses_is_set_aside_and_the_rest_is_stored(
    make: Callable[..., Node], tmp_path: Path
) -> None:
    node = await _started(make)
    node.edit(
        "CREATE TRIGGER no BEFORE INSERT ON ratelimit WHEN NEW.sender = 'bad' BEGIN SELECT RAISE(ABORT, 'x'); END"
    )
    await node.ask("bad", 2)
    await node.ask("alice", 3)
    assert await node.flush()
    assert await _used(node) == 3
    assert node.sync.flusher.rejected == 1
    assert node.said("the database refuses a record")
    assert (tmp_path / "rejected.tsv").read_text().split("\t")[:2] == ["default", "bad"]
    await node.stop()


async def test_what_was_asked_before_a_crash_is_not_charged_again(make: Callable[..., Node]) -> None:
    node = await _started(make)
    for recipient in ("a", "b"):
        await node.ask("alice", instance="i1", recipient=recipient)
    await node.crash()
    node = await _started(make)
    assert (await node.ask("alice", instance="i1", recipient="a")).charged == 0
    assert (await node.ask("alice", 3, instance="i1")).charged == 1
    assert await node.flush()
    assert await _used(node) == 3
    await node.stop()


async def test_the_end_while_the_store_is_away_leaves_everything_in_the_journal(make: Callable[..., Node]) -> None:
    node = await _started(make)
    await node.ask("alice", 2)
    node.store.fault = "away"
    await node.stop()
    assert node.said("stopping with counts that are in the journal only")
    node = await _started(make)
    assert await node.flush()
    assert await _used(node) == 2
    await node.stop()


async def test_a_damaged_segment_is_kept_aside_and_told(make: Callable[..., Node], tmp_path: Path) -> None:
    node = await _started(make)
    for login in ("alice", "bob", "carol"):
        await node.ask(login, 1)
    number = node.journal.number
    await node.crash()
    path = tmp_path / "journal" / f"{number}.segment"
    data = path.read_bytes()
    path.write_bytes(data.replace(b"bob", b"bot"))
    node = await _started(make)
    assert node.said("a segment is damaged")
    assert await node.flush()
    assert (await _used(node, "alice"), await _used(node, "bob"), await _used(node, "carol")) == (1, 0, 1)
    assert b"bot" in next((tmp_path / "journal").glob("*.damaged")).read_bytes()
    await node.stop()


async def test_a_newer_format_stops_the_start_and_is_left_as_it_is(make: Callable[..., Node], tmp_path: Path) -> None:
    node = make()
    path = tmp_path / "journal" / "7.segment"
    path.write_bytes(b"ratelimitd-journal 2 x\n")
    with pytest.raises(StartError, match="format 2; this ratelimitd reads format 1"):
        await node.start()
    assert path.read_bytes() == b"ratelimitd-journal 2 x\n"


def _failing(code: int) -> Callable[..., int]:
    def failing(*_: object, **__: object) -> int:
        raise OSError(code, os.strerror(code))

    return failing


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("restarted", [True, False])
async def test_a_clock_that_was_years_ahead_for_a_moment_locks_nobody(
    make: Callable[..., Node], clock: Clock, stored: bool, restarted: bool
) -> None:
    node = await _started(make, make_limit(quota=10))
    await node.ask("alice", 3)
    assert await node.flush()
    clock.now += 20 * 365 * DAY
    assert (await node.ask("alice", 11)).refused
    if stored:
        assert await node.flush()
    clock.now = NOW + 1
    if restarted:
        await node.crash()
        node = await _started(make, make_limit(quota=10))
    used = 1 if stored else 4  # the row in which it was stored had the count of before
    assert (await node.ask("alice", 1)).used == used
    for _ in range(2):
        assert await node.flush()
    assert len(node.said("counts whose window ends too far ahead begin again: was the clock ahead?")) == 1
    row = (await node.rows())["default", "alice"]
    assert (row.used, row.expiry) == (used, make_limit().period.end(NOW))
    await node.stop()


async def test_a_limit_that_comes_back_after_a_restart_without_it_knows_what_was_not_stored(
    make: Callable[..., Node],
) -> None:
    node = await _started(make, make_limit("kept"), make_limit("old", quota=10))
    await node.ask("alice", 8)
    await node.crash()
    node = make(make_limit("kept"))
    node.store.fault = "away"
    await node.start()
    node.policy.configure([make_limit("kept"), make_limit("old", quota=10)], rules(), int(node.clock()))
    node.store.fault = "away"
    assert not (await node.ask("alice", 2)).refused
    assert (await node.ask("alice", 1)).refused
    await node.crash()


async def test_a_malformed_record_in_a_whole_frame_is_kept_aside_and_the_start_goes_on(
    make: Callable[..., Node], tmp_path: Path
) -> None:
    node = await _started(make)
    await node.ask("alice", 2)
    number = node.journal.number
    await node.crash()
    path = tmp_path / "journal" / f"{number}.segment"
    path.write_bytes(path.read_bytes() + segments.frame("Znonsense\nR1.a bob\0r\0one\0default\0never\0bob\n"))
    node = await _started(make)
    assert len(node.said("a segment is damaged")) == 1
    assert await node.flush()
    assert await _used(node) == 2
    assert b"nonsense" in next((tmp_path / "journal").glob("*.damaged")).read_bytes()
    await node.stop()
