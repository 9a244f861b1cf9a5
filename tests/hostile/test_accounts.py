"""More logins than accounts fit into memory: memory keeps to its bound, no count is lost, limits hold."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest

from ratelimitd.core.pending import ACCOUNTS
from tests.bench import load
from tests.daemon.client import PolicyClient
from tests.daemon.conftest import Start
from tests.daemon.process import Ratelimitd
from tests.hostile.figures import MIB, peak_rss, rss
from tests.instances.waiting import wait_until

ACCOUNT_BYTES = 500
"""Twice what operations.md says of an account in memory: dictionaries grow by doubling."""
FLUSHED_BYTES = 2048
"""What one that is being stored costs more, and what comes in meanwhile."""
WATCHED = [f"watched{number}@example.com" for number in range(50)]
QUOTA = 5


@contextmanager
def watching(daemon: Ratelimitd) -> Iterator[dict[str, int]]:
    """Ask for a few accounts again and again, each more often than its quota; how often each was admitted."""
    admitted = dict.fromkeys(WATCHED, 0)
    over = Event()

    def watch() -> None:
        rounds = 0
        with PolicyClient(daemon.addresses[0]) as client:
            while rounds <= QUOTA or not over.wait(0.05):
                rounds += 1
                for login in WATCHED:
                    admitted[login] += client.ask(login) == "DUNNO"

    thread = Thread(target=watch)
    thread.start()
    try:
        yield admitted
    finally:
        over.set()
        thread.join()


def flood(start: Start, program: Path, logins: int, cap: int, interval_s: float) -> None:
    daemon = start(
        server={"max_accounts": cap, "max_transactions": 1000},
        store={"flush_interval_s": interval_s},
        limit=[{"quota": QUOTA}],
        log={"level": "critical"},
    )
    before = rss(daemon.process.pid)
    with watching(daemon) as admitted:
        figures = load.run(
            program, f"127.0.0.1:{daemon.port}", "-c", "400", "-k", str(logins), "-n", str(logins), "-S", timeout=3000
        )
    assert figures.answered == logins
    grown, peak = rss(daemon.process.pid) - before, peak_rss(daemon.process.pid) - before
    print(f"{figures.per_second:.0f} logins/s; RSS grew by {grown / MIB:.0f} MiB, by {peak / MIB:.0f} MiB at the most")
    assert daemon.stop() == 0
    with closing(sqlite3.connect(daemon.database)) as connection:
        [(accounts, used)] = connection.execute(
            "SELECT COUNT(*), SUM(used) FROM ratelimit WHERE sender NOT LIKE 'watched%'"
        ).fetchall()
    assert (accounts, used) == (logins, logins)
    assert admitted == dict.fromkeys(WATCHED, QUOTA)
    assert peak < 20 * MIB + cap * ACCOUNT_BYTES + figures.per_second * max(1.0, interval_s) * 4 * FLUSHED_BYTES


def test_60000_logins_against_a_cap_of_10000_accounts(start: Start, load_program: Path) -> None:
    flood(start, load_program, 60_000, 10_000, 0.2)


def test_where_many_accounts_wait_to_be_stored_the_flush_does_not_wait_for_its_interval(
    start: Start, load_program: Path
) -> None:
    daemon = start(store={"flush_interval_s": 3600}, limit=[{"quota": QUOTA}], log={"level": "critical"})
    logins = str(ACCOUNTS + 1000)
    load.run(load_program, f"127.0.0.1:{daemon.port}", "-c", "400", "-k", logins, "-n", logins, "-S")
    with closing(sqlite3.connect(daemon.database)) as connection:
        count = connection.execute
        wait_until(lambda: count("SELECT COUNT(*) FROM ratelimit").fetchone()[0] >= ACCOUNTS, "the flush")
    assert daemon.stop() == 0


@pytest.mark.long
def test_5000000_logins_against_a_cap_of_1000000_accounts(start: Start, load_program: Path) -> None:
    flood(start, load_program, 5_000_000, 1_000_000, 5)
