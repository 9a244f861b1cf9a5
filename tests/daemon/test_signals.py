"""What signals do to a running daemon."""

import os
import signal
import socket
import threading
from pathlib import Path

import pytest

from tests.bench import load
from tests.daemon.client import request
from tests.daemon.conftest import Start
from tests.daemon.process import Ratelimitd
from tests.instances.waiting import wait_until


def test_sigusr1_writes_the_cache_and_says_so(start: Start) -> None:
    limits = [{"name": "day", "quota": 5}, {"name": "pool", "key": "domain", "quota": "unlimited", "period": "hourly"}]
    daemon = start(limit=limits, store={"flush_interval_s": 3600})
    with daemon.client() as client:
        for login in ("a@x.example", "a@x.example", "b\x1b[2J\u202e@x.example"):
            client.ask(login)
        header, *lines, totals = daemon.dump()
    assert header == ["Key", "Limit", "Quota", "Used", "Reset", "Not stored"]
    assert [(key, limit, quota, used, unstored) for key, limit, quota, used, _, unstored in lines] == [
        ("a@x.example", "day", "5", "2", "2"),
        ("b\\x1b[2j\\u202e@x.example", "day", "5", "1", "1"),
        ("x.example", "pool", "0", "3", "3"),
    ]
    assert all(line[4][:2] == "20" and line[4][-5] in "+-" for line in lines)
    assert totals[0].startswith("Accounts: 3, Not stored: 6, Transactions: 3, Requests: 3, Connections: ")
    assert f"the cache is dumped: file={daemon.state}/cache.dump" in daemon.log()
    assert daemon.stop() == 0


def test_a_reader_of_the_dump_never_sees_half_of_it(start: Start) -> None:
    daemon = start()
    with daemon.client() as client:
        for number in range(300):
            client.send(request(f"{number}@x.example"))
        for _ in range(300):
            client.reply()
    assert len(daemon.dump()) == 302
    before = (daemon.state / "cache.dump").open(encoding="utf-8")
    stop = threading.Event()
    seen: set[int] = set()

    def read() -> None:
        while not stop.is_set():
            seen.add(len((daemon.state / "cache.dump").read_text(encoding="utf-8").splitlines()))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(5):
            daemon.dump()
    finally:
        stop.set()
        reader.join()
    assert seen == {302}
    with before:
        assert len(before.readlines()) == 302
    assert daemon.stop() == 0


def test_a_dump_that_cannot_be_written_is_logged_and_the_service_goes_on(start: Start) -> None:
    daemon = start()
    (daemon.state / "cache.dump").mkdir()
    daemon.signal(signal.SIGUSR1)
    daemon.wait_for_log("the cache cannot be dumped: reason=state_dir: ")
    with daemon.client() as client:
        assert client.ask() == "DUNNO"
    assert daemon.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_daemon_told_to_stop_stores_everything_and_says_so(start: Start, number: signal.Signals) -> None:
    daemon = start(store={"flush_interval_s": 3600})
    with daemon.client() as client:
        client.ask()
        assert daemon.stop(number) == 0
        assert client.at_end()
    assert daemon.used() == {"alice@example.com": 1}
    assert [path.name for path in (daemon.state / "journal").iterdir()] == ["past"]  # for the memo of the next run
    assert f"stopping: signal={number.name}" in daemon.log()
    assert daemon.log()[-1] == "ratelimitd has stopped: requests=1"
    assert daemon.output() == ""


def refuses(daemon: Ratelimitd) -> bool:
    try:
        with daemon.client():
            return False
    except ConnectionRefusedError:
        return True


def test_requests_in_flight_are_answered_before_the_end(start: Start) -> None:
    daemon = start()
    data = request()
    clients = [daemon.client() for _ in range(20)]
    for client in clients:
        client.send(data[:100])
    with daemon.client() as client:  # by its answer the first halves have been read
        client.ask()
    daemon.signal(signal.SIGTERM)
    wait_until(lambda: refuses(daemon), "the end of its listening")
    for client in clients:
        client.send(request()[100:])
    assert [client.reply() for client in clients] == ["DUNNO"] * 20
    assert all(client.at_end() for client in clients)
    assert daemon.process.wait() == 0
    for client in clients:
        client.socket.close()
    assert daemon.used() == {"alice@example.com": 21}


def test_idle_connections_do_not_keep_the_daemon_up(start: Start) -> None:
    """Postfix keeps its connections; the stop waits for what is in flight alone, not for its deadline."""
    daemon = start(server={"shutdown_timeout_s": 3600})
    with daemon.client() as asked, daemon.client() as silent:
        assert asked.ask() == "DUNNO"
        assert daemon.stop() == 0
        assert asked.at_end()
        assert silent.at_end()


