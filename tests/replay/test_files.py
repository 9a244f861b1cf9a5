"""Files of a log: of every kind, packed or not, whole or damaged, in any order; nothing is lost and nothing counts
twice."""

import gzip
import io
import lzma
import os
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ratelimitd.control.commands import Refused
from ratelimitd.ctl.replay.lines import Login, Queued
from ratelimitd.ctl.replay.merge import merged
from ratelimitd.ctl.replay.reader import SHOWN, Reader
from ratelimitd.ctl.replay.sources import MAX_LINE, STDIN
from tests.replay.logs import Sent, classic, ctime, iso, journal, mail, postfix

NOON = 1_795_694_400
MAILS = [mail(NOON + 60 * i, f"user{i % 3}@example.com", 1 + i % 4, f"4XyZ{i:08x}z") for i in range(50)]
LINES = sum(7 + len(sent.recipients) - 1 for sent in MAILS)


def reader(path: Path | str) -> Reader:
    return Reader(str(path), UTC, lambda _: None, with_recipients=False)


def read(*paths: Path | str) -> tuple[list[tuple[int, str]], list[Reader]]:
    """When which mail was begun, in order; and the readers."""
    readers = [reader(path) for path in paths]
    events = [*merged(readers)]
    begun = [(at, event.mail.decode()) for at, event in events if isinstance(event, Login)]
    assert len([event for _, event in events if isinstance(event, Queued)]) == len(begun)
    return begun, readers


def begun(mails: list[Sent]) -> list[tuple[int, str]]:
    return [(sent.at, f"{sent.host} {sent.queue_id}") for sent in mails]


def written(path: Path, data: bytes, at: int = NOON + 86_400) -> Path:
    path.write_bytes(data)
    os.utime(path, (at, at))
    return path


@pytest.mark.parametrize("stamp", [classic, iso])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
def test_a_log_is_read_without_loss(tmp_path: Path, stamp: object, pack: Callable[[bytes], bytes]) -> None:
    text = postfix(MAILS, stamp).encode()
    found, (read_by,) = read(written(tmp_path / "mail.log", pack(text)))
    assert found == begun(MAILS)
    assert (read_by.lines, read_by.unreadable, read_by.damage) == (LINES, 0, "")
    assert (read_by.stamps.first, read_by.stamps.latest) == (NOON, MAILS[-1].at + 2)


def test_journald_s_export_is_read_without_loss(tmp_path: Path) -> None:
    found, (read_by,) = read(written(tmp_path / "journal", journal(MAILS)))
    assert found == begun(MAILS)
    assert (read_by.lines, read_by.unreadable) == (LINES, 0)
    assert (read_by.stamps.first, read_by.stamps.latest) == (NOON, MAILS[-1].at + 2)


def test_binary_and_endless_fields_of_the_export_hide_nothing(tmp_path: Path) -> None:
    odd = b"__REALTIME_TIMESTAMP=%d\nMESSAGE\n%b\n\n" % (NOON * 1_000_000, (3).to_bytes(8, "little") + b"a\n\nb"[:3])
    long = b"__REALTIME_TIMESTAMP=%d\nX=%b\nY\n%b\n\n" % (
        NOON * 1_000_000, b"x" * 3 * MAX_LINE, (2 * MAX_LINE).to_bytes(8, "little") + b"\n" * 2 * MAX_LINE
    )  # fmt: skip
    found, (read_by,) = read(written(tmp_path / "journal", odd + long + journal(MAILS) + odd[:30] + b"\nMESSAGE\n\xff"))
    assert found == begun(MAILS)
    assert read_by.lines == LINES + 3


def test_the_log_files_of_the_daemons_are_read(tmp_path: Path) -> None:
    line = (
        "07F452AC009F: client=x[192.0.2.4], sasl_method=PLAIN, sasl_username=demo@example.com, recipient_count=1, "
        "curr_count=6/1000, status=UPDATE\n"
    )
    path = written(tmp_path / "log", "".join(f"{ctime(NOON + i)} {line}" for i in range(9)).encode())
    assert [at for at, _ in merged([reader(path)])] == [NOON + i for i in range(9)]


def test_standard_input_is_read_packed_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for data in (postfix(MAILS, iso).encode(), gzip.compress(postfix(MAILS, iso).encode())):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(data))))
        found, _ = read(STDIN)
        assert found == begun(MAILS)


def test_rotated_files_are_read_in_the_order_of_time(tmp_path: Path) -> None:
    text = postfix(MAILS).splitlines(keepends=True)
    third = len(text) // 3 + 2  # a mail is cut
    parts = [text[:third], text[third : 2 * third], text[2 * third :]]
    paths = [
        written(tmp_path / "mail.log", "".join(parts[2]).encode()),
        written(tmp_path / "mail.log.1", "".join(parts[1]).encode()),
        written(tmp_path / "mail.log.2.gz", gzip.compress("".join(parts[0]).encode())),
    ]
    found, _ = read(*paths)
    assert found == begun(MAILS)


