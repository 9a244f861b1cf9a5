"""The journal's files: what is written is read, what is torn or damaged costs only itself, faults are survived."""

import errno
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ratelimitd.core.counters import Counter, Meter
from ratelimitd.core.verdict import Charge
from ratelimitd.errors import JournalError
from ratelimitd.settings import JournalSync
from ratelimitd.state import past, segments
from ratelimitd.state.backlog import Backlog
from ratelimitd.state.journal import Journal
from ratelimitd.state.past import Past
from ratelimitd.state.records import ends, windows
from ratelimitd.state.segments import Recovered
from ratelimitd.sync.recovery import restore
from tests.core.build import NOON, journal_in, limit, policy
from tests.durability.node import make_limit

NODE = "5e6f"


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    made = journal_in(tmp_path, NODE)
    made.begin(1)
    return made


METER = Meter(make_limit())


def _charge(i: int) -> Charge:
    return Charge(f"i{i}", "r@x", 1, False, [Counter(METER, f"user{i}@é.example", 1900000000, 100)], [1])


def _filled(journal: Journal, frames: int) -> Path:
    for i in range(frames):
        journal.write([_charge(i), _charge(i + 1000)])
    return journal.folder / f"{journal.number}.segment"


def _instances(recovered: list[Recovered]) -> list[str]:
    return [record.split("\0")[0] for one in recovered for record in one.records]


def _wanted(frames: list[int]) -> list[str]:
    return [f"Ri{i + more}" for i in frames for more in (0, 1000)]


def test_what_is_written_is_read_back(journal: Journal) -> None:
    _filled(journal, 3)
    journal.settle(journal.rotate())
    _filled(journal, 1)
    first, second = journal.recover()
    assert _instances([first]) == _wanted([0, 1, 2])
    assert (first.number, second.number, first.node) == (1, 2, NODE)
    assert not first.torn
    assert not first.damaged
    assert [windows(end) for end in ends(second.records)] == [
        (1, [("default", 1900000000, "user0@é.example")]),
        (1, [("default", 1900000000, "user1000@é.example")]),
    ]


def test_a_segment_torn_at_any_byte_keeps_its_whole_frames(journal: Journal) -> None:
    path = _filled(journal, 3)
    whole = path.read_bytes()
    starts = [match.start() for match in re.finditer(b"\xff\x00\x00", whole)]
    assert len(starts) == 3
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        recovered = journal.recover()
        frames = sum(end <= length for end in [*starts[1:], len(whole)])
        assert _instances(recovered) == _wanted(list(range(frames))), length
        if recovered:
            assert not recovered[0].damaged
            assert recovered[0].torn == length - ([*starts, len(whole)][frames])


def test_zeros_behind_the_last_record_are_room_that_was_laid_out(journal: Journal) -> None:
    path = _filled(journal, 2)
    path.write_bytes(path.read_bytes() + bytes(4096))
    (recovered,) = journal.recover()
    assert _instances([recovered]) == _wanted([0, 1])
    assert (recovered.torn, recovered.damaged) == (0, 0)


@pytest.mark.parametrize("offset", [0, 1, 4, 5, 8, 9, 20])
def test_damage_in_the_middle_costs_its_own_frame_only(journal: Journal, offset: int) -> None:
    path = _filled(journal, 3)
    data = bytearray(path.read_bytes())
    second = [match.start() for match in re.finditer(b"\xff\x00\x00", data)][1]
    data[second + offset] ^= 0x55
    path.write_bytes(data)
    (recovered,) = journal.recover()
    assert _instances([recovered]) == _wanted([0, 2])
    assert recovered.damaged
    assert not recovered.torn


def test_the_file_of_a_damaged_segment_is_kept_aside(journal: Journal) -> None:
    path = _filled(journal, 2)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    (recovered,) = journal.recover()
    assert recovered.damaged
    assert not recovered.torn, "a frame of full length is no torn one"
    kept = journal.keep_aside(recovered)
    assert journal.keep_aside(recovered) == kept
    journal.put_away(1, 1)
    assert not path.exists()
    assert kept.read_bytes() == data


