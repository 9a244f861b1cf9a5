"""What an account of a MySQL or MariaDB database must be allowed: what sql/README.md says, and no more."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ratelimitd.stores.mysql.access import Access
from ratelimitd.stores.mysql.store import MySQLStore
from tests.stores.backends import delta, flush, row
from tests.stores.perl_table import SEED, Perl

pytestmark = pytest.mark.real
ROOT = Path(__file__).parents[2]
PATIENT_S = 20.0
ALL = ["ratelimit", "ratelimit_history", "ratelimit_node", "ratelimit_window", "view_ratelimit"]
_numbers = itertools.count(1)


class Small:
    """A database, and an account with few rights on it."""

    def __init__(self, server: Any) -> None:
        self.server, self.name = server, f"rights{next(_numbers)}"
        server.sql(f"CREATE DATABASE {self.name}")

    def account(self, rights: str, where: str = "*") -> Access:
        self.server.add_user(self.name, "x", grant=f"{rights} ON {self.name}.{where}")
        return Access(((str(self.server.socket), 0),), self.name, b"x", self.name)

    def tables(self) -> list[str]:
        return sorted(row[0] for row in self.server.sql("SHOW TABLES", self.name))


@pytest.fixture(params=["mariadb", "mysql9"])
def small(request: pytest.FixtureRequest) -> Iterator[Small]:
    made = Small(request.getfixturevalue(request.param))
    yield made
    made.server.sql(f"DROP DATABASE {made.name}")


def documented() -> list[str]:
    """To count; to create; to complete: the rights in this order."""
    text = " ".join((ROOT / "sql/README.md").read_text(encoding="utf-8").split())
    sentence = re.search(r"the daemon's account needs (`.*?`) on .* also (`.*?`), and .* upgrade (`.*?`)\.", text)
    assert sentence is not None
    return [", ".join(re.findall(r"`([A-Z, ]+)`", rights)) for rights in sentence.groups()]


async def opened(known: Access) -> MySQLStore:
    store = MySQLStore(known, timeout_s=PATIENT_S)
    try:
        await store.open()
        await flush(store, [delta("alice")])
        assert (await row(store, "alice")).used == 1
    finally:
        await store.close()
    return store


async def test_with_the_documented_rights_the_daemon_creates_all_tables_and_the_view(small: Small) -> None:
    count, create, complete = documented()
    store = await opened(small.account(f"{count}, {create}, {complete}"))
    assert small.tables() == ALL
    assert store.remarks.take() == []


async def test_with_the_documented_rights_it_counts_in_tables_that_are_there_and_has_nothing_to_say(
    small: Small,
) -> None:
    root = Access(((str(small.server.socket), 0),), "root", b"", small.name)
    await opened(root)
    small.server.sql("DELETE FROM ratelimit", small.name)
    store = await opened(small.account(documented()[0]))
    assert store.remarks.take() == []


@pytest.mark.parametrize("lost", ["view_ratelimit", "ratelimit_window"])
async def test_what_is_missing_and_may_not_be_created_is_said_with_the_statement(small: Small, lost: str) -> None:
    await opened(Access(((str(small.server.socket), 0),), "root", b"", small.name))
    small.server.sql(f"DROP {'VIEW' if lost.startswith('view') else 'TABLE'} {lost}; DELETE FROM ratelimit", small.name)
    store = await opened(small.account(documented()[0]))
    (remark,) = store.remarks.take()
    assert remark.event.startswith(f"{lost} is missing, or not shown to the daemon's account")
    small.server.sql(str(dict(remark.fields)["statement"]), small.name)
    assert small.tables() == ALL


@pytest.fixture
def perl(small: Small, tmp_path: Path) -> Perl:
    """The Perl daemon's table, and an account that may alter and create, but not drop."""
    made = Perl(small.server, small.name, tmp_path)
    small.server.sql(SEED, small.name)
    small.account(", ".join(documented()))
    text = made.file.read_text(encoding="utf-8")
    made.file.write_text(text.replace('user = "root"', f'user = "{small.name}"\npassword = "x"'), encoding="utf-8")
    return made


def test_migrate_says_where_it_may_not_renew_the_view(perl: Perl) -> None:
    left = "view_ratelimit is left as it is, without columns that are new: DROP command denied"
    assert any(line.startswith(left) for line in perl.migrate())


def test_migrate_creates_a_view_that_is_missing_without_the_right_to_drop(perl: Perl) -> None:
    perl.sql("DROP VIEW view_ratelimit")
    assert "created: view_ratelimit" in perl.migrate()
    assert perl.sql("SELECT limit_name, expirytime FROM view_ratelimit") == []
