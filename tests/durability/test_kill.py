"""The fault harness: a daemon under load, killed with SIGKILL at random moments and started again, many times."""

import random
import threading
import time
from pathlib import Path

import pytest

from tests.durability.daemon import Clients, Daemon

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
            time.sleep(chance.uniform(0.1, 0.5))  # while it starts
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