@pytest.mark.parametrize(
    "data",
    [
        b"ratelimitd-journal 2\n",
        b"ratelimitd-journal 2 5e6f 1\n\xff",
        b"ratelimitd-journal 10 x",
        b"ratelimitd-journal 1 5e6f\n",
        b"ratelimitd-journal 1 nothex",
        b"something else",
        b"SQLite format 3\0",
        b"\x7fELF",
    ],
)
def test_a_foreign_or_newer_file_is_refused_and_nothing_is_touched(journal: Journal, data: bytes) -> None:
    journal.settle(journal.rotate())
    _filled(journal, 1)
    journal.rewrite(1, 2, [])
    (journal.folder / "9.segment").write_bytes(data)
    before = {path: path.read_bytes() for path in journal.folder.iterdir() if path.is_file()}
    with pytest.raises(JournalError, match=r"9\.segment: (format|not a journal)"):
        journal.recover()
    assert {path: path.read_bytes() for path in journal.folder.iterdir() if path.is_file()} == before


@pytest.mark.parametrize(
    "name", ["999999999999999999", "100000000000000001", "9" * 30, "00000000000000000002", "01", "0002"]
)
def test_a_number_that_no_run_gives_is_refused(journal: Journal, name: str) -> None:
    """Above it there would be no room for this run's own, and 01 is no other segment than 1."""
    (journal.folder / f"{name}.segment").write_bytes(b"")
    with pytest.raises(JournalError, match=rf"/{name}\.segment: no number of a segment; move it away"):
        journal.recover()
    assert (journal.folder / f"{name}.segment").exists()


def test_a_number_that_no_run_gives_is_ignored_among_what_is_kept_for_the_memo(journal: Journal) -> None:
    past = journal.folder / "past"
    past.mkdir()
    for name in ("999999999999999999", "01", "7"):
        (past / f"{name}.segment").write_bytes(b"")
    journal.past.begin()
    assert journal.past.last == 7


@pytest.mark.parametrize(("run", "first"), [("a" * 32, "1" * 5000), ("a" * 32, "1" * 19), ("a" * 65, "1")])
def test_a_header_that_no_run_writes_is_refused(journal: Journal, run: str, first: str) -> None:
    (journal.folder / "9.segment").write_bytes(f"ratelimitd-journal 1 {run} {first}\n".encode())
    with pytest.raises(JournalError, match=r"9\.segment: not a journal"):
        journal.recover()


def test_a_half_written_header_is_an_empty_segment(journal: Journal) -> None:
    path = journal.folder / "1.segment"
    header = path.read_bytes()
    for length in range(len(header)):
        path.write_bytes(header[:length])
        assert journal.recover() == [], length
    path.write_bytes(bytes(100))
    assert journal.recover() == []


def test_an_unreadable_segment_stops_the_start(journal: Journal) -> None:
    (journal.folder / "2.segment").mkdir()
    with pytest.raises(OSError, match=r"2\.segment"):
        journal.recover()


def _fail(code: int) -> Callable[..., int]:
    def failing(*_: object, **__: object) -> int:
        raise OSError(code, os.strerror(code))

    return failing


