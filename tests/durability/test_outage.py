"""The store away under load: no reply waits for it, limits go on being enforced, totals are exact afterwards."""

import contextlib
import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ratelimitd.core.counters import Counter, Meter
from ratelimitd.core.verdict import Charge
from ratelimitd.state.journal import Journal
from tests.conftest import missing
from tests.durability.daemon import Clients, Daemon
from tests.durability.node import make_limit
from tests.instances.components import ComponentMissing
from tests.instances.smalldisk import SmallDisk
from tests.instances.waiting import wait_until

QUOTA = 50
CONNECTIONS = 20
ACCOUNTS = 30


def _outage(folder: Path, seconds: float) -> None:
    daemon = Daemon(folder, quota=QUOTA, flush_interval_s=0.1)
    daemon.start()
    daemon.wait()
    before = Clients(daemon.socket, CONNECTIONS, ACCOUNTS, False, 1)
    before.run(0.5, drain=True)
    with contextlib.closing(sqlite3.connect(folder / "state" / "ratelimit.sqlite3", isolation_level=None)) as holder:
        holder.execute("PRAGMA busy_timeout = 30000")
        holder.execute("BEGIN EXCLUSIVE")
        during = Clients(daemon.socket, CONNECTIONS, ACCOUNTS, False, 2)
        during.run(seconds, drain=True)
        wait_until(lambda: "the store is unavailable" in _log(folder), "the loss is told", 60)
        assert len(list((folder / "state" / "journal").iterdir())) <= 20
        holder.execute("ROLLBACK")
    wait_until(lambda: "the store is available again" in _log(folder), "the return is told", 60)
    daemon.stop()
    print(f"slowest reply: before {before.slowest_s:.4f} s, in the outage {during.slowest_s:.4f} s")
    answered = before.answered + during.answered
    assert daemon.stored() == answered
    assert during.slowest_s < 1
    assert min(answered[f"user{i}@example.com"] for i in range(ACCOUNTS)) > QUOTA, "enough was asked to be refused"
    assert (before.replies + during.replies)[b"action=DUNNO"] == QUOTA * ACCOUNTS
    assert _log(folder).count("the store is unavailable") == _log(folder).count("the store is available again") == 1


def _log(folder: Path) -> str:
    return (folder / "log").read_text()


def test_no_reply_waits_for_a_store_that_is_away_and_nothing_is_lost(folder: Path) -> None:
    _outage(folder, 3)


@pytest.mark.long
def test_a_store_that_is_away_for_three_minutes(folder: Path) -> None:
    _outage(folder, 180)


def test_a_store_that_cannot_be_had_at_the_start_is_taken_up_when_it_can(folder: Path) -> None:
    daemon = Daemon(folder, quota=QUOTA)
    daemon.config.write_text(daemon.config.read_text().replace("[store]", f'[store]\npath = "{folder}/db/r.sqlite3"'))
    daemon.start()
    daemon.wait()
    clients = Clients(daemon.socket, CONNECTIONS, ACCOUNTS, False, 3)
    clients.run(0.3, drain=True)
    daemon.kill()
    daemon.start()
    daemon.wait()
    clients.run(0.3, drain=True)
    (folder / "db").mkdir()
    wait_until(lambda: "the store is available again" in _log(folder), "the return is told", 60)
    clients.run(0.3, drain=True)
    daemon.stop()
    (folder / "state" / "ratelimit.sqlite3").symlink_to(folder / "db" / "r.sqlite3")
    assert daemon.stored() == clients.answered
    assert clients.slowest_s < 1


def test_it_listens_soon_after_a_crash_with_many_records(folder: Path) -> None:
    """Its time is printed, not judged; what is replayed is."""
    records, batch = 200_000, 100
    daemon = Daemon(folder)
    journal = folder / "state" / "journal"
    journal.mkdir(parents=True)
    written = Journal(journal, "5e6f", "never")
    written.begin(1)
    meter = Meter(make_limit())
    expiry = meter.limit.period.end(int(time.time()))
    for i in range(0, records, batch):
        keys = [f"user{(i + j) % 5000}@example.com" for j in range(batch)]
        counters = [Counter(meter, key, expiry, 100) for key in keys]
        written.write([Charge(f"i{i}.{counter.key}", "r@x", 1, False, [counter], [1]) for counter in counters])
    written.close()
    began = time.monotonic()
    daemon.start()
    daemon.wait()
    print(f"{records} records: it listens after {time.monotonic() - began:.2f} s")
    daemon.stop()
    assert set(daemon.stored().values()) == {records // 5000}


@pytest.fixture
def disk(folder: Path) -> Iterator[SmallDisk]:
    """A small disk with the state directory on it, journal and database."""
    try:
        with SmallDisk(folder / "state") as made:
            yield made
    except ComponentMissing as error:
        missing(str(error))


def _in_all(daemon: Daemon) -> int:
    return daemon.stored().total() + daemon.stored("domain").total()


def test_a_stop_with_a_full_disk_says_how_many_are_lost_and_ends_with_1(folder: Path, disk: SmallDisk) -> None:
    daemon = Daemon(folder)
    daemon.config.write_text(daemon.config.read_text().replace("[store]", "shutdown_timeout_s = 1\n[store]"))
    daemon.start()
    daemon.wait()
    clients = Clients(daemon.socket, CONNECTIONS, ACCOUNTS, False, 4)
    clients.run(0.3, drain=True)
    while not ("the journal cannot be written" in _log(folder) and "the store is unavailable" in _log(folder)):
        disk.fill()  # again: what is kept for a while makes room
        clients.run(0.1, drain=True)
    disk.fill()
    clients.run(0.3, drain=True)
    status = daemon.terminate(meanwhile=disk.fill)  # what the daemon itself makes room of is taken, too
    lost = re.findall(r"stopping with counts that are lost: .* recipients=(\d+), accounts=(\d+)", _log(folder))
    assert status == len(lost)  # 0: it was there first, and nothing is lost
    for _, accounts in lost:
        assert 0 < int(accounts) <= ACCOUNTS + 1
        assert "in the journal only" not in _log(folder)
    disk.empty()
    daemon.start()
    daemon.wait()
    assert daemon.terminate() == 0
    assert _in_all(daemon) + sum(int(recipients) for recipients, _ in lost) == 2 * clients.answered.total()


def test_a_stop_with_a_full_disk_waits_for_room_as_long_as_it_may(folder: Path, disk: SmallDisk) -> None:
    daemon = Daemon(folder)
    daemon.start()
    daemon.wait()
    clients = Clients(daemon.socket, CONNECTIONS, ACCOUNTS, False, 5)
    while "the store is unavailable" not in _log(folder):
        disk.fill()
        clients.run(0.1, drain=True)
    disk.fill()
    relief = threading.Timer(1, disk.empty)
    relief.start()
    assert daemon.terminate() == 0
    relief.join()
    assert daemon.stored() == clients.answered
    assert "stopping with" not in _log(folder)
