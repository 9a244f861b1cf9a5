"""A right that the daemon's account lacks is named at a start and by a check, before the first flush needs it."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from ratelimitd.ctl.main import main as ratelimitctl
from ratelimitd.errors import StoreUnsuitable
from ratelimitd.stores import Store
from ratelimitd.stores.history import Kept
from ratelimitd.stores.mysql.access import Access
from ratelimitd.stores.mysql.store import MySQLStore
from ratelimitd.stores.postgresql.access import Access as PostgreSQLAccess
from ratelimitd.stores.postgresql.store import PostgreSQLStore
from tests.daemon.process import Ratelimitd, config
from tests.instances.postgresql import ADMINISTRATOR
from tests.stores.backends import delta, flush, row

pytestmark = pytest.mark.real
ALL = "SELECT, INSERT, UPDATE, DELETE"
TABLES = ("ratelimit", "ratelimit_node", "ratelimit_window", "ratelimit_history")
PATIENT_S = 20.0
_numbers = itertools.count(1)


class Guest:
    """A database that an administrator has made the tables in, and an account that may do what the administrator says.

    `settings` are its `[store]`.
    """

    def __init__(self, kind: str, server: Any) -> None:
        self.server, self.is_mysql = server, kind != "postgresql"
        self.name = f"guest{next(_numbers)}"
        self.at = str(server.socket)
        self.settings = {"backend": "mysql" if self.is_mysql else kind, "unix_socket": self.at, "timeout_s": PATIENT_S}
        self.settings |= {"user": self.name, "password": "x", "database": self.name}
        self.account = f"'{self.name}'@'%'" if self.is_mysql else self.name
        server.sql(f"CREATE DATABASE {self.name}")
        if self.is_mysql:
            server.sql(f"CREATE USER {self.account} IDENTIFIED BY 'x'")
            return
        self.settings["port"] = server.port
        self.at = f"{server.socket}/.s.PGSQL.{server.port}"
        server.sql(f"CREATE ROLE {self.name} LOGIN PASSWORD 'x'")

    def run(self, text: str) -> None:
        """As the administrator."""
        self.server.sql(text, self.name)

    def table(self, name: str) -> str:
        return f"`{self.name}`.`{name}`" if self.is_mysql else f"public.{name}"

    def grant(self, table: str, rights: str = ALL) -> str:
        return f"GRANT {rights} ON {self.table(table)} TO {self.account}"

    def store(self, user: str = "", password: str = "") -> Store:
        if self.is_mysql:
            mysql = Access(((self.at, 0),), user or self.name, password.encode(), self.name)
            return MySQLStore(mysql, timeout_s=PATIENT_S)
        postgresql = PostgreSQLAccess(((self.at, 0),), user or self.name, password, self.name)
        return PostgreSQLStore(postgresql, timeout_s=PATIENT_S)

    async def make_tables(self) -> None:
        made = self.store("root" if self.is_mysql else ADMINISTRATOR)
        await made.open()
        await made.close()


@pytest.fixture(params=["mariadb", "mysql9", "postgresql"])
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    made = Guest(request.param, request.getfixturevalue(request.param))
    yield made
    made.server.sql(f"DROP DATABASE {made.name}")


async def said(store: Store) -> list[str]:
    """The statements that must be run, as a start says them."""
    await store.open()
    await store.close()
    return [str(dict(remark.fields)["statement"]) for remark in store.remarks.take() if remark.must]


@pytest.mark.parametrize("lost", ALL.split(", "))
async def test_what_is_lacking_is_named_with_the_statements_that_give_it(guest: Guest, lost: str) -> None:
    await guest.make_tables()
    for name in TABLES:
        guest.run(guest.grant(name))
    assert await said(guest.store(password="x")) == []
    for some in (TABLES[:1], TABLES[1:]):
        for name in some:
            guest.run(f"REVOKE {lost} ON {guest.table(name)} FROM {guest.account}")
        (statements,) = await said(guest.store(password="x"))
        assert statements == "; ".join(guest.grant(name, lost) for name in some)
        guest.run(statements)
    store = guest.store(password="x")
    assert await said(store) == []
    await store.open()
    await flush(store, [delta("alice")])
    assert (await row(store, "alice")).used == 1
    await store.close()


async def test_a_right_on_each_column_is_one_on_the_table(guest: Guest) -> None:
    await guest.make_tables()
    columns = "node, segment, updated"
    for name in TABLES:
        guest.run(guest.grant(name))
    guest.run(f"REVOKE UPDATE ON {guest.table('ratelimit_node')} FROM {guest.account}")
    guest.run(f"GRANT UPDATE ({columns}) ON {guest.table('ratelimit_node')} TO {guest.account}")
    assert await said(guest.store(password="x")) == []


async def test_a_right_of_a_group_is_one_of_its_members(guest: Guest) -> None:
    await guest.make_tables()
    role = f"role_{guest.name}"
    guest.run(f"CREATE ROLE {role}")
    for name in TABLES:
        guest.run(guest.grant(name).rpartition(" TO ")[0] + f" TO {role}")
    guest.run(f"GRANT {role} TO {guest.account}")
    if guest.is_mysql:
        of = f"{role} FOR {guest.account}" if type(guest.server).__name__ == "MariaDB" else f"{role} TO {guest.account}"
        guest.run(f"SET DEFAULT ROLE {of}")
    assert await said(guest.store(password="x")) == []


async def test_of_an_account_without_any_right_the_statement_gives_all(guest: Guest) -> None:
    await guest.make_tables()
    if guest.is_mysql:  # it is not shown what is there
        guest.run(f"GRANT SELECT ON {guest.table('ratelimit')} TO {guest.account}")
        with pytest.raises(StoreUnsuitable) as caught:
            await guest.store(password="x").open()
        assert str(caught.value).startswith("ratelimit_node cannot be created: CREATE command denied")
        guest.run(str(caught.value).rpartition("and: ")[2])
    else:
        (statement,) = await said(guest.store(password="x"))
        assert statement == "; ".join(map(guest.grant, TABLES))
        guest.run(statement)
    assert await said(guest.store(password="x")) == []


async def test_a_table_that_is_seen_and_not_read_is_said_to_be_so(guest: Guest) -> None:
    await guest.make_tables()
    guest.run(guest.grant("ratelimit", "DELETE"))
    if not guest.is_mysql:
        return
    with pytest.raises(StoreUnsuitable, match="the table ratelimit cannot be read: an admin") as caught:
        await guest.store(password="x").open()
    assert guest.grant("ratelimit", "SELECT, INSERT, UPDATE") in str(caught.value)


async def test_a_history_that_is_needed_and_not_writable_refuses_the_start_with_the_statement(guest: Guest) -> None:
    await guest.make_tables()
    for name in TABLES[:3]:
        guest.run(guest.grant(name))
    guest.run(guest.grant("ratelimit_history", "SELECT"))
    store = guest.store(password="x")
    store.configure(PATIENT_S, Kept(7))
    with pytest.raises(StoreUnsuitable, match=r"ratelimit_history cannot be used: .*: an adm") as caught:
        await store.open()
    assert str(caught.value).endswith(guest.grant("ratelimit_history", "INSERT, UPDATE, DELETE"))


@pytest.mark.parametrize("limit", ["default", "daily"], ids="first limit {}".format)
@pytest.mark.parametrize("lost", ["SELECT", "UPDATE"])
def test_check_fails_and_a_start_goes_on_and_says_it(
    guest: Guest, folder: Path, capsys: pytest.CaptureFixture[str], lost: str, limit: str
) -> None:
    trio.run(guest.make_tables)
    for name in TABLES:
        guest.run(guest.grant(name))
    guest.run(f"REVOKE {lost} ON {guest.table('ratelimit')} FROM {guest.account}")
    store = {**guest.settings, "flush_interval_s": 0.1}
    daemon = Ratelimitd(folder, config(store=store, limit=[{"name": limit, "quota": 10}]))
    try:
        assert ratelimitctl(["-c", str(daemon.file), "check"]) == 1
        printed = capsys.readouterr().out
        assert "available" not in printed
        assert guest.grant("ratelimit", lost) in printed
        daemon.start()
        daemon.wait_for_log("is ready")
        (line,) = [line for line in daemon.log() if "lacks rights" in line]
        assert guest.grant("ratelimit", lost) in line
        with daemon.client() as client:
            assert client.ask("alice@example.com") == "DUNNO"
        daemon.wait_for_log("until somebody has changed what is wrong: reason=")
    finally:
        daemon.kill()


async def test_who_may_not_create_the_tables_is_given_the_statement_that_lets_it(guest: Guest) -> None:
    store = guest.store(password="x")
    if guest.is_mysql:
        guest.run(f"GRANT SELECT ON {guest.name}.* TO {guest.account}")  # or it could not use the database
    with pytest.raises(StoreUnsuitable, match=r"ratelimit.* cannot be created: .*; an administrator must") as caught:
        await store.open()
    _, _, statement = str(caught.value).partition("must run: ")
    if not guest.is_mysql:
        guest.run(statement.partition("; ")[0])
        assert await said(guest.store(password="x")) == []
