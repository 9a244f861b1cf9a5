"""The forms in which syslog daemons, journalctl and Postfix itself write one log: each is read without loss, and a line
of a mail that is in no such form is counted as one that cannot be read."""

import bz2
import gzip
import json
import lzma
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ratelimitd.ctl.replay.lines import Decided, Delivered, Login, Queued
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


def printed(at: int) -> str:
    """A time as containers are given it."""
    return utc(at, "%Y-%m-%dT%H:%M:%S.123456789Z")


def journal_json(at: int, host: str, program: object, text: object) -> str:
    fields = {"MESSAGE": text, "SYSLOG_IDENTIFIER": program, "_HOSTNAME": host, "_PID": "7"}
    return json.dumps({"__CURSOR": "s=5e6f;i=1", **fields, "__REALTIME_TIMESTAMP": f"{at}123456", "PRIORITY": "6"})


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
    "FreeBSD, syslogd -v": lambda at, host, program, text: f"{classic(at)} <mail.info> {host} {program}[7]: {text}",
    "journalctl --no-hostname": lambda at, _, program, text: f"{classic(at)} {program}[7]: {text}",
    "a service named by its address": lambda at, host, program, text: (
        f"{classic(at)} {host} {program.replace('postfix/', 'postfix/127.0.0.1:587/')}[7]: {text}"
    ),
    "journalctl -o short-full, a zone without a name": lambda at, host, program, text: (
        f"{utc(at + 19_800, '%a %Y-%m-%d %H:%M:%S +0530')} {host} {program}[7]: {text}"
    ),
    "journalctl -o short-unix": lambda at, host, program, text: f"{at}.123456 {host} {program}[7]: {text}",
    "journalctl -o json": lambda at, host, program, text: journal_json(at, host, program, text),
    "journalctl -o json, not UTF-8": lambda at, host, program, text: journal_json(
        at, host, [program, "another"], [*text.encode()]
    ),
    "journalctl -o json-seq": lambda at, host, program, text: f"\x1e{journal_json(at, host, program, text)}",
    "docker compose logs": lambda at, host, program, text: f"mail-1  | {classic(at)} {host} {program}[7]: {text}",
    "docker compose logs, coloured": lambda at, host, program, text: (
        f"\x1b[36mmail-1  | \x1b[0m{iso(at)} {host} {program}[7]: {text}"
    ),
    "docker logs -t": lambda at, host, program, text: f"{printed(at)} {classic(at)} {host} {program}[7]: {text}",
    "docker logs -t of a program alone": lambda at, _, program, text: f"{printed(at)} {program}[7]: {text}",
    "Docker's file": lambda at, host, program, text: json.dumps(
        {"log": f"{classic(at)} {host} {program}[7]: {text}\n", "stream": "stdout", "time": printed(at)}
    ),
    "containerd's file": lambda at, host, program, text: (
        f"{printed(at)} stdout F {iso(at)} {host} {program}[7]: {text}"
    ),
    "kubectl logs --prefix": lambda at, host, program, text: (
        f"[pod/mail-0/postfix] {classic(at)} {host} {program}[7]: {text}"
    ),
    "zgrep": lambda at, host, program, text: f"/var/log/mail.log.2.gz:{classic(at)} {host} {program}[7]: {text}",
    "grep -Hn": lambda at, host, program, text: f"mail.log:12:{classic(at)} {host} {program}[7]: {text}",
    "RFC 6587": lambda at, host, program, text: f"113 <22>1 {iso(at)} {host} {program} 7 - - {text}",
    "a byte order mark": lambda at, host, program, text: f"\ufeff{classic(at)} {host} {program}[7]: {text}",
    "carriage returns": lambda at, host, program, text: f"{classic(at)} {host} {program}[7]: {text}\r",
    "holes": lambda at, host, program, text: "\0" * (at % 7) + f"{classic(at)} {host} {program}[7]: {text}",
}


def reader(path: Path, data: bytes) -> Reader:
    path.write_bytes(data)
    os.utime(path, (NOON + 86_400, NOON + 86_400))
    return Reader(str(path), UTC, lambda _: None, with_recipients=False)


def is_whole(read: Reader) -> bool:
    events = [*merged([read])]
    logins = [(at, event.mail.split()[-1].decode()) for at, event in events if isinstance(event, Login)]
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
        lambda at, host, program, text: f"{classic(at)} {host} my {program}[7]: {text}",
        lambda at, host, program, text: f"{classic(at)} {host} root: {classic(at)} {host} {program}[7]: {text}",
        lambda at, host, program, text: f"{classic(at)} {host} {program}[7]: INFO {text}",
        lambda at, host, program, text: json.dumps({"@timestamp": iso(at), "host": host, "message": text}),
        lambda at, host, program, text: f"{classic(at)} {host}, {program}, {text}",
    ],
)
def test_in_another_form_no_mail_is_lost_without_a_word(tmp_path: Path, form: Form) -> None:
    read = reader(tmp_path / "log", "\n".join(lines(form)).encode())
    assert [*merged([read])] == []
    assert read.unreadable >= 2 * len(MAILS)


def test_what_containers_put_around_a_line_hides_no_recipient(tmp_path: Path) -> None:
    for form in ("docker logs -t", "Docker's file", "containerd's file", "journalctl -o json"):
        path = tmp_path / form.replace("/", "")
        path.write_text("".join(f"{line}\n" for line in lines(FORMS[form])))
        read = Reader(str(path), UTC, lambda _: None, with_recipients=True)
        named = [event.recipient for _, event in merged([read]) if isinstance(event, Delivered)]
        assert len(named) == sum(len(sent.recipients) for sent in MAILS), form


def test_lines_in_and_out_of_something_else_may_be_mixed(tmp_path: Path) -> None:
    forms = [FORMS[name] for name in ("rsyslog or postlogd", "docker compose logs", "journalctl -o json", "zgrep")]
    mixed = [lines(forms[i % 4])[i] for i in range(len(lines(forms[0])))]
    read = reader(tmp_path / "log", "".join(f"{line}\n" for line in mixed).encode())
    assert is_whole(read)
    assert (read.unreadable, read.begins()) == (0, NOON)


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
