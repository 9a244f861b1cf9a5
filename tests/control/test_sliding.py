"""`ratelimitctl` on a sliding limit of a running daemon, and of one that has ended."""

import re

from tests.control.conftest import Ctl
from tests.daemon.client import DUNNO
from tests.daemon.conftest import Start
from tests.instances.waiting import wait_until

ALICE = "alice@example.com"
BURST = {"name": "burst", "period": "6h", "window": "sliding", "quota": 2}


def test_a_sliding_limit_is_shown_set_and_reset_with_and_without_a_daemon(start: Start, ctl_of: Ctl) -> None:
    daemon = start(limit=[BURST], timezone="UTC")
    with daemon.client() as client:
        replies = [client.ask(ALICE, instance=f"{i}.a") for i in range(3)]
    assert replies[:2] == [DUNNO, DUNNO]
    assert re.search(r"sliding 6-hour message quota exceeded, 3/2, resets at \d{4}-", replies[2])
    (shown,) = ctl_of(daemon, "show", ALICE, "--json").json["limits"]
    assert (shown["period"], shown["used"], shown["left"]) == ("sliding 6-hour", 3, 0)
    (given,) = [ctl_of(daemon, "set", ALICE, "--quota", "9", "--json").json]
    assert re.match(r"database, until 20.*, then 2 \(limit burst\)", given["source"])
    assert (given["reset"], given["reset_at"]) == (0, "room now")
    assert daemon.stop() == 0
    (stopped,) = ctl_of(daemon, "show", ALICE, "--json").json["limits"]
    assert (stopped["used"], stopped["quota"], stopped["reset_at"]) == (3, 9, "room now")
    ctl_of(daemon, "reset", ALICE)
    (reset,) = ctl_of(daemon, "show", ALICE, "--json").json["limits"]
    assert reset["used"] == 0


def test_counts_of_a_sliding_limit_outlive_kill_9(start: Start, ctl_of: Ctl) -> None:
    daemon = start(limit=[BURST])
    with daemon.client() as client:
        client.ask(ALICE, instance="1.a")
    daemon.kill()
    daemon.start()
    with daemon.client() as client:
        replies = [client.ask(ALICE, instance=f"{i}.b") for i in range(2)]
    assert replies[0] == DUNNO
    assert replies[1] != DUNNO


def test_what_was_sent_leaves_after_the_period(start: Start) -> None:
    daemon = start(limit=[{**BURST, "period": "2s", "count_rejected": False}])
    with daemon.client() as client:
        assert [client.ask(ALICE, instance=f"{i}.a") == DUNNO for i in range(3)] == [True, True, False]
        tries = iter(range(1000))
        wait_until(lambda: client.ask(ALICE, instance=f"{next(tries)}.b") == DUNNO, "room")
