"""Several daemons on one database: nothing is lost, nothing is counted twice, and the quota is one."""

import contextlib
import random
import signal
import socket
import time

import pytest

from ratelimitd.control.commands import Doctor
from ratelimitd.ctl.client import ask as command
from tests.cluster.conftest import MakeNode
from tests.cluster.databases import Shared
from tests.cluster.nodes import Load, Node, ask
from tests.instances.waiting import wait_until

pytestmark = pytest.mark.real
LOGINS = [f"user{n:02}@example.com" for n in range(100)]


def kill_and_start(node: Node) -> None:
    node.kill()
    node.start()


@pytest.mark.parametrize(
    ("nodes", "seconds"),
    [(1, 4), (2, 5), (4, 5), pytest.param(2, 60, marks=pytest.mark.long), pytest.param(4, 60, marks=pytest.mark.long)],
)
def test_random_load_on_shared_accounts_with_daemons_killed_is_stored_exactly(
    shared: Shared, make_node: MakeNode, nodes: int, seconds: int
) -> None:
    made = [
        make_node(shared.settings(flush_interval_s=random.uniform(0.1, 0.7), timeout_s=10, refresh_s=2))
        for _ in range(nodes)
    ]
    for node in made:
        node.start()
    with Load(made, LOGINS, connections=3) as load:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            load.run_for(random.uniform(0.5, 2))
            kill_and_start(random.choice(made))
        load.run_for(0.5)
    for node in random.sample(made, nodes):
        node.stop()
    load.check(shared.stored())
    assert load.answered.total() > 100
    (unfinished,) = shared.sql("SELECT COUNT(*) FROM ratelimit WHERE quota <> 1000000")
    assert unfinished == ("0",)


def test_what_was_answered_is_in_the_database_after_sigterm(shared: Shared, make_node: MakeNode) -> None:
    logins = [f"user{n}@example.com" for n in range(200)]
    node = make_node(shared.settings(timeout_s=10))
    node.start()
    with Load([node], logins, connections=20, pause_s=0) as load:
        wait_until(lambda: load.answered.total() >= 20_000, "20,000 answers", 120)
    node.stop()
    assert shared.stored() == dict(load.answered)
    assert load.lost == 0


def test_nodes_see_each_others_counts_within_a_flush(shared: Shared, make_node: MakeNode) -> None:
    one, two = (make_node(shared.settings(flush_interval_s=0.2, refresh_s=0.3), quota=10) for _ in range(2))
    for node in (one, two):
        node.start()
    with contextlib.ExitStack() as stack:
        links = [stack.enter_context(socket.create_connection(("127.0.0.1", n.port), 30)) for n in (one, two)]
        for link in links:
            assert ask(link, "alice") == "DUNNO"
        for _ in range(9):
            ask(links[0], "alice")
        wait_until(lambda: ask(links[1], "alice").startswith("450"), "a refusal", 30)


@pytest.mark.parametrize("change", ["quota = 5, persist = 1", "quota = 5"])
def test_a_quota_changed_by_hand_is_obeyed_within_refresh_s(shared: Shared, make_node: MakeNode, change: str) -> None:
    node = make_node(shared.settings(flush_interval_s=0.2, refresh_s=0.4), quota=1)
    node.start()
    with socket.create_connection(("127.0.0.1", node.port), 30) as link:
        assert ask(link, "alice") == "DUNNO"
        assert ask(link, "alice").startswith("450")
        wait_until(lambda: shared.stored() == {"alice": 2}, "the count", 30)
        shared.sql(f"UPDATE ratelimit SET {change}")
        wait_until(lambda: node_quota(node) == "5", "the new quota", 30)
        assert [ask(link, "alice")[:5] for _ in range(4)] == ["DUNNO", "DUNNO", "DUNNO", "450 4"]
        shared.sql("DELETE FROM ratelimit")
        ask(link, "alice")
        wait_until(lambda: "alice" in shared.stored(), "the row", 30)