def test_files_of_several_hosts_are_merged_by_time(tmp_path: Path) -> None:
    hosts = [[Sent(s.at + i, s.login, s.recipients, s.queue_id, f"mx{i}") for s in MAILS] for i in range(3)]
    found, _ = read(*[written(tmp_path / f"mx{i}", postfix(mails).encode()) for i, mails in enumerate(hosts)])
    assert found == sorted(at for mails in hosts for at in begun(mails))


def test_a_year_of_daily_files_is_no_more_than_some_at_a_time(tmp_path: Path) -> None:
    paths = []
    for day in range(120):
        sent = mail(NOON + 86_400 * day, "alice", 1, f"4XyZ{day:08x}z")
        paths.append(written(tmp_path / f"log.{day}", postfix([sent], iso).encode()))
    readers = [reader(path) for path in paths]
    for each in readers:
        each.begins()
    before = most = len(os.listdir("/proc/self/fd"))
    for _ in merged(readers):
        most = max(most, len(os.listdir("/proc/self/fd")))
    assert most - before < 50


def test_what_cannot_be_read_is_counted_and_the_first_are_kept(tmp_path: Path) -> None:
    text = postfix(MAILS).encode()
    junk = [b"x", b"\x1b[2J", b"Nov 31 10:00:00 mx", b"\xff" * 10, b"Nov 26 10:00:00 mx " + b"x" * MAX_LINE, b"-- x --"]
    junk += [b"", b"Nov 26 12:00:00 mx1 postfix/qmgr[9]: 4A: from=<a>, size=1, nrcpt=x"]
    found, (read_by,) = read(written(tmp_path / "mail.log", b"\n".join(junk) + b"\n" + text))
    assert found == begun(MAILS)
    assert (read_by.lines, read_by.unreadable) == (LINES + len(junk), 6)
    assert read_by.shown == [*enumerate(junk[:SHOWN], 1)]


def test_a_line_without_an_end_takes_no_memory(tmp_path: Path) -> None:
    text = postfix(MAILS).encode()
    found, (read_by,) = read(written(tmp_path / "log", gzip.compress(b"x" * 50_000_000 + b"\n" + text)))
    assert found == begun(MAILS)
    assert (read_by.lines, read_by.unreadable) == (LINES + 1, 1)
    assert len(read_by.shown[0][1]) <= 3 * 262_144


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_a_file_that_ends_early_or_is_damaged_gives_what_it_has(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    many = [mail(NOON + i, f"user{os.urandom(9).hex()}@example.com", 1, f"4{os.urandom(8).hex()}") for i in range(2000)]
    packed = pack(postfix(many).encode())
    half = len(packed) // 2
    path = written(tmp_path / "log", packed[:half])
    with_damage = written(tmp_path / "damaged", packed[:half] + b"\xff" * 100 + packed[half + 100 :])
    for file, says in ((path, "ends early"), (with_damage, "is damaged")):
        each = reader(file)
        logins = [event for _, event in each.events() if isinstance(event, Login)]
        assert 500 < len(logins) < 2000
        assert each.damage.startswith(says)


@pytest.mark.parametrize("begin", [b"\x1f\x8b\x08\x00", b"BZh9", b"\xfd7zXZ\x00"])
def test_a_file_whose_beginning_is_damaged_has_no_lines_and_says_so(tmp_path: Path, begin: bytes) -> None:
    each = reader(written(tmp_path / "log", begin + b"\xff" * 1000))
    assert list(each.events()) == []
    assert (each.lines, each.damage.partition(":")[0]) == (0, "is damaged")


def test_a_file_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="none: No such file or directory"):
        reader(tmp_path / "none")
    with pytest.raises(Refused, match="Is a directory"):
        reader(tmp_path)


def test_an_empty_file_has_no_lines(tmp_path: Path) -> None:
    found, (read_by,) = read(written(tmp_path / "log", b""))
    assert (found, read_by.lines) == ([], 0)


NOT_PLAIN = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"__CURSOR=", b"__REALTIME_TIMESTAMP=")
"""What a file that is packed, or a journal's export, begins with."""


@example([b"__CURSOR=", b""])
@example([b"BZh"])
@given(st.lists(st.binary(max_size=200).filter(lambda line: b"\n" not in line), max_size=30))
def test_whatever_a_file_holds_its_lines_are_counted(lines: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for begin in (b"", b"__CURSOR=x\n__REALTIME_TIMESTAMP=%d\n" % (NOON * 1_000_000)):
            each = reader(written(Path(folder) / "log", begin + b"".join(line + b"\n" for line in lines)))
            each.begins()
            for instant, _ in each.events():
                assert instant > 0
            assert each.unreadable <= each.lines
            if not begin and not b"".join(lines).startswith(NOT_PLAIN):
                assert each.lines == len(lines)
