"""The statements on sql/README.md that differ between databases: they do what the page says, on each of them."""

import re
from pathlib import Path

from ratelimitd.stores import Store
from tests.stores.backends import Backend

PAGE = (Path(__file__).parents[2] / "sql" / "README.md").read_text(encoding="utf-8")


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