def test_a_request_that_is_never_ended_does_not_keep_the_daemon_up(start: Start) -> None:
    daemon = start(server={"shutdown_timeout_s": 0.5})
    with daemon.client() as client:
        client.send(request()[:100])
        with daemon.client() as other:
            other.ask()
        assert daemon.stop() == 0
        assert client.at_end()
    assert daemon.used() == {"alice@example.com": 1}


def test_being_told_many_times_to_stop_is_no_worse(start: Start) -> None:
    daemon = start()
    with daemon.client() as client:
        client.ask()
        client.send(request()[:100])
        with daemon.client() as other:
            other.ask()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            daemon.signal(number)
        daemon.wait_for_log("stopping")
        daemon.signal(signal.SIGTERM)
        client.send(request()[100:])
        assert client.reply() == "DUNNO"
        while daemon.process.running():  # also while it flushes for the last time, and ends
            daemon.signal(signal.SIGTERM)
    assert daemon.process.wait() == 0
    assert daemon.log()[-1].startswith("ratelimitd has stopped")
    assert daemon.used() == {"alice@example.com": 3}


@pytest.mark.real
def test_under_load_a_daemon_stops_exactly(start: Start, load_program: Path, folder: Path) -> None:
    daemon = start(limit=[{"quota": "unlimited"}])
    out = folder / "accounts"
    options = ["-t", "-s", "60", "-k", "20", "-c", "10", "-o", str(out)]
    clients = load.begin(load_program, daemon.listen[0], *options)
    try:
        wait_until(lambda: len(daemon.decisions()) > 500, "some load", 60)
        assert daemon.stop() == 0
    finally:
        figures = load.finish(clients)
    assert figures.malformed == 0
    assert figures.sent - figures.answered <= 10
    used, asked = daemon.used(), load.accounts(out)
    assert all(account.answered <= used.get(name, 0) <= account.sent for name, account in asked.items())
    assert sum(used.values()) - figures.answered <= 10


@pytest.mark.real
def test_a_rotated_log_loses_no_line_under_load(start: Start, load_program: Path) -> None:
    daemon = start()
    options = ["-t", "-s", "60", "-k", "20", "-c", "10"]
    clients = load.begin(load_program, daemon.listen[0], *options)
    rotated = []
    try:
        for number in range(4):
            wait_until(lambda: len(daemon.log()) > 300, "a log", 60)
            rotated.append(daemon.log_file.rename(daemon.folder / f"log.{number}"))
            daemon.signal(signal.SIGHUP)
            wait_until(daemon.log_file.exists, "a new log", 60)
        assert daemon.stop() == 0
    finally:
        load.finish(clients)
    lines = [line for file in (*rotated, daemon.log_file) for line in file.read_text().splitlines()]
    decisions = sum(": client=" in line for line in lines)
    assert decisions > 4 * 290
    assert lines[-1].endswith(f"ratelimitd has stopped: requests={decisions}")
    assert sum("log files are reopened" in line for line in lines) == 4


def test_a_log_that_cannot_be_reopened_goes_on_in_the_old_file_and_says_so(start: Start) -> None:
    daemon = start()
    moved = daemon.log_file.rename(daemon.folder / "log.1")
    daemon.log_file.mkdir()
    daemon.signal(signal.SIGHUP)
    wait_until(lambda: "cannot be reopened" in moved.read_text(), "the complaint")
    with daemon.client() as client:
        assert client.ask() == "DUNNO"
    assert daemon.stop() == 0
    assert "status=INSERT" in moved.read_text()
    daemon.log_file.rmdir()


@pytest.mark.parametrize("asked", ["signal", "control"])
def test_a_reload_that_hangs_on_a_file_does_not_keep_the_daemon_from_stopping(start: Start, asked: str) -> None:
    """A file system that does not answer: a pipe that nobody writes to."""
    daemon = start()
    with daemon.client() as client:
        assert client.ask("alice@x.example") == "DUNNO"
        kept = daemon.file.with_name("kept.toml")
        daemon.file.rename(kept)
        os.mkfifo(daemon.file)
        if asked == "signal":
            daemon.signal(signal.SIGHUP)
            daemon.wait_for_log("log files are reopened")
        else:
            with socket.socket(socket.AF_UNIX) as control:
                control.connect(str(daemon.state / "control.sock"))
                control.sendall(b'{"verb": "reload"}\n')
                daemon.wait_for_log("log files are reopened")
        assert client.ask("alice@x.example") == "DUNNO"
    daemon.file.unlink()
    kept.rename(daemon.file)
    assert daemon.stop() == 0
    assert daemon.used()["alice@x.example"] == 2