def test_a_journal_is_written_to_whatever_descriptor_it_gets(tmp_path: Path) -> None:
    """The lowest that is free: 0, where a daemon is started without a standard input."""
    stdin = os.dup(0)
    try:
        os.close(0)
        made = journal_in(tmp_path, NODE)
        made.begin(1)
        assert os.path.samestat(os.fstat(0), os.stat(tmp_path / "1.segment"))
        assert made.writable
        _filled(made, 1)
        made.close()
    finally:
        os.dup2(stdin, 0)
        os.close(stdin)
    assert made.failures == 0
    assert _instances(journal_in(tmp_path, NODE).recover()) == _wanted([0])


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
def test_a_write_that_fails_is_counted_and_the_next_segment_is_written(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    _filled(journal, 1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", _fail(code))
        journal.write([_charge(5), _charge(6)])
        assert journal.error is not None
        assert journal.error.errno == code
        journal.write([_charge(7)])
        assert journal.rotate() == -1
    assert journal.failures == 3
    assert not journal.writable
    assert journal.rotate() == -1
    assert journal.writable
    assert journal.error is None
    _filled(journal, 1)
    assert _instances(journal.recover()) == _wanted([0, 0])


def test_a_short_write_leaves_no_torn_frame_before_another(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _filled(journal, 1)
    whole, write = path.read_bytes(), os.pwrite
    parts = iter([7, OSError(errno.ENOSPC, "No space left on device")])

    def short(fd: int, data: bytes, at: int) -> int:
        part = next(parts)
        if isinstance(part, OSError):
            raise part
        assert isinstance(part, int)
        return write(fd, data[:part], at)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", short)
        journal.write([_charge(5)])
    assert path.read_bytes() == whole
    assert not journal.writable


def test_a_short_write_that_can_go_on_goes_on(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.pwrite
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", lambda fd, data, at: write(fd, data[:5], at))
        _filled(journal, 2)
    assert _instances(journal.recover()) == _wanted([0, 1])
    assert journal.failures == 0


def test_a_next_file_that_cannot_be_opened_leaves_the_closed_one_whole(journal: Journal) -> None:
    _filled(journal, 2)
    (journal.folder / "2.segment").write_bytes(b"")  # in the way
    fd = journal.rotate()
    assert fd >= 0
    assert journal.settle(fd)
    assert journal.error is not None
    assert not journal.writable
    journal.begin(3)
    assert journal.writable
    assert _instances(journal.recover()) == _wanted([0, 1])


@pytest.mark.parametrize(
    ("sync", "synced_at_write", "synced_at_settle"), [("flush", 0, 1), ("always", 2, 1), ("never", 0, 0)]
)
def test_journal_sync_says_when_the_disk_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sync: JournalSync, synced_at_write: int, synced_at_settle: int
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    journal = journal_in(tmp_path, NODE, sync)
    journal.begin(1)
    _filled(journal, 2)
    assert len(synced) == synced_at_write
    journal.settle(journal.rotate())
    assert len(synced) == synced_at_write + synced_at_settle


def test_a_sync_that_fails_says_that_the_segment_is_not_kept(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    _filled(journal, 1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", _fail(errno.EIO))
        assert not journal.settle(journal.rotate())
    assert journal.error is not None
    assert journal.writable, "the next segment is another file"


def _deltas() -> list[tuple[Counter, int]]:
    meter = Meter(make_limit())
    return [(Counter(meter, f"user{i}@x", 1900000000, 100), i + 1) for i in range(2500)]


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("step", ["open", "fsync", "replace", "folder", "put away", "done"])
def test_a_merge_that_is_killed_at_any_step_counts_everything_once(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Segments 1 and 2 say the same as the merged one would: whichever count, the sum is the same."""
    deltas = _deltas()
    for part in (deltas[:1000], deltas[1000:]):
        journal.write([Charge("", None, n, False, [counter], [n]) for counter, n in part])
        journal.settle(journal.rotate())

    def killed(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        if step == "fsync":
            patch.setattr(os, "fsync", killed)
        elif step == "replace":
            patch.setattr(Path, "replace", killed)
        elif step == "folder":
            patch.setattr(Journal, "_sync_folder", killed)
        elif step == "open":
            patch.setattr(segments, "header", killed)
        elif step == "put away":
            patch.setattr(Past, "keep", killed)
        if step == "done":
            journal.rewrite(1, 2, deltas)
        else:
            with pytest.raises(Killed):
                journal.rewrite(1, 2, deltas)
    recovered = journal.recover()
    assert sum(windows(end)[0] * times for one in recovered for end, times in ends(one.records).items()) == sum(
        n for _, n in deltas
    )
    journal.forget(0, ())
    assert not list(journal.folder.glob(".*.new"))


def test_a_merge_that_fails_leaves_nothing_behind_and_can_be_done_again(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _filled(journal, 2)
    journal.settle(journal.rotate())
    before = path.read_bytes()
    for name in ("fsync", "rename", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, _fail(errno.ENOSPC))
            if name != "rename":
                with pytest.raises(OSError, match="No space"):
                    journal.rewrite(1, 1, _deltas())
        assert sorted(p.name for p in journal.folder.iterdir() if p.is_file()) == ["1.segment", "2.segment"]
        assert path.read_bytes() == before
    journal.rewrite(1, 1, _deltas())
    assert path.read_bytes() != before


def test_an_empty_segment_is_gone_when_the_journal_is_closed(journal: Journal) -> None:
    journal.close()
    assert journal.numbers() == []
    journal.begin(2)
    _filled(journal, 1)
    journal.close()
    assert journal.numbers() == [2]


@pytest.mark.parametrize(
    "record",
    ["", "R", "R\0", "R\0\0", "R\0a\0x", "R\0a\0001\0limit", "R\0a\0001\0limit\0never\0key", "Z1.a\0b\0001",
     "R\0a\0-1", "R\0a\0\uff11", "R\0a\0001\0limit\0" + "9" * 5000 + "\0key", "\0\0001"],
)  # fmt: skip
def test_a_record_that_is_none_in_a_whole_frame_costs_itself_alone(journal: Journal, record: str) -> None:
    path = _filled(journal, 1)
    good = "Ri5 alice\0r\x001\0default\x001900000000\0alice"
    with path.open("ab") as file:
        file.write(segments.frame(f"{record}\n{good}\n"))
    (recovered,) = journal.recover()
    assert recovered.records[2:] == [good]
    assert recovered.damaged == len(record.encode()) + 1


def _kept(journal: Journal) -> list[str]:
    journal.past.begin()
    journal.past.prune()
    return [record.split("\0")[0] for one in journal.past.read(1000, ()) for record in one.records]


def test_a_stored_segment_is_kept_apart_for_the_memo(journal: Journal) -> None:
    _filled(journal, 1)
    journal.settle(journal.rotate())
    journal.put_away(1, 1)
    assert journal.numbers() == [2]
    assert journal.recover() == []
    assert _kept(journal) == _wanted([0])
    assert journal.past.last == 1


def test_what_is_kept_is_bounded_in_age_and_in_bytes(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(1, 6):
        _filled(journal, 1)
        journal.settle(journal.rotate())
        journal.put_away(number, number)
    assert len(_kept(journal)) == 10
    monkeypatch.setattr(past, "MAX_BYTES", 3 * past.BLOCK)
    assert len(_kept(journal)) == 6
    folder = journal.folder / "past"
    assert sorted(path.name for path in folder.iterdir()) == ["3.segment", "4.segment", "5.segment"]
    os.utime(folder / "3.segment", (0, time.time() - past.KEPT_S - 1))
    os.utime(folder / "4.segment", (0, time.time() - past.KEPT_S + 60))
    assert len(_kept(journal)) == 4
    journal.past.clear()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("damage", [b"", b"ratelimitd-journal 9 x\n", b"other", None])
def test_what_is_kept_and_cannot_be_read_is_left_out(journal: Journal, damage: bytes | None) -> None:
    for number in (1, 2):
        _filled(journal, 1)
        journal.settle(journal.rotate())
        journal.put_away(number, number)
    path = journal.folder / "past" / "1.segment"
    path.write_bytes(path.read_bytes()[:-1] if damage is None else damage)
    assert _kept(journal) == _wanted([0])


def test_a_merged_segment_is_kept_apart_and_its_totals_are_not(journal: Journal) -> None:
    for _ in range(2):
        _filled(journal, 1)
        journal.settle(journal.rotate())
    journal.rewrite(1, 2, _deltas())
    assert sorted(_kept(journal)) == sorted(_wanted([0, 0]))
    journal.put_away(1, 2)
    assert sorted(_kept(journal)) == sorted(_wanted([0, 0]))
    assert journal.numbers() == [3]


def test_where_nothing_can_be_kept_a_stored_segment_is_deleted(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    _filled(journal, 1)
    journal.settle(journal.rotate())
    monkeypatch.setattr(Path, "mkdir", _fail(errno.ENOSPC))
    journal.put_away(1, 1)
    assert journal.numbers() == [2]
    assert _kept(journal) == []


def test_counts_that_no_column_can_hold_are_replayed_as_the_largest(tmp_path: Path) -> None:
    """Whoever wrote them: their sum is one that memory can hold, too."""
    asked = policy(limit(10, window="sliding"))
    backlog = Backlog(asked.pending, journal_in(tmp_path), lambda: NOON)
    parts = [asked.meters[0].limit.period.end(NOON) - n for n in (60, 0)]
    records = [f"T\0\0{'9' * 18}\0default\0{end}\0alice" for end in parts for _ in range(20)]
    restore([Recovered(1, 1, "5e6f", records)], asked, backlog, NOON)
    assert asked.meters[0].counters["alice"].used >= 4_294_967_295


def test_a_segment_that_somebody_has_removed_is_not_whole_on_the_disk(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    journal.begin(1)
    (tmp_path / "1.segment").unlink()
    assert not journal.settle(journal.rotate())
    assert journal.settle(journal.rotate())
