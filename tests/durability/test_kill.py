"""The fault harness: a daemon under load, killed with SIGKILL at random moments and started again, many times."""

import random
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.durability.daemon import Clients, Daemon
from tests.instances.components import ComponentMissing
from tests.instances.smalldisk import SmallDisk

CONNECTIONS = 30
ACCOUNTS = 40


def _killed_again_and_again(folder: Path, rounds: int, seed: int, resend: bool) -> tuple[Daemon, Clients]:
    """A daemon that was killed in so many rounds, also while it recovers, and then stopped; and what it was asked."""
    chance = random.Random(seed)
    daemon = Daemon(folder)
    clients = Clients(daemon.socket, CONNECTIONS, ACCOUNTS, resend, seed)
    for _ in range(rounds):
        daemon.start()
        if chance.random() < 0.1:
            time.sleep(chance.uniform(0, 0.1))  # while it starts
            daemon.kill()
            continue
        daemon.wait()
        killer = threading.Timer(chance.uniform(0.02, 0.4), daemon.kill)
        killer.start()
        clients.run(60)  # it ends with the daemon
        killer.join()
    daemon.start()
    daemon.wait()
    clients.run(0.1, drain=True)
    daemon.stop()
    return daemon, clients


def _killed_without_resending(folder: Path, rounds: int, seed: int) -> None:
    daemon, clients = _killed_again_and_again(folder, rounds, seed, resend=False)
    stored = daemon.stored()
    for account in clients.sent:
        assert clients.answered[account] <= stored[account] <= clients.sent[account], account
    assert stored.total() - clients.answered.total() <= CONNECTIONS * rounds
    assert daemon.stored("domain")["example.com"] == stored.total()
    assert clients.answered.total() > 20 * rounds, "it was under load"


def test_kill_9_loses_no_answered_count_and_doubles_none(folder: Path) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    _killed_without_resending(folder, 25, seed)


def test_a_request_asked_again_after_kill_9_is_charged_once(folder: Path) -> None:
    """Postfix resends what was not answered: its charge is in the journal, and then in the memo; or it never was."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    daemon, clients = _killed_again_and_again(folder, 25, seed, resend=True)
    assert clients.answered == clients.sent
    assert daemon.stored() == clients.answered


@pytest.mark.long
def test_kill_9_loses_no_answered_count_and_doubles_none_in_500_rounds(folder: Path) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    _killed_without_resending(folder, 500, seed)


# -- on a disk that fills and empties ----------------------------------------------------------------------------------

PHASES = ("empty", "full", "full, then emptied", "full, then emptied, then stopped")


def _killed_on_a_disk_that_fills(folder: Path, rounds: int, seed: int) -> None:
    """Only what was answered while the disk was full, or just after, may be lost by a kill: database and journal are
    on it. By a stop after it was emptied nothing is."""
    chance = random.Random(seed)
    daemon = Daemon(folder)
    clients = Clients(daemon.socket, CONNECTIONS, ACCOUNTS, False, seed)
    at_risk: Counter[str] = Counter()
    try:
        with SmallDisk(folder / "state") as disk:
            for _ in range(rounds):
                phase = chance.choice(PHASES)
                daemon.start()
                daemon.wait()
                clients.run(chance.uniform(0.02, 0.2), drain=True)
                before = clients.answered.copy()
                if phase != "empty":
                    disk.fill()
                    clients.run(chance.uniform(0.02, 0.2), drain=True)
                if "emptied" in phase:
                    disk.empty()
                if "stopped" in phase:
                    assert daemon.terminate() == 0, (folder / "log").read_text()[-3000:]
                    continue
                killer = threading.Timer(chance.uniform(0.02, 0.3), daemon.kill)
                killer.start()
                clients.run(60)
                killer.join()
                disk.empty()
                if phase != "empty":
                    at_risk += clients.answered - before
            daemon.start()
            daemon.wait()
            clients.run(0.1, drain=True)
            assert daemon.terminate() == 0
            stored = daemon.stored()
            assert daemon.stored("domain")["example.com"] <= clients.sent.total()
    except ComponentMissing as error:
        missing(str(error))
    for account in clients.sent:
        least = clients.answered[account] - at_risk[account]
        assert least <= stored[account] <= clients.sent[account], account
    assert clients.answered.total() > 20 * rounds, "it was under load"


def test_kill_9_on_a_disk_that_fills_and_empties_costs_no_more_than_what_is_documented(folder: Path) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    _killed_on_a_disk_that_fills(folder, 12, seed)


@pytest.mark.long
def test_kill_9_on_a_disk_that_fills_and_empties_in_500_rounds(folder: Path) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    _killed_on_a_disk_that_fills(folder, 500, seed)
