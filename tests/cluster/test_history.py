"""The history of a shared database is what all nodes were asked: over kill -9, lost COMMITs and clocks that differ."""

import random
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import cast

import pytest

from ratelimitd.core.rows import Delta
from ratelimitd.errors import StoreError
from ratelimitd.stores import Flushed
from ratelimitd.stores.mysql.access import Access
from ratelimitd.stores.mysql.store import MySQLStore
from tests.cluster.conftest import MakeNode
from tests.cluster.nodes import Load
from tests.cluster.test_nodes import LOGINS, kill_and_start, settings
from tests.durability.history import Pair, history_of
from tests.durability.node import FaultyStore
from tests.instances.mariadb import MariaDB

pytestmark = pytest.mark.real
SLIDING = '[[limit]]\nname = "sliding"\nperiod = "60s"\nwindow = "sliding"\nquota = 0\n'


class FaultyMySQL(MySQLStore):
    """A database that fails at a flush: "away" and "before" it, or "after" COMMIT, whose acknowledgement is lost."""

    fault = ""

    async def flush(self, node: str, segment: int, merge: Callable[[int], Iterable[Delta]]) -> Flushed:
        if self.fault in ("away", "before"):
            raise StoreError(f"made to fail: {self.fault}")
        flushed = await super().flush(node, segment, merge)
        if self.fault == "after":
            raise StoreError("made to fail: after")
        return flushed


@pytest.mark.parametrize("seed", [1, 2])
async def test_nodes_whose_clocks_are_30_s_apart_add_up_by_window(
    mariadb: MariaDB, database: str, tmp_path: Path, seed: int
) -> None:
    access = Access(((str(mariadb.socket), 0),), "root", b"", database)
    pair = Pair(tmp_path, lambda: cast(FaultyStore, FaultyMySQL(access, timeout_s=10)), random.Random(seed))
    await pair.start()
    for _ in range(150):
        await pair.step()
    await pair.stop()
    select = "SELECT limit_name, sender, expiry, used FROM ratelimit_history"
    assert history_of(mariadb.sql(select, database)) == pair.charged


def test_daemons_that_are_killed_under_load_leave_a_history_that_is_what_they_answered(
    mariadb: MariaDB, database: str, make_node: MakeNode
) -> None:
    store = settings(mariadb, database, flush_interval_s=0.3, timeout_s=10, refresh_s=2, history_days=30)
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
        load.check({sender: int(used) for sender, used in mariadb.sql(select, database)})
    assert load.answered.total() > 100
