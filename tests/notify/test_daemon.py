"""Notices of a running daemon: under load from many connections, across kill -9 and restarts, with a dead webhook."""

import json
import random
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ratelimitd.ctl import main as ctl
from tests.daemon.client import PolicyClient
from tests.daemon.process import Ratelimitd, config
from tests.instances.waiting import wait_until
from tests.notify.receiver import Receiver

ACCOUNTS = [f"{n}@example.com" for n in range(12)]
QUOTA = 20
CONNECTIONS = 6

Told = Counter[tuple[str, int]]


@contextmanager
def running(folder: Path, **notify: Any) -> Iterator[Ratelimitd]:
    """A daemon with a limit of QUOTA and one [[notify]]."""
    settings = {"retries": 20, **notify}
    daemon = Ratelimitd(folder, config(limit=[{"quota": QUOTA, "period": "monthly"}], notify=[settings]))
    daemon.start()
    try:
        yield daemon
    finally:
        daemon.kill()


def append_program(folder: Path) -> tuple[list[str], Path]:
    """A command that appends its notice to a file, in one write."""
    out, path = folder / "told", folder / "tell"
    path.write_text(
        f"#!{sys.executable} -IS\nimport os, sys\n"
        f"fd = os.open({str(out)!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)\n"
        "os.write(fd, sys.stdin.buffer.read() + b'\\n')\n"
    )
    path.chmod(0o755)
    return [str(path)], out


def told(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def count(notices: list[dict[str, Any]]) -> Told:
    return Counter((notice["key"], notice["percent"]) for notice in notices)


def load(daemon: Ratelimitd, per_account: int) -> list[threading.Thread]:
    """So many mails of each account, in random order, from CONNECTIONS connections; broken off where it is killed."""
    mails = ACCOUNTS * per_account
    random.Random(per_account).shuffle(mails)

    def send(own: list[str]) -> None:
        try:
            with daemon.client() as client:
                for login in own:
                    client.ask(login)
        except (OSError, EOFError):
            pass

    threads = [threading.Thread(target=send, args=(mails[n::CONNECTIONS],)) for n in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    return threads


def join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join()


def wait_until_over(daemon: Ratelimitd, notices: int) -> None:
    """Wait until the ledger says that so many notices, and all there are, are over."""

    def over() -> bool:
        lines = [json.loads(line) for line in (daemon.state / "notices.jsonl").read_text().splitlines() if line]
        ids = {line["id"] for line in lines}
        ended = {line["id"] for line in lines if "over" in line or not line.get("to")}
        return len(ids) == notices and ids == ended

    wait_until(over, f"the end of {notices} notices", 60)


@pytest.mark.real
def test_each_share_of_each_account_is_told_exactly_once_under_load_and_across_kill_9(folder: Path) -> None:
    command, out = append_program(folder)
    with running(folder, command=command) as daemon:
        join(load(daemon, QUOTA * 9 // 10))
        wait_until_over(daemon, len(ACCOUNTS))
        assert count(told(out)) == {(account, 80): 1 for account in ACCOUNTS}
        daemon.kill()
        daemon.start()
        join(load(daemon, QUOTA))
        wait_until_over(daemon, 2 * len(ACCOUNTS))
        daemon.stop()
        daemon.start()
        join(load(daemon, 2))
        daemon.stop()
    assert count(told(out)) == {(account, percent): 1 for account in ACCOUNTS for percent in (80, 100)}


@pytest.mark.real
def test_a_kill_in_the_midst_of_deliveries_loses_none_and_repeats_only_those_in_flight_under_their_id(
    folder: Path,
) -> None:
    kills = 4
    chance = random.Random(4)
    with Receiver() as receiver, running(folder, url=receiver.url) as daemon:
        for _ in range(kills):
            before = len(receiver.received)
            threads = load(daemon, QUOTA)
            more = chance.randint(1, 2)
            wait_until(
                lambda: (
                    len(receiver.received) >= before + more  # noqa: B023
                    or not any(t.is_alive() for t in threads)  # noqa: B023
                ),
                "deliveries",
            )
            daemon.kill()
            join(threads)
            daemon.start()
        join(load(daemon, QUOTA))
        wait_until_over(daemon, 2 * len(ACCOUNTS))
        daemon.stop()
    notices = [received.notice for received in receiver.received]
    assert set(count(notices)) == {(account, percent) for account in ACCOUNTS for percent in (80, 100)}
    assert len({notice["id"] for notice in notices}) == 2 * len(ACCOUNTS)
    assert len(notices) - 2 * len(ACCOUNTS) <= 4 * kills  # targets.AT_ONCE per kill


@pytest.mark.real
def test_a_dead_webhook_delays_no_reply_and_no_stop(folder: Path) -> None:
    with Receiver(*[0] * 100) as receiver, running(folder, url=receiver.url, timeout_s=300) as daemon:
        join(load(daemon, QUOTA))
        wait_until(lambda: len(receiver.received) >= 4, "deliveries that hang")
        with PolicyClient(daemon.port) as client:
            for n in range(200):
                client.ask(f"new{n}@example.com")  # none would be answered within the hook's 300 s
        assert daemon.stop() == 0
        assert len(receiver.received) == 4
        receiver.statuses.clear()
        daemon.start()
        wait_until_over(daemon, 2 * len(ACCOUNTS))
    assert {received.notice["key"] for received in receiver.received} == set(ACCOUNTS)


@pytest.mark.real
def test_a_quota_that_set_has_lowered_is_notified_of_at_the_next_mail(folder: Path) -> None:
    command, out = append_program(folder)
    with running(folder, command=command) as daemon, daemon.client() as client:
        for _ in range(7):
            client.ask(ACCOUNTS[0])
        assert ctl.main(["-c", str(daemon.file), "set", ACCOUNTS[0], "--quota", "8"]) == 0
        assert client.ask(ACCOUNTS[0]) == "DUNNO"
        wait_until_over(daemon, 2)
        assert {(notice["percent"], notice["quota"]) for notice in told(out)} == {(80, 8), (100, 8)}


@pytest.mark.real
def test_a_wrong_notify_is_one_line_that_names_the_place(folder: Path) -> None:
    daemon = Ratelimitd(folder, config(notify=[{"at": [0], "command": ["a"]}]))
    assert daemon.spawn("--check").wait() == 2
    assert "notify[0].at[0]: found 0; allowed: a whole number from 1 to 1000" in daemon.output()
