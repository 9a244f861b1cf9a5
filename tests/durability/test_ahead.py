"""Segments that are laid out ahead: what is in them outlives a kill, and whatever becomes of their files."""

import os
import signal
from functools import partial
from pathlib import Path

import pytest

from ratelimitd.control.commands import Status
from ratelimitd.ctl.client import ask
from ratelimitd.state import ahead
from ratelimitd.state.journal import Journal
from ratelimitd.state.segments import Recovered
from tests.core.build import journal_in
from tests.daemon.process import Ratelimitd, config
from tests.durability.test_journal import NODE, _charge, _instances
from tests.instances.waiting import wait_until


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """A journal whose open segment was laid out."""
    made = journal_in(tmp_path, NODE)
    made.begin(1)
    lay_out(made)
    made.settle(made.rotate())
    assert made.number == 2
    return made


def lay_out(journal: Journal) -> None:
    plan = journal.plan()
    assert plan is not None
    journal.take(plan())


def path_of(journal: Journal) -> Path:
    return journal.folder / f"{journal.number}.segment"


def recovered(journal: Journal) -> list[Recovered]:
    return journal_in(journal.folder, NODE).recover()


def wanted(numbers: list[int]) -> list[str]:
    return [f"Ri{number}" for number in numbers]


def no_write(fd: int, data: bytes, at: int) -> int:
    raise AssertionError("the file is written to")


def test_what_fits_is_in_the_file_without_a_write(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ahead, "_write", no_write)
        for i in range(3):
            journal.write([_charge(i)])
    assert path_of(journal).stat().st_size == ahead.LEAST
    (found,) = recovered(journal)
    assert (_instances([found]), found.torn, found.damaged) == (wanted([0, 1, 2]), 0, 0)


def test_a_segment_that_is_settled_holds_no_zeros(journal: Journal) -> None:
    path = path_of(journal)
    journal.write([_charge(0)])
    assert journal.settle(journal.rotate())
    assert path.stat().st_size < 1000
    assert _instances(recovered(journal)) == wanted([0])