def node_quota(node: Node) -> str:
    """What the cache dump says of the one account."""
    before = node.said("the cache is dumped")
    node.signal(signal.SIGUSR1)
    node.wait_for("the cache is dumped", before + 1)
    dump = (node.folder / "state" / "cache.dump").read_text()
    (line,) = [line for line in dump.splitlines() if line.startswith("alice")]
    return line.split("\t:\t")[2]


@pytest.mark.parametrize(
    ("interval_s", "strict_below", "pause_s", "at_most"),
    [
        # All three send half a quota before any of them is in a hurry: then they know of each other.
        pytest.param(10, 0.5, 0.005, 600, id="much faster than the interval"),
        # What all nodes send in an interval is less than what is left when the hurry begins.
        pytest.param(0.5, 0.2, 0.03, 360, id="slower than the interval"),
    ],
)
def test_little_left_is_synchronised_at_once_so_nodes_overshoot_by_little(
    shared: Shared,
    make_node: MakeNode,
    interval_s: float,
    strict_below: float,
    pause_s: float,
    at_most: int,
) -> None:
    store = shared.settings(flush_interval_s=interval_s, strict_below=strict_below)
    nodes = [make_node(store, quota=300) for _ in range(3)]
    for node in nodes:
        node.start()
    with contextlib.ExitStack() as stack:
        links = [stack.enter_context(socket.create_connection(("127.0.0.1", n.port), 30)) for n in nodes]
        admitted, in_this_round = 0, 1
        while in_this_round:
            in_this_round = sum(ask(link, "alice") == "DUNNO" for link in links)
            admitted += in_this_round
            time.sleep(pause_s)
    print(f"admitted {admitted} of 300")
    assert 300 <= admitted <= at_most


DIFFER = "another node's windows end at another time"


def test_nodes_whose_windows_end_at_different_times_say_so_with_both_zones(shared: Shared, make_node: MakeNode) -> None:
    store = shared.settings(flush_interval_s=0.2, timeout_s=10)
    utc, zurich, again = (make_node(store, more=f'timezone = "{zone}"') for zone in ("UTC", "Europe/Zurich", "UTC"))
    utc.start()
    again.start()
    zurich.start()
    zurich.wait_for(
        f"{DIFFER}; set `timezone` and `week_starts` alike on all: limit=daily, here=Europe/Zurich, there=UTC"
    )
    evidence = command(zurich.folder / "state" / "control.sock", Doctor())
    assert evidence.other_windows == ["daily: Europe/Zurich here, UTC on another node"]
    assert not again.said(DIFFER), "it agrees with the first"
    zurich.stop()
    assert zurich.said(DIFFER) == 1
    again.stop()
    again.start()
    wait_until(lambda: len(windows(shared)) == 1, "it has recorded its own")
    assert not again.said(DIFFER), "the other has ended in order"
    utc.stop()
    again.stop()
    assert windows(shared) == []


def windows(shared: Shared) -> list[tuple[str, ...]]:
    return shared.sql("SELECT limit_name, timezone FROM ratelimit_window")


def test_counts_of_nodes_in_different_zones_add_up(shared: Shared, make_node: MakeNode) -> None:
    store = shared.settings(flush_interval_s=0.3, timeout_s=10, refresh_s=0.5)
    made = [make_node(store, more=f'timezone = "{zone}"') for zone in day_ends_near()]
    for node in made:
        node.start()
    with Load(made, LOGINS, connections=3) as load:
        load.run_for(2)
    for node in made:
        node.stop()
    load.check(shared.stored())


def day_ends_near() -> tuple[str, str]:
    """Two zones whose days end an hour apart, and neither soon."""
    hour = time.gmtime().tm_hour
    return (
        (f"Etc/GMT+{hour - 12}", f"Etc/GMT+{hour - 11}")
        if hour >= 12
        else (f"Etc/GMT-{12 - hour}", f"Etc/GMT-{11 - hour}")
    )
