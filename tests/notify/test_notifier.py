"""Deliveries: retries, bounds, the ledger across runs. Virtual time, targets in memory."""

import json
import threading
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock

from ratelimitd.errors import StartError
from ratelimitd.log.log import Log
from ratelimitd.log.quiet import QuietLog
from ratelimitd.net.credentials import Credentials
from ratelimitd.notify import notifier as notify
from ratelimitd.notify.configured import Notify, checked
from ratelimitd.notify.ledger import NAME, Ledger
from ratelimitd.notify.notifier import Notifier
from ratelimitd.notify.target import DeliveryFailed
from ratelimitd.settings import NotifySettings
from ratelimitd.state.directory import StateDir
from tests.core.build import NOON, data, limit, policy
from tests.hostile.lines import Lines

Answer = Callable[[int], Awaitable[None]]


class Target:
    """Takes notices as `answer` says: a function of the number of the attempt."""

    def __init__(self, entry: Notify, answer: Answer) -> None:
        self.notify = entry
        self.name = "memory"
        self.slots = trio.CapacityLimiter(4)
        self.waiting = 0
        self.attempts = 0
        self.taken: list[dict[str, object]] = []
        self._answer = answer

    async def deliver(self, notice_id: str, body: bytes) -> None:
        self.attempts += 1
        await self._answer(self.attempts)
        notice = json.loads(body)
        assert notice["id"] == notice_id
        self.taken.append(notice)


async def take(attempt: int) -> None:
    await trio.lowlevel.checkpoint()


async def hang(attempt: int) -> None:
    await trio.sleep_forever()


async def fail(attempt: int) -> None:
    raise DeliveryFailed("down")


