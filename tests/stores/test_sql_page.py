"""The statements on sql/README.md that differ between databases, and those that make one: they do what pages say."""

import itertools
import re
from pathlib import Path

import pytest

from ratelimitd.config import read as config
from ratelimitd.errors import StoreError
from ratelimitd.stores import Store
from ratelimitd.stores.history import Kept
from ratelimitd.stores.mysql.access import Access
from ratelimitd.stores.mysql.store import MySQLStore
from ratelimitd.stores.postgresql.access import Access as PostgreSQLAccess
from ratelimitd.stores.postgresql.store import PostgreSQLStore
from tests.instances.mariadb import MariaDB
from tests.instances.postgresql import PostgreSQL
from tests.stores.backends import Backend, delta, flush, row
from tests.stores.perl_table import LATER, Perl

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "sql" / "README.md").read_text(encoding="utf-8")


def statement(backend: Backend) -> str:
    """The INSERT for this database that works where the row is there."""
    name = "SQLite, PostgreSQL" if backend.name in ("sqlite", "postgresql") else "MySQL, MariaDB"
    found = re.search(rf"^```sql\n-- {name}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


async def test_a_quota_is_given_whether_or_not_the_row_is_there(backend: Backend, store: Store) -> None:
    given = [("@example.org", "200", "1")]
    for before in ("SELECT 1", "UPDATE ratelimit SET quota = 7, persist = 0", "SELECT 1"):
        backend.sql(before)
        backend.sql(statement(backend))
        assert backend.sql("SELECT sender, quota, persist FROM ratelimit") == given


async def test_a_quota_is_given_until_a_time(backend: Backend, store: Store) -> None:
    mysql, postgresql, sqlite = re.findall(r"until = ((?:UNIX|EXTRACT|strftime)[^`]*?'\))", PAGE)
    until = {"sqlite": sqlite, "postgresql": postgresql}.get(backend.name, mysql)
    backend.sql("INSERT INTO ratelimit (sender, quota) VALUES ('alice@example.com', 9)")
    backend.sql(f"UPDATE ratelimit SET quota = 5000, until = {until}")
    ((stored,),) = backend.sql("SELECT until FROM ratelimit")
    assert abs(int(stored) - 1_796_148_000) <= 14 * 3600  # 2026-12-01 18:00 UTC, or of the session's zone


# -- how a database is made --------------------------------------------------------------------------------------------

OPERATIONS = (ROOT / "contrib" / "doc" / "operations.md").read_text(encoding="utf-8")
_numbers = itertools.count(1)


def recipes(page: str) -> list[str]:
    """The blocks of SQL that make an account."""
    return [block for block in re.findall(r"^```sql\n(.*?)^```$", page, re.MULTILINE | re.DOTALL) if "CREATE " in block]


def of_postgresql(page: str) -> list[str]:
    return [block for block in recipes(page) if "CREATE ROLE" in block]


@pytest.mark.real
@pytest.mark.parametrize("recipe", [*of_postgresql(OPERATIONS), *of_postgresql(PAGE)], ids=itertools.count())
async def test_what_the_pages_say_makes_a_postgresql_database_that_the_daemon_counts_in(
    postgresql: PostgreSQL, recipe: str
) -> None:
    name = f"recipe{next(_numbers)}"
    text = recipe.replace("policyd", name).replace("sql/postgresql.sql", str(ROOT / "sql" / "postgresql.sql"))
    postgresql.sql(text)
    access = PostgreSQLAccess((("127.0.0.1", postgresql.port),), name, "change me", name)
    store = PostgreSQLStore(access, timeout_s=20)
    store.configure(20, Kept(7))
    await store.open()
    await store.settle_default(change=True)
    await flush(store, [delta("alice", 3)])
    assert (await row(store, "alice")).used == 3
    assert store.remarks.take() == []
    await store.close()
    panel = f"panel_{name}"
    postgresql.sql(f"CREATE ROLE {panel}; GRANT SELECT, INSERT, UPDATE ON ratelimit TO {panel}", name)
    postgresql.sql(f"SET ROLE {panel}; INSERT INTO ratelimit (sender, quota) VALUES ('bob', 7)", name)
    postgresql.sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.real
async def test_what_the_page_says_makes_a_mysql_database_that_the_daemon_counts_in(mariadb: MariaDB) -> None:
    (recipe,) = [block for block in recipes(PAGE) if "CREATE USER" in block]
    name = f"recipe{next(_numbers)}"
    mariadb.sql(recipe.replace("policyd", name))
    store = MySQLStore(Access(((str(mariadb.socket), 0),), name, b"change me", name), timeout_s=20)
    store.configure(20, Kept(7))
    await store.open()
    await store.settle_default(change=True)
    await flush(store, [delta("alice", 3)])
    assert (await row(store, "alice")).used == 3
    assert store.remarks.take() == []
    await store.close()
    mariadb.sql(f"DROP DATABASE {name}")


# -- the Perl daemon ---------------------------------------------------------------------------------------------------

SETTINGS = (
    *("allowedhosts", "LOGFILE", "PIDFILE", "SYSLOG_IDENT", "SYSLOG_LOGOPT", "SYSLOG_FACILITY", "vhost_dir", "port"),
    *("listen_address", "s_key_type", "dsn", "db_user", "db_passwd", "db_table", "db_quotacol", "db_tallycol"),
    *("db_updatedcol", "db_expirycol", "db_wherecol", "db_persistcol", "deltaconf", "defaultquota", "sql_getquota"),
    *("sql_updatequota", "sql_updatereset", "sql_insertquota"),
)
"""What the Perl daemon's configuration consists of."""


def test_every_line_of_the_perl_daemons_configuration_has_a_counterpart_or_none_that_is_said() -> None:
    rows = [line.split("|") for line in PAGE.splitlines() if line.startswith(("| `$", "| `@"))]
    assert all(len(row) == 4 and row[2].strip() for row in rows)
    assert sorted(name for row in rows for name in re.findall(r"`[$@](\w+)`", row[1])) == sorted(SETTINGS)


def test_the_perl_daemons_configuration_in_our_words_is_valid_and_keeps_its_reply(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    file = tmp_path / "ratelimitd.toml"
    file.write_text(block, encoding="utf-8")
    file.chmod(0o600)
    found = config.read(file)
    (limit,) = found.limits
    reply = limit.action.render(used=1001, quota=1000, key="alice", period=limit.period.name, reset="")
    assert reply.split(b"=", 1)[-1].strip() == b"471 daily message quota exceeded"
    assert set(re.findall(r"^\[+(\w+)\]", block, re.MULTILINE)) == {"server", "log", "store", "limit"}


@pytest.mark.real
def test_with_the_rights_on_the_page_it_goes_there_and_back(perl: Perl) -> None:
    perl.seed(("alice", 0, 1000, 5, LATER))
    name = perl.database
    perl.sql(f"CREATE USER {name}@localhost IDENTIFIED BY 'x'")
    perl.sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {name}.* TO {name}@localhost")
    (block,) = re.findall(r"^```sql\n(GRANT ALTER.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    perl.sql(block.replace("policyd", name))
    text = perl.file.read_text(encoding="utf-8")
    perl.file.write_text(text.replace('user = "root"', f'user = "{name}"\npassword = "x"'), encoding="utf-8")
    assert not [line for line in perl.migrate() if "left as it is" in line]
    perl.migrate(back=True)
    revokes = re.findall(r"^-- (REVOKE .*)$", block, re.MULTILINE)
    assert len(revokes) == 2
    perl.sql("".join(revokes).replace("policyd", name))
    with pytest.raises(StoreError, match="the account lacks rights"):
        perl.migrate()