def test_what_does_not_fit_stands_behind(journal: Journal) -> None:
    numbers = range(2 * ahead.LEAST // 100)
    path = path_of(journal)
    for i in numbers:
        journal.write([_charge(i)])
    assert path.stat().st_size == journal.size > ahead.LEAST
    assert _instances(recovered(journal)) == wanted([*numbers])
    lay_out(journal)
    assert journal.settle(journal.rotate())
    assert path_of(journal).stat().st_size >= 2 * path.stat().st_size  # the next one has more room
    assert _instances(recovered(journal)) == wanted([*numbers])


def test_whoever_is_killed_has_written_what_was_acknowledged(tmp_path: Path) -> None:
    acknowledged, told = os.pipe()
    child = os.fork()
    if not child:
        made = journal_in(tmp_path, NODE)
        made.begin(1)
        lay_out(made)
        made.settle(made.rotate())
        for i in range(1_000_000):
            made.write([_charge(i)])
            os.write(told, b".")
    os.close(told)
    count = len(os.read(acknowledged, 1))
    while count < 500:
        count += len(os.read(acknowledged, 100))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(acknowledged, 65536):
        count += len(more)
    os.close(acknowledged)
    (found,) = journal_in(tmp_path, NODE).recover()
    assert len(found.records) in (count, count + 1)
    assert _instances([found]) == wanted([*range(len(found.records))])
    assert not found.damaged


@pytest.mark.parametrize("size", [100, 4096])
def test_a_file_that_somebody_has_cut_ends_nothing(journal: Journal, size: int) -> None:
    journal.write([_charge(0)])
    os.truncate(path_of(journal), size)
    for i in range(1, 200):
        journal.write([_charge(i)])
    assert (journal.failures, journal.error) == (0, None)
    assert _instances(recovered(journal))[-1:] == wanted([199])


def test_a_segment_that_was_removed_while_it_waited_is_not_used(journal: Journal) -> None:
    lay_out(journal)
    (journal.folder / "3.segment").unlink()
    journal.settle(journal.rotate())
    assert (journal.number, journal.writable) == (4, True)
    journal.write([_charge(0)])
    assert _instances(recovered(journal)) == wanted([0])


def test_a_segment_that_comes_too_late_is_not_used(journal: Journal) -> None:
    plan = journal.plan()
    assert plan is not None
    journal.settle(journal.rotate())
    journal.write([_charge(0)])
    journal.take(plan())
    assert journal.numbers() == [1, 2, 4]
    assert _instances(recovered(journal)) == wanted([0])


def test_a_disk_without_room_costs_only_the_room(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ahead, "_write", fails)
        lay_out(journal)
    journal.settle(journal.rotate())
    journal.write([_charge(0)])
    assert (journal.failures, journal.error) == (0, None)
    assert _instances(recovered(journal)) == wanted([0])


def fails(fd: int, data: bytes, at: int) -> int:
    raise OSError(28, "No space left on device")


def test_a_disk_that_is_full_has_what_it_had_before(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a segment could not be laid out in is gone at once: the database may need the room."""
    write, written = ahead._write, []

    def fill(fd: int, data: bytes, at: int) -> None:
        if at >= ahead.LEAST // 2:
            fails(fd, data, at)
        written.append(at)
        write(fd, data, at)

    before = journal.numbers()
    monkeypatch.setattr(ahead, "_write", fill)
    lay_out(journal)
    assert written
    assert (journal.numbers(), journal.ahead) == (before, None)


@pytest.mark.parametrize("error", [OSError(19, "No such device"), ValueError("mmap length is greater than file size")])
def test_where_files_cannot_be_mapped_no_descriptor_stays_open(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def no_map(fd: int, size: int) -> None:
        raise error

    journal.settle(journal.rotate())  # it was laid out
    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr("mmap.mmap", no_map)
    for i in range(3):
        journal.write([_charge(i)])
        lay_out(journal)
        assert journal.settle(journal.rotate())
    assert len(os.listdir("/proc/self/fd")) == before
    assert _instances(recovered(journal)) == wanted([0, 1, 2])


def test_the_room_is_for_what_the_last_segment_held(journal: Journal) -> None:
    """The next one is laid out as soon as one has begun, and then that one is empty."""
    frame = [_charge(i) for i in range(100)]
    while journal.size <= 2 * ahead.LEAST:
        journal.write(frame)
    journal.settle(journal.rotate())
    lay_out(journal)
    journal.settle(journal.rotate())
    assert path_of(journal).stat().st_size > 4 * ahead.LEAST


def test_where_each_write_waits_for_the_disk_nothing_is_laid_out(tmp_path: Path) -> None:
    made = Journal(tmp_path, NODE, "always")
    made.begin(1)
    assert made.plan() is None


def test_what_was_laid_out_and_not_used_is_gone_at_the_end(journal: Journal) -> None:
    lay_out(journal)
    journal.close()
    assert journal.numbers() == [1]


def test_a_run_that_was_killed_leaves_nothing_where_nothing_was_charged(journal: Journal) -> None:
    lay_out(journal)
    assert recovered(journal) == []
    later = journal_in(journal.folder, "b" * 32)
    later.forget(max(later.numbers()), ())
    assert later.numbers() == []


def test_a_daemon_lays_out_the_next_segment_and_tells_only_of_what_holds_something(folder: Path) -> None:
    daemon = Ratelimitd(folder, config(store={"flush_interval_s": 0.1}))
    try:
        daemon.start()
        with daemon.client() as client:
            for count in range(1, 4):
                client.ask()
                wait_until(partial(is_used, daemon, count), "the flush")
        wait_until(lambda: ahead.LEAST in sizes(daemon), "the next segment")
        told = ask(daemon.state / "control.sock", Status()).journal
        assert (told.segments, told.bytes < 1000, told.unwritten) == (1, True, 0)
        daemon.kill()
        daemon.start()
        with daemon.client() as client:
            client.ask()
        assert daemon.stop() == 0
    finally:
        daemon.kill()
    assert daemon.used() == {"alice@example.com": 4}
    assert sizes(daemon) == []
    assert not [line for line in daemon.log() if "torn" in line or "damaged" in line]


def is_used(daemon: Ratelimitd, count: int) -> bool:
    return daemon.used() == {"alice@example.com": count}


def sizes(daemon: Ratelimitd) -> list[int]:
    return [file.stat().st_size for file in (daemon.state / "journal").glob("*.segment")]