class Run:
    """A notifier over a folder, and a policy whose mails it is told of; everything but the daemon."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, *answers: Answer, **settings: object) -> None:
        self.folder = folder
        self.targets: list[Target] = []
        waiting = list(answers)

        def make(entry: Notify) -> Target:
            self.targets.append(Target(entry, waiting.pop(0)))
            return self.targets[-1]

        monkeypatch.setattr(notify, "make", make)
        self.lines = Lines()
        self.log = Log([self.lines])
        entries = [
            checked("notify", NotifySettings(command=[f"/target/{n}"], **settings), ["default"], Credentials(folder))  # type: ignore[arg-type]
            for n in range(len(answers))
        ]
        self.quiet = QuietLog(self.log)
        self.notifier = Notifier(StateDir(folder), self.quiet, entries, clock=lambda: NOON)
        self.policy = policy(limit(10), watch=self.notifier.watch)

    def send(self, login: str, recipients: int) -> None:
        data(self.policy, recipients, instance=login, login=login)

    async def all_over(self) -> None:
        """Wait until the ledger says of every notice and target that it is over."""
        await until(self._over)

    def _over(self) -> bool:
        told, left = state(self.folder)
        return told == set(self.notifier.watch.notified) and not left


def state(folder: Path) -> tuple[set[str], set[tuple[str, str]]]:
    """What the ledger says: the ids of all notices, and the ids and targets that are not over."""
    told, left = set(), set()
    for line in ledger(folder):
        told.add(line["id"])
        left |= {(line["id"], target) for target in line.get("to", [])}
        left.discard((line["id"], line.get("over", "")))
    return told, left


def ledger(folder: Path) -> list[dict[str, Any]]:
    file = folder / NAME
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 -- threads write the ledger
        await trio.sleep(0.01)


async def test_a_notice_says_who_reached_what_of_which_quota_until_when(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = Run(monkeypatch, tmp_path, take)
    async with trio.open_nursery() as nursery:
        await run.notifier.begin()
        nursery.start_soon(run.notifier.run)
        run.send("alice@example.com", 8)
        await run.all_over()
        await run.notifier.stop()
    (notice,) = run.targets[0].taken
    assert len(str(notice.pop("id"))) == 32
    assert notice == {
        "percent": 80, "limit": "default", "key": "alice@example.com", "used": 8, "quota": 10, "period": "daily",
        "expiry": 20_001 * 86400, "reset": "2024-10-05 00:00 +0000", "time": NOON,
    }  # fmt: skip
    assert run.notifier.delivered == 1


async def test_what_was_told_is_not_told_by_the_next_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for n in range(2):
        run = Run(monkeypatch, tmp_path, take)
        async with trio.open_nursery() as nursery:
            await run.notifier.begin()
            nursery.start_soon(run.notifier.run)
            run.send("alice@example.com", 10)
            run.send(f"{n}@example.com", 10)
            await run.all_over()
            await run.notifier.stop()
        keys = [notice["key"] for notice in run.targets[0].taken]
        assert sorted(keys) == sorted([f"{n}@example.com"] * 2 + ["alice@example.com"] * 2 * (n == 0))  # type: ignore[type-var]


async def test_what_a_dead_target_did_not_take_is_told_by_the_next_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = Run(monkeypatch, tmp_path, hang, take)
    async with trio.open_nursery() as nursery:
        await run.notifier.begin()
        nursery.start_soon(run.notifier.run)
        run.send("alice@example.com", 8)
        await until(lambda: len(state(tmp_path)[1]) == 1)
        nursery.cancel_scope.cancel()  # killed
    after = Run(monkeypatch, tmp_path, take, take)
    async with trio.open_nursery() as nursery:
        await after.notifier.begin()
        nursery.start_soon(after.notifier.run)
        await after.all_over()
        await after.notifier.stop()
    assert [len(target.taken) for target in after.targets] == [1, 0]
    assert after.targets[0].taken[0]["id"] == run.targets[1].taken[0]["id"]


async def test_a_target_that_is_down_is_tried_again_with_longer_pauses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, autojump_clock: MockClock
) -> None:
    times: list[float] = []

    async def third_time(attempt: int) -> None:
        times.append(trio.current_time())
        if attempt < 4:
            raise DeliveryFailed("down")

    run = Run(monkeypatch, tmp_path, third_time)
    async with trio.open_nursery() as nursery:
        await run.notifier.begin()
        nursery.start_soon(run.notifier.run)
        run.send("alice@example.com", 8)
        await run.all_over()
        await run.notifier.stop()
    assert [round(later - earlier) for earlier, later in pairwise(times)] == [1, 2, 4]
    assert len(run.targets[0].taken) == 1


async def test_a_target_that_stays_down_is_given_up_and_not_told_by_the_next_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, autojump_clock: MockClock
) -> None:
    run = Run(monkeypatch, tmp_path, fail, retries=2)
    async with trio.open_nursery() as nursery:
        await run.notifier.begin()
        nursery.start_soon(run.notifier.run)
        run.send("alice@example.com", 8)
        await run.all_over()
        await run.notifier.stop()
    assert run.targets[0].attempts == 3
    assert run.notifier.failed == 1
    assert state(tmp_path) == ({*run.notifier.watch.notified}, set())


async def test_what_can_never_succeed_is_tried_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def never(attempt: int) -> None:
        raise DeliveryFailed("404", for_good=True)

    run = Run(monkeypatch, tmp_path, never)
    async with trio.open_nursery() as nursery:
        await run.notifier.begin()
        nursery.start_soon(run.notifier.run)
        run.send("alice@example.com", 8)
        await run.all_over()
        await run.notifier.stop()
    assert run.targets[0].attempts == 1
    assert run.notifier.failed == 1


async def test_a_fault_in_a_library_ends_the_delivery_and_not_the_service(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def fault(attempt: int) -> None:
        raise ZeroDivisionError

    run = Run(monkeypatch, tmp_path, fault, retries=0)
    async with trio.open_nursery() as nursery:
        await run.notifier.begin()
        nursery.start_soon(run.notifier.run)
        run.send("alice@example.com", 10)
        await run.all_over()
        await run.notifier.stop()
    assert run.notifier.failed == 2


async def test_a_dead_target_is_bounded_in_number_and_delays_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(notify, "STOP_S", 0.01)
    run = Run(monkeypatch, tmp_path, hang, take, max_waiting=5, timeout_s=300)
    run.notifier.watch.max_waiting = 1000
    async with trio.open_nursery() as nursery:
        await run.notifier.begin()
        nursery.start_soon(run.notifier.run)
        for n in range(20):
            run.send(f"{n}@example.com", 8)
            await until(lambda: len(run.targets[1].taken) == len(run.notifier.watch.notified))
        assert run.targets[0].waiting == 5
        assert run.targets[0].attempts == 4
        assert run.notifier.dropped == 15
        await run.notifier.stop()
    assert run.targets[0].taken == []


async def test_of_many_notices_that_are_lost_a_few_are_logged_and_how_many_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(notify, "STOP_S", 0.01)
    run = Run(monkeypatch, tmp_path, hang, fail, max_waiting=1, timeout_s=300, retries=0)
    run.notifier.watch.max_waiting = 1000
    async with trio.open_nursery() as nursery:
        await run.notifier.begin()
        nursery.start_soon(run.notifier.run)
        for n in range(31):
            run.send(f"{n}@example.com", 8)
            await until(lambda: run.notifier.failed == len(run.notifier.watch.notified))
        await run.notifier.stop()
    run.quiet.close()
    for event, more in (("a notice is dropped: too many are waiting", 20), ("a notice cannot be delivered", 21)):
        lines = [line for line in run.lines.texts if line.startswith(event)]
        assert len(lines) == 11
        assert lines[-1] == f"{event}: more_of_these={more}"
    assert run.quiet.left_out == 41


async def test_an_attempt_ends_with_its_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, autojump_clock: MockClock
) -> None:
    run = Run(monkeypatch, tmp_path, hang, retries=0, timeout_s=10)
    async with trio.open_nursery() as nursery:
        await run.notifier.begin()
        nursery.start_soon(run.notifier.run)
        run.send("alice@example.com", 8)
        await run.all_over()
        await run.notifier.stop()
    assert run.notifier.failed == 1


async def test_a_stop_does_not_wait_for_a_dead_target(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(notify, "STOP_S", 0.01)
    run = Run(monkeypatch, tmp_path, hang, timeout_s=300)
    async with trio.open_nursery() as nursery:
        await run.notifier.begin()
        nursery.start_soon(run.notifier.run)
        run.send("alice@example.com", 8)
        await until(lambda: run.targets[0].attempts == 1)
        with trio.fail_after(100):
            await run.notifier.stop()
    assert ledger(tmp_path)[-1]["to"]


async def test_a_notice_of_the_last_moment_is_kept_for_the_next_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = Run(monkeypatch, tmp_path, take)
    async with trio.open_nursery() as nursery:
        await run.notifier.begin()
        nursery.start_soon(run.notifier.run)
        await trio.testing.wait_all_tasks_blocked(0.1)
        run.send("alice@example.com", 8)
        await run.notifier.stop()
    after = Run(monkeypatch, tmp_path, take)
    async with trio.open_nursery() as nursery:
        await after.notifier.begin()
        nursery.start_soon(after.notifier.run)
        await after.all_over()
        await after.notifier.stop()
    assert len(run.targets[0].taken) + len(after.targets[0].taken) == 1


async def test_a_disk_that_is_full_stops_no_notice_and_is_told_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = Run(monkeypatch, tmp_path, take)
    errors: list[str] = []
    monkeypatch.setattr(run.log, "error", lambda event, **fields: errors.append(event))

    def full(self: StateDir, name: str, text: str) -> None:
        raise StartError("No space left on device")

    monkeypatch.setattr(StateDir, "append", full)
    monkeypatch.setattr(StateDir, "replace", full)
    async with trio.open_nursery() as nursery:
        await run.notifier.begin()
        nursery.start_soon(run.notifier.run)
        for n in range(3):
            run.send(f"{n}@example.com", 8)
            await until(lambda: len(run.targets[0].taken) == len(run.notifier.watch.notified))
        await run.notifier.stop()
    assert len(run.targets[0].taken) == 3
    assert len(errors) == 1


async def test_a_torn_ledger_is_read_as_far_as_it_goes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(
        f'{{"id": "a", "expiry": {NOON + 1}}}\n[]\nnonsense\n{{"id": "b"}}\n{{"id": "c", "expi'
    )
    run = Run(monkeypatch, tmp_path, take)
    await run.notifier.begin()
    assert run.notifier.watch.notified == {"a": NOON + 1}


async def test_windows_that_are_over_leave_the_ledger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lines = [{"id": "over", "expiry": NOON}, {"id": "runs", "expiry": NOON + 1}]
    (tmp_path / NAME).write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = Run(monkeypatch, tmp_path, take)
    async with trio.open_nursery() as nursery:
        await run.notifier.begin()
        nursery.start_soon(run.notifier.run)
        await until(lambda: len(ledger(tmp_path)) == 1)
        await run.notifier.stop()
    assert [line["id"] for line in ledger(tmp_path)] == ["runs"]


async def test_a_target_that_is_configured_no_more_is_told_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    open_line = {"id": "a", "expiry": NOON + 1, "to": ["gone"], "notice": {"key": "k"}}
    (tmp_path / NAME).write_text(json.dumps(open_line) + "\n")
    run = Run(monkeypatch, tmp_path, take)
    async with trio.open_nursery() as nursery:
        await run.notifier.begin()
        nursery.start_soon(run.notifier.run)
        await run.all_over()
        await run.notifier.stop()
    assert run.targets[0].taken == []
    assert run.notifier.delivered == 0


async def test_no_more_is_sent_unrecorded_than_may_be_sent_at_a_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = Run(monkeypatch, tmp_path, take)
    release = threading.Event()
    record = Ledger.record

    def slow_disk(ledger: Ledger, new: Any, over: Any = ()) -> None:
        if over:
            assert release.wait(60)
        record(ledger, new, over)

    monkeypatch.setattr(Ledger, "record", slow_disk)
    async with trio.open_nursery() as nursery:
        await run.notifier.begin()
        for n in range(20):
            run.send(f"{n}@example.com", 8)
        nursery.start_soon(run.notifier.run)
        await until(lambda: len(run.targets[0].taken) >= 4)
        for _ in range(100):  # what else could be sent meanwhile would be
            await trio.lowlevel.checkpoint()
        assert len(run.targets[0].taken) == 4  # a kill now repeats so many
        release.set()
        await run.all_over()
        await run.notifier.stop()
    assert len(run.targets[0].taken) == 20
