"""ratelimitctl before the first start, when there is no state_dir yet."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import missing
from tests.control.conftest import Ctl, Ran
from tests.daemon.conftest import Start
from tests.daemon.forked import PROGRAM
from tests.daemon.process import Ratelimitd
from tests.instances.mariadb import MariaDB

ALICE = "alice@example.com"
Table = dict[str, Any]


@pytest.fixture
def store(mariadb: MariaDB, database: str) -> Table:
    """`[store]` of a database that has no table yet; `password` is the only way in."""
    mariadb.add_user(database, "right", grant=f"ALL ON {database}.*")
    access = {"unix_socket": str(mariadb.socket), "user": database, "database": database}
    return {"backend": "mysql", "password": "right", **access}


def run_as_root(daemon: Ratelimitd, verb: str) -> Ran:
    """In a process of its own, for it becomes the daemon's user for good."""
    command: list[str | Path] = [PROGRAM.with_name("ratelimitctl"), "-c", daemon.file, verb]
    ran = subprocess.run(command, capture_output=True, text=True)
    return Ran(ran.returncode, ran.stdout, ran.stderr)


@pytest.mark.real
def test_check_tries_the_database_and_creates_its_tables(
    make: Start, ctl_of: Ctl, store: Table, mariadb: MariaDB
) -> None:
    refused = ctl_of(make(store=store | {"password": "wrong"}), "check")
    assert (refused.status, "Access denied for user" in refused.out) == (2, True)
    daemon = make(store=store)
    ran = ctl_of(daemon, "check")
    assert (ran.status, f"{store['database']}: available\n" in ran.out) == (0, True)
    assert ("ratelimit",) in mariadb.sql("SHOW TABLES", store["database"])
    assert not daemon.state.exists()


@pytest.mark.real
def test_status_and_show_look_at_a_database_that_other_nodes_use(
    make: Start, ctl_of: Ctl, store: Table, mariadb: MariaDB
) -> None:
    daemon = make(store=store)
    ctl_of(daemon, "check")
    mariadb.sql(f"INSERT INTO ratelimit (sender, quota, persist) VALUES ('{ALICE}', 77, 1)", store["database"])
    status = ctl_of(daemon, "status")
    assert (status.status, ", up\n" in status.out) == (3, True)
    assert ctl_of(daemon, "show", ALICE, "--json").json["limits"][0]["quota"] == 77
    assert not daemon.state.exists()


@pytest.mark.real
def test_as_root_it_asks_the_database_as_the_user_that_a_start_becomes(make: Start, store: Table) -> None:
    if os.geteuid() != 0:
        missing("only root can become somebody else")
    daemon = make(user="daemon", store=store | {"unix_socket": "hidden/socket"})
    (daemon.folder / "hidden").mkdir(mode=0o700)
    ran = run_as_root(daemon, "check")
    assert (ran.status, "hidden/socket: Permission denied" in ran.out) == (1, True)


def test_of_a_sqlite_file_check_says_that_a_start_creates_it(make: Start, ctl_of: Ctl) -> None:
    daemon = make()
    ran = ctl_of(daemon, "check")
    assert ran.status == 0
    assert f"sqlite:{daemon.database}: not there yet\n" in ran.out
    assert f"state_dir: {daemon.state} does not exist: a start creates it, and the database in it\n" in ran.out
    assert not daemon.state.exists()


def test_nothing_can_be_changed_yet(make: Start, ctl_of: Ctl) -> None:
    daemon = make()
    ran = ctl_of(daemon, "set", ALICE, "--quota", "1")
    assert (ran.status, "none has ever run" in ran.err) == (3, True)
