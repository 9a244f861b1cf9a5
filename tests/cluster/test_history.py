"""The history of a shared database is what all nodes were asked: over kill -9, lost COMMITs and clocks that differ."""

import json
import random
import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import pytest

from ratelimitd.core.rows import Delta
from ratelimitd.ctl import main as ctl_main
from ratelimitd.errors import StoreError
from ratelimitd.stores import Flushed
from ratelimitd.stores.mysql.access import Access
from ratelimitd.stores.mysql.store import MySQLStore
from ratelimitd.stores.postgresql.store import PostgreSQLStore
from tests.cluster.conftest import MakeNode
from tests.cluster.databases import Shared
from tests.cluster.nodes import Load, Node, ask
from tests.cluster.test_nodes import LOGINS, kill_and_start
from tests.durability.history import Pair, history_of
from tests.durability.node import FaultyStore
from tests.instances.postgresql import PostgreSQL
from tests.stores.backends import postgresql_access

pytestmark = pytest.mark.real
LOGIN = "alice@example.com"
SLIDING = '[[limit]]\nname = "sliding"\nperiod = "60s"\nwindow = "sliding"\nquota = 0\n'


class Faulty:
    """A database that fails at a flush: "away" and "before" it, or "after" COMMIT, whose acknowledgement is lost."""

    fault = ""

    async def flush(self, node: str, segment: int, merge: Callable[[int], Iterable[Delta]]) -> Flushed:
        if self.fault in ("away", "before"):
            raise StoreError(f"made to fail: {self.fault}")
        flushed: Flushed = await super().flush(node, segment, merge)  # type: ignore[misc]
        if self.fault == "after":
            raise StoreError("made to fail: after")
        return flushed


class FaultyMySQL(Faulty, MySQLStore):
    """MySQL's."""


class FaultyPostgreSQL(Faulty, PostgreSQLStore):
    """PostgreSQL's."""


def faulty(shared: Shared) -> FaultyStore:
    """A store of a shared database that can be told to fail."""
    if isinstance(shared.server, PostgreSQL):
        return cast(FaultyStore, FaultyPostgreSQL(postgresql_access(shared.server, shared.name), timeout_s=10))
    access = Access(((str(shared.server.socket), 0),), "root", b"", shared.name)
    return cast(FaultyStore, FaultyMySQL(access, timeout_s=10))


@pytest.mark.parametrize("seed", [1, 2])
async def test_nodes_whose_clocks_are_30_s_apart_add_up_by_window(shared: Shared, tmp_path: Path, seed: int) -> None:
    pair = Pair(tmp_path, lambda: faulty(shared), random.Random(seed))
    await pair.start()
    for _ in range(150):
        await pair.step()
    await pair.stop()
    select = "SELECT limit_name, sender, expiry, used FROM ratelimit_history"
    assert history_of(shared.sql(select)) == pair.charged


def test_daemons_that_are_killed_under_load_leave_a_history_that_is_what_they_answered(
    shared: Shared, make_node: MakeNode
) -> None:
    store = shared.settings(flush_interval_s=0.3, timeout_s=10, refresh_s=2, history_days=30)
    made = [make_node(f"{store}{SLIDING}[[limit]]\nname = 'hourly'\nperiod = 'hourly'\nquota = 0\n") for _ in range(2)]
    for node in made:
        node.start()
    with Load(made, LOGINS, connections=3) as load:
        end = time.monotonic() + 5
        while time.monotonic() < end:
            load.run_for(random.uniform(0.5, 1.5))
            kill_and_start(random.choice(made))
        load.run_for(0.5)
    for node in made:
        node.stop()
    for name in ("daily", "sliding", "hourly"):
        select = f"SELECT sender, SUM(used) FROM ratelimit_history WHERE limit_name = '{name}' GROUP BY sender"
        load.check({sender: int(used) for sender, used in shared.sql(select)})
    assert load.answered.total() > 100


def test_history_and_report_are_of_all_nodes(
    shared: Shared, make_node: MakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    """With daemons: what others have stored and what the one that is asked has not; without: what one that was killed
    left in its journal."""
    store = shared.settings(flush_interval_s=3600, timeout_s=10, history_days=30)
    made = [make_node(store + SLIDING) for _ in range(2)]

    def ctl(node: Node, *arguments: str) -> Any:
        capsys.readouterr()
        assert ctl_main.main(["-c", str(node.file), "--json", *arguments]) == 0
        return json.loads(capsys.readouterr().out)

    def sent(node: Node) -> list[int]:
        return [limit["used"] for limit in ctl(node, "history", LOGIN)["limits"]]

    def send(node: Node, times: int) -> None:
        with socket.create_connection(("127.0.0.1", node.port)) as link:
            for _ in range(times):
                ask(link, LOGIN)

    for node in made:
        node.start()
        send(node, 3)
    assert [sent(node) for node in made] == [[3, 3], [3, 3]]
    made[0].stop()
    assert sent(made[1]) == [6, 6]
    made[1].kill()
    assert sent(made[1]) == [6, 6]
    assert sent(made[0]) == [3, 3]
    report = ctl(made[0], "report")
    assert [limit["recipients"] for limit in report["limits"]] == [3, 3]
    made[1].start()
    send(made[1], 1)
    made[1].stop()
    assert [limit["recipients"] for limit in ctl(made[0], "report")["limits"]] == [7, 7]
    assert [(one["key"], one["recipients"]) for one in ctl(made[1], "report")["most"]] == [(LOGIN, 7)]
