"""The forms in which syslog daemons, journalctl and Postfix itself write one log: each is read without loss, and a line
of a mail that is in no such form is counted as one that cannot be read."""

import bz2
import gzip
import lzma
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ratelimitd.ctl.replay.lines import Decided, Login, Queued
from ratelimitd.ctl.replay.merge import merged
from ratelimitd.ctl.replay.reader import Reader
from tests.replay.logs import Sent, classic, ctime, iso, mail, said

NOON = 1_795_694_400
MAILS = [mail(NOON + 60 * i, f"user{i % 3}@example.com", 1 + i % 4, f"4XyZ{i:08x}z") for i in range(40)]
Form = Callable[[int, str, str, str], str]


def lines(form: Form, mails: list[Sent] = MAILS) -> list[str]:
    """The log, in a form: of an instant, a host, a program without its number, and a message."""
    rows = sorted(((at, sent.host, program, text) for sent in mails for at, program, text in said(sent)))
    return [form(at, host, "postfix/" + program.partition("[")[0], text) for at, host, program, text in rows]


def utc(at: int, form: str) -> str:
    return datetime.fromtimestamp(at, UTC).strftime(form)


FORMS: dict[str, Form] = {
    "rsyslog or postlogd": lambda at, host, program, text: f"{classic(at)} {host} {program}[7]: {text}",
    "rsyslog, ISO 8601": lambda at, host, program, text: f"{iso(at)} {host} {program}[7]: {text}",
    "with a priority": lambda at, host, program, text: f"<22>{iso(at)} {host} {program}[7]: {text}",
    "RFC 5424": lambda at, host, program, text: f"<22>1 {iso(at)} {host} {program} 7 - - {text}",
    "RFC 5424 with data": lambda at, host, program, text: (
        f'<22>1 {iso(at)} {host} {program} 7 ID1 [a@1 x="\\"]: \\\\"][b y=""] \ufeff{text}'
    ),
    "journalctl -o short-precise": lambda at, host, program, text: f"{classic(at)}.123456 {host} {program}[7]: {text}",
    "journalctl -o short-iso": lambda at, host, program, text: (
        f"{utc(at, '%Y-%m-%dT%H:%M:%S+0000')} {host} {program}[7]: {text}"
    ),
    "journalctl -o short-iso-precise": lambda at, host, program, text: (
        f"{utc(at, '%Y-%m-%dT%H:%M:%S.123456+00:00')} {host} {program}[7]: {text}"
    ),
    "journalctl -o short-full": lambda at, host, program, text: (
        f"{utc(at, '%a %Y-%m-%d %H:%M:%S UTC')} {host} {program}[7]: {text}"
    ),
    "busybox": lambda at, host, program, text: f"{classic(at)} {host} mail.info {program}[7]: {text}",
    "syslog-ng": lambda at, host, program, text: f"{classic(at)} s_net@{host} <mail.info> {program}[7]: {text}",
    "Solaris": lambda at, host, program, text: f"{classic(at)} {host} {program}[7]: [ID 197553 mail.info] {text}",
    "another instance": lambda at, host, program, text: (
        f"{classic(at)} {host} {program.replace('postfix/', 'postfix-out/')}[7]: {text}"
    ),
    "an address for a host": lambda at, _, program, text: f"{classic(at)} 2001:db8::1 {program}[7]: {text}",
    "carriage returns": lambda at, host, program, text: f"{classic(at)} {host} {program}[7]: {text}\r",
    "holes": lambda at, host, program, text: "\0" * (at % 7) + f"{classic(at)} {host} {program}[7]: {text}",
}


def reader(path: Path, data: bytes) -> Reader:
    path.write_bytes(data)
    os.utime(path, (NOON + 86_400, NOON + 86_400))
    return Reader(str(path), UTC, lambda _: None, with_recipients=False)


def is_whole(read: Reader) -> bool:
    events = [*merged([read])]
    logins = [(at, event.mail.split()[1].decode()) for at, event in events if isinstance(event, Login)]
    queued = [event.recipients for _, event in events if isinstance(event, Queued)]
    return logins == [(sent.at, sent.queue_id) for sent in MAILS] and queued == [len(s.recipients) for s in MAILS]


@pytest.mark.parametrize("form", FORMS)
def test_a_form_is_read_without_loss(tmp_path: Path, form: str) -> None:
    read = reader(tmp_path / "log", "".join(f"{line}\n" for line in lines(FORMS[form])).encode())
    assert is_whole(read)
    assert read.unreadable == 0


@pytest.mark.parametrize(
    "form",
    [
        lambda at, host, program, text: f"{classic(at)} {program}[7]: {text}",
        lambda at, host, program, text: f"{iso(at)} {classic(at)} {host} {program}[7]: {text}",
        lambda at, host, program, text: f"{classic(at)} {host} {program}[7]: INFO {text}",
        lambda at, host, program, text: f"{classic(at)} {host}, {program}, {text}",
    ],
)
def test_in_another_form_no_mail_is_lost_without_a_word(tmp_path: Path, form: Form) -> None:
    read = reader(tmp_path / "log", "\n".join(lines(form)).encode())
    assert [*merged([read])] == []
    assert read.unreadable >= 2 * len(MAILS)


def test_a_log_that_was_cut_while_it_was_written_begins_with_a_hole(tmp_path: Path) -> None:
    whole = "".join(f"{line}\n" for line in lines(FORMS["rsyslog or postlogd"])).encode()
    read = reader(tmp_path / "log", b"\0" * 3_000_000 + whole)
    assert is_whole(read)
    assert (read.lines, read.unreadable) == (whole.count(b"\n"), 0)


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, bz2.compress])
def test_packed_parts_that_were_joined_are_one_file(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    whole = "".join(f"{line}\n" for line in lines(FORMS["rsyslog or postlogd"])).encode()
    half = len(whole) // 2  # in the middle of a line
    read = reader(tmp_path / "log", pack(whole[:half]) + pack(whole[half:]))
    assert is_whole(read)
    assert (read.unreadable, read.damage) == (0, "")


def decided(at: int, used: int, heading: str = "mx1 ratelimitd[5]: ", stamp: Callable[[int], str] = classic) -> str:
    return (
        f"{stamp(at)} {heading}: client=a.example[192.0.2.1], sasl_method=PLAIN, sasl_username=alice, "
        f"recipient_count=1, curr_count={used}/5, status=OVER_QUOTA\n"
    )


def decisions(*readers: Reader) -> int:
    return len([event for _, event in merged(readers) if isinstance(event, Decided)])


def test_decisions_that_syslog_wrote_to_several_files_count_once(tmp_path: Path) -> None:
    times = [NOON, NOON, NOON, NOON + 1, NOON, NOON + 200, NOON + 200]  # a little out of order, some alike
    text = "".join(decided(at, 6) for at in times)
    warnings = text.splitlines(keepends=True)
    assert decisions(reader(tmp_path / "mail.log", text.encode())) == 7
    files = {
        "mail.log": text,
        "mail.info": text.replace("Nov 26 12:00:00", iso(NOON)),
        "mail.warn": "".join(warnings[2:]),
        "own.log": "".join(decided(at, 6, "", ctime) for at in times),
    }
    assert decisions(*[reader(tmp_path / name, data.encode()) for name, data in files.items()]) == 7


def test_decisions_of_several_hosts_are_their_own(tmp_path: Path) -> None:
    files = [reader(tmp_path / host, decided(NOON, 6, f"{host} ratelimitd[5]: ").encode()) for host in ("mx1", "mx2")]
    assert decisions(*files) == 2
