"""A Galera cluster with a daemon on each node."""

import pytest

from tests.cluster.conftest import MakeNode
from tests.cluster.nodes import Load
from tests.instances.galera import Galera

pytestmark = pytest.mark.real
LOGINS = [f"user{n:02}@example.com" for n in range(30)]


@pytest.mark.parametrize("seconds", [2, pytest.param(20, marks=pytest.mark.long)])
def test_a_node_is_killed_and_comes_back_and_the_sum_is_exact(
    galera: Galera, make_node: MakeNode, seconds: float
) -> None:
    first = galera.nodes[0]
    first.sql("CREATE DATABASE policyd")
    first.add_user("policyd", "secret", grant="ALL PRIVILEGES ON policyd.*")
    galera.wait_synced()
    nodes = []
    for index in range(3):
        hosts = [f"127.0.0.1:{galera.nodes[(index + n) % 3].port}" for n in range(3)]  # its own one first
        store = f'host = {hosts}\nuser = "policyd"\npassword = "secret"\nflush_interval_s = 0.3\ntimeout_s = 3\n'
        nodes.append(make_node(store))
        nodes[-1].start()
    with Load(nodes, LOGINS, connections=2, pause_s=0.02) as load:
        load.run_for(seconds)
        galera.kill(0)  # the one that has begun the cluster
        galera.wait_synced()  # the others have noticed: until then, they would not take it back either
        load.run_for(seconds)
        galera.rejoin(0)
        load.run_for(seconds)
    for node in nodes:
        node.stop()
    galera.wait_synced()
    assert load.lost == 0
    for server in galera.nodes:
        rows = server.sql("SET SESSION wsrep_sync_wait = 1; SELECT sender, used FROM ratelimit", "policyd")
        assert {sender: int(used) for sender, used in rows} == dict(load.answered)
