"""Syslog, stderr and the file of a running daemon: what is written, and that no reader stops the mail."""

import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.daemon.client import request
from tests.daemon.conftest import Start
from tests.daemon.process import Ratelimitd
from tests.instances.waiting import wait_until

MAIL = 2 << 3
MANY = 3000
BACKLOG_BYTES = 65536  # some 350 lines


class Syslog:
    """A syslogd's socket, read when the test says so."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(60)

    def read(self) -> str:
        """One datagram."""
        return self.socket.recv(65536).decode()

    def read_until(self, text: str) -> list[str]:
        """The datagrams up to one with the text in it."""
        found = [self.read()]
        while text not in found[-1]:
            found.append(self.read())
        return found


@pytest.fixture
def syslog(folder: Path) -> Iterator[Syslog]:
    made = Syslog(folder / "syslog")
    with closing(made.socket):
        yield made


def ask_many(daemon: Ratelimitd, count: int) -> None:
    with daemon.client() as client:
        for start in range(0, count, 100):
            client.send(b"".join(request(f"{n % 7}@x.example") for n in range(start, start + 100)))
            for _ in range(100):
                client.reply()


def test_syslog_has_the_perl_daemons_lines_at_their_levels(start: Start, folder: Path, syslog: Syslog) -> None:
    log = {"syslog": str(folder / "syslog"), "ident": "ratelimit-policyd"}
    daemon = start(log=log, limit=[{"quota": 2}])
    with daemon.client() as client:
        for _ in range(3):
            client.ask(client_name="c.example.net", client_address="1.2.3.4", queue_id="07F452AC009F")
    lines = [line for line in syslog.read_until("OVER_QUOTA") if "client=" in line]
    tag = rf"[A-Z][a-z]{{2}} [ 0-9]\d \d\d:\d\d:\d\d ratelimit-policyd\[{daemon.process.pid}\]: "
    rest = "07F452AC009F: client=c.example.net[1.2.3.4], sasl_method=PLAIN, sasl_username=alice@example.com, "
    expected = [(5, "1/2, status=INSERT"), (6, "2/2, status=UPDATE"), (4, "3/2, status=OVER_QUOTA")]
    for line, (level, end) in zip(lines, expected, strict=True):
        assert re.fullmatch(f"<{MAIL + level}>{tag}" + re.escape(f"{rest}recipient_count=1, curr_count={end}"), line)
    assert daemon.stop() == 0
    assert "has stopped" in syslog.read_until("has stopped")[-1]


def test_a_stopped_syslog_reader_delays_no_reply_and_what_is_lost_is_counted(
    start: Start, folder: Path, syslog: Syslog
) -> None:
    log = {"syslog": str(folder / "syslog"), "max_backlog_bytes": BACKLOG_BYTES}
    daemon = start(log=log, limit=[{"quota": "unlimited"}])
    ask_many(daemon, MANY)
    dropped = int(daemon.dump()[-1][0].rpartition("Log lines dropped: ")[2])
    assert 1000 < dropped < MANY
    assert len(daemon.decisions()) == MANY  # the file has them all
    kept: list[str] = []
    while len(kept) < MANY - dropped:  # all that was not dropped arrives when the reader is back
        kept += [line for line in [syslog.read()] if "client=" in line]
    assert sum(map(len, kept)) > 0.9 * BACKLOG_BYTES
    daemon.signal(signal.SIGTERM)
    syslog.read_until("has stopped")
    assert daemon.process.wait() == 0


def test_a_stopped_syslog_reader_does_not_keep_the_daemon_up(start: Start, folder: Path, syslog: Syslog) -> None:
    daemon = start(log={"syslog": str(folder / "syslog")})
    ask_many(daemon, 200)
    daemon.signal(signal.SIGHUP)  # while lines wait for the reader
    daemon.wait_for_log("log files are reopened")
    ask_many(daemon, 200)
    assert daemon.stop() == 0
    assert syslog.read()


def test_a_syslogd_that_comes_late_or_is_replaced_is_found(start: Start, folder: Path) -> None:
    path = folder / "late"
    daemon = start(log={"syslog": str(path)})
    with daemon.client() as client:
        client.ask("first@x.example")
        with closing(Syslog(path).socket) as reader:
            found = Syslog.__new__(Syslog)
            found.socket = reader
            assert found.read_until("first@x.example")
        client.ask("second@x.example")  # nobody is there
        again = Syslog(path)
        with closing(again.socket):
            assert again.read_until("second@x.example")
            client.ask("third@x.example")
            assert again.read_until("third@x.example")
    assert daemon.stop() == 0


def test_stderr_has_every_line(start: Start) -> None:
    daemon = start(log={"stderr": True})
    with daemon.client() as client:
        client.ask(queue_id="Q")
    assert daemon.stop() == 0
    assert "\nQ: client=client.example.net[192.0.2.1], sasl_method=PLAIN, " in daemon.output()


def test_a_stopped_reader_of_stderr_delays_no_reply(make: Start) -> None:
    daemon = make(log={"stderr": True}, limit=[{"quota": "unlimited"}])
    read, write = os.pipe()
    try:
        daemon.start(stderr=write)
        ask_many(daemon, 2000)
        dropped = int(daemon.dump()[-1][0].rpartition("Log lines dropped: ")[2])
        assert dropped > 1000
        assert daemon.stop() == 0
    finally:
        os.close(write)
        os.close(read)


def test_a_stderr_that_is_gone_stops_nothing(make: Start) -> None:
    daemon = make(log={"stderr": True})
    read, write = os.pipe()
    try:
        daemon.start(stderr=write)
    finally:
        os.close(write)
        os.close(read)
    ask_many(daemon, 200)
    assert daemon.stop() == 0
    assert daemon.used().values()


def test_json_lines_say_the_same(start: Start) -> None:
    daemon = start(log={"format": "json", "stderr": True}, limit=[{"name": "day", "quota": 1}])
    before = datetime.now(UTC) - timedelta(seconds=1)
    with daemon.client() as client:
        client.ask(queue_id="Q", instance="i.1", sender="s@x.example", helo_name="\x1b")
        client.ask(instance="i.2", sender='"\x1b[0m,"@x.example')
    assert daemon.stop() == 0
    text = daemon.log_file.read_text()
    assert daemon.output() == text  # the file has no other time than that of each object
    records = [json.loads(line) for line in text.splitlines()]
    times = [datetime.fromisoformat(record.pop("time")) for record in records]
    assert before <= times[0]
    assert times[-1] <= datetime.now(UTC)
    first, second = (record for record in records if "status" in record)
    reset = first.pop("reset")
    assert first == {
        "status": "INSERT",
        "queue_id": "Q",
        "instance": "i.1",
        "client_name": "client.example.net",
        "client_address": "192.0.2.1",
        "sasl_method": "PLAIN",
        "sasl_username": "alice@example.com",
        "sender": "s@x.example",
        "recipient_count": 1,
        "limit": "day",
        "key": "alice@example.com",
        "used": 1,
        "quota": 1,
    }
    assert reset == second["reset"] > 1_700_000_000
    assert (second["status"], second["sender"]) == ("OVER_QUOTA", '"\x1b[0m,"@x.example')
    assert "\x1b" not in daemon.output()
    assert records[-1] == {"level": "info", "event": "ratelimitd has stopped", "requests": 2}


def test_json_lines_of_a_hostile_client_are_json_on_stderr_too(start: Start) -> None:
    daemon = start(log={"format": "json", "stderr": True})
    evil = "\U0001f4a9" * 2000
    with daemon.client() as client:
        names = ("queue_id", "instance", "client_name", "client_address", "sasl_method", "sender")
        client.ask(evil, **dict.fromkeys(names, evil))
    assert daemon.stop() == 0
    lines = (daemon.folder / "output").read_text().splitlines()
    record = next(record for record in map(json.loads, lines) if "status" in record)
    assert record["sender"].endswith("... (2000 characters)")


def test_a_reload_changes_the_format_of_the_file(start: Start) -> None:
    daemon = start()
    text = daemon.file.read_text()
    assert "[log]\n" in text
    daemon.file.write_text(text.replace("[log]\n", '[log]\nformat = "json"\n'))
    daemon.signal(signal.SIGHUP)
    wait_until(lambda: '"event": "the configuration is reloaded"' in daemon.log_file.read_text(), "the reload")
    assert daemon.stop() == 0
    last = daemon.log_file.read_text().splitlines()[-1]
    assert json.loads(last)["event"] == "ratelimitd has stopped"


def test_nothing_that_a_client_says_forges_a_line_or_a_field(start: Start) -> None:
    daemon = start(log={"level": "info"})
    evil = "m\x1b[31m\u202e\x07\x7f\u2028\u0085, status=UPDATE\x0b"
    with daemon.client() as client:
        client.ask(f"{evil}@x.example", client_name=evil, queue_id=evil, sasl_method=evil, client_address="::1")
    assert daemon.stop() == 0
    (line,) = daemon.decisions()
    safe = "m\\x1b[31m\\u202e\\x07\\x7f\\u2028\\u0085\\x2c status=UPDATE\\x0b"
    assert line == (
        f"{safe}: client={safe}[::1], sasl_method={safe}, sasl_username={safe}@x.example, "
        "recipient_count=1, curr_count=1/1000, status=INSERT"
    )


def test_the_level_decides_what_is_logged(start: Start) -> None:
    daemon = start(log={"level": "warning"}, limit=[{"quota": 1}])
    with daemon.client() as client:
        client.ask()
        client.ask()
    assert daemon.stop() == 0
    assert [line.rpartition("status=")[2] for line in daemon.decisions()] == ["OVER_QUOTA"]
    assert not any("is ready" in line or "has stopped" in line for line in daemon.log())


def test_a_full_disk_under_the_log_stops_nothing(make: Start) -> None:
    daemon = make(log={"file": "/dev/full"})
    daemon.start()
    with daemon.client() as client:
        assert client.ask() == "DUNNO"
    assert daemon.stop() == 0
    assert daemon.used() == {"alice@example.com": 1}
    wait_until(lambda: daemon.output() == "", "silence")
