"""Our table becomes the Perl daemon's again, and ours once more: nothing that was counted is lost on the way."""

import itertools
import os
import re
import stat
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from ratelimitd.core.rows import Delta, Grant
from ratelimitd.ctl.migrate.ours import holding, unstored
from ratelimitd.errors import StoreError, StoreUnsuitable
from ratelimitd.state.directory import StateDir
from ratelimitd.stores import Names, Store
from ratelimitd.stores.history import Kept
from ratelimitd.stores.mysql.session import MySQLSession
from tests.stores.backends import delta, flush, row
from tests.stores.perl_daemon import DEFAULT_QUOTA, PerlDaemon
from tests.stores.perl_table import EARLIER, LATER, LIMIT, Perl

pytestmark = pytest.mark.real
ROOT = Path(__file__).parents[2]
NOW = int(time.time())
TWO = LIMIT + '[[limit]]\nname = "hourly"\nperiod = "hourly"\nquota = 50\n'
SLIDING = '[[limit]]\nname = "daily"\nperiod = "1d"\nwindow = "sliding"\nquota = 1000\n'


def part(key: str, used: int, leave: int) -> Delta:
    """Recipients of a part that leaves `leave` seconds from NOW."""
    return Delta("daily", key, NOW + leave, used, 1000, 1000, NOW + 3 * 86400, 1, 1, NOW, True)


async def counted(perl: Perl, work: Callable[[Store], Awaitable[object]], kept: Kept = Kept()) -> None:  # noqa: B008
    """What ratelimitd does while it runs."""
    store = perl.make()
    store.configure(20, kept)
    await store.open()
    try:
        await work(store)
    finally:
        await store.close()


def count(perl: Perl, *deltas: Delta) -> None:
    async def work(store: Store) -> None:
        await flush(store, deltas)

    trio.run(counted, perl, work)


def slide(perl: Perl, *deltas: Delta) -> None:
    async def work(store: Store) -> None:
        await flush(store, deltas)

    trio.run(counted, perl, work, Kept(0, {"daily"}))


def number(perl: Perl, column: str = "used") -> dict[str, str]:
    return {name: text for name, text in used(perl, column)}  # noqa: C416  each row is of two


def used(perl: Perl, *columns: str) -> list[tuple[str, ...]]:
    return perl.sql(f"SELECT sender, {', '.join(columns) or 'used'} FROM ratelimit ORDER BY id")


def test_counts_go_on_from_the_perl_daemon_to_ours_back_and_again(perl: Perl) -> None:
    perl.seed(("alice", 0, 1000, 0, 0), ("vip", 1, 0, 0, 0), ("carol", 1, 5, 4, LATER))
    first = PerlDaemon(perl.sql, LATER)
    replies = [first.ask(who, n, NOW) for who, n in (("alice", 3), ("vip", 9), ("carol", 1), ("bob", 2))]
    assert replies == ["dunno UPDATE", "dunno INSERT", "dunno UPDATE", "dunno INSERT"]
    first.write()
    perl.migrate()
    count(perl, *(delta(key, 10, expiry=LATER, quota=1000) for key in ("alice", "carol", "new")))
    perl.migrate(back=True)
    again = PerlDaemon(perl.sql, LATER)
    replies = [again.ask(who, 1, NOW) for who in ("alice", "carol", "new", "newer")]
    assert replies == ["dunno UPDATE", "471 OVER_QUOTA", "dunno UPDATE", "dunno INSERT"]
    again.write()
    assert number(perl)["alice"] == "14"
    perl.migrate()
    count(perl, delta("alice", 100, expiry=LATER, quota=1000))
    assert number(perl) == {"alice": "114", "vip": "0", "carol": "16", "bob": "2", "new": "11", "newer": "1"}
    assert number(perl, "quota")["vip"] == "0"


def test_the_perl_daemons_reset_and_the_quota_after_it_are_as_they_were(perl: Perl) -> None:
    perl.seed()
    perl.migrate()
    count(perl, delta("alice", 10, expiry=EARLIER, quota=50), delta("bob", 10, expiry=EARLIER, quota=50))
    perl.sql("UPDATE ratelimit SET persist = 1 WHERE sender = 'bob'")
    perl.migrate(back=True)
    daemon = PerlDaemon(perl.sql, LATER)
    assert [daemon.ask(who, 1, NOW) for who in ("alice", "bob")] == ["dunno UPDATE"] * 2
    daemon.write()
    rows = used(perl, "quota", "used", "expiry")
    assert rows == [("alice", str(DEFAULT_QUOTA), "1", str(LATER)), ("bob", "50", "1", str(LATER))]


def test_the_table_is_as_the_perl_daemon_knows_it(perl: Perl) -> None:
    perl.seed(("alice", 1, 20, 5, LATER))
    before = used(perl, "id", "persist", "quota", "used", "updated", "expiry")
    perl.migrate()
    perl.migrate(back=True)
    assert used(perl, "id", "persist", "quota", "used", "updated", "expiry") == before
    columns = [name for name, *_ in perl.sql("SHOW COLUMNS FROM ratelimit")]
    assert columns == ["id", "sender", "persist", "quota", "used", "updated", "expiry"]
    assert {(key[2], key[4]) for key in perl.sql("SHOW INDEX FROM ratelimit")} == {
        ("PRIMARY", "id"),
        ("sender", "sender"),
    }
    assert perl.sql("SELECT sender, expirytime > NOW() FROM view_ratelimit") == [("alice", "1")]
    assert ("updated",) not in perl.sql(
        "SELECT COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() "
        "AND TABLE_NAME = 'ratelimit' AND EXTRA LIKE '%on update%'"
    )


def test_the_rows_of_other_limits_are_set_aside_and_come_back(perl: Perl) -> None:
    perl.configure(limits=TWO)
    perl.seed(("alice", 0, 1000, 5, LATER))
    perl.migrate()
    count(perl, delta("alice", 7, expiry=LATER, limit="hourly"), delta("bob", 8, expiry=LATER, limit="hourly"))
    perl.sql("UPDATE ratelimit SET persist = 1, updated = '2026-02-03 04:05:06' WHERE sender = 'bob'")
    columns = "sender, limit_name, persist, quota, configured, seen, until, used, in_parts, updated, expiry"
    before = perl.sql(f"SELECT {columns} FROM ratelimit WHERE limit_name = 'hourly' ORDER BY sender")
    report = perl.migrate(back=True)
    assert "2 rows of the limit hourly: set aside in ratelimit_aside" in report
    assert used(perl) == [("alice", "5")]
    perl.migrate()
    assert perl.sql(f"SELECT {columns} FROM ratelimit WHERE limit_name = 'hourly' ORDER BY sender") == before
    assert ("ratelimit_aside",) not in perl.sql("SHOW TABLES")
    perl.migrate(back=True)
    perl.migrate()
    assert perl.sql(f"SELECT {columns} FROM ratelimit WHERE limit_name = 'hourly' ORDER BY sender") == before


def test_a_row_that_was_set_aside_does_not_replace_what_the_perl_daemon_counted(perl: Perl) -> None:
    """Another limit is the first now."""
    perl.configure(limits=TWO)
    perl.seed(("alice", 0, 1000, 5, LATER))
    perl.migrate()
    count(perl, delta("alice", 7, expiry=LATER, limit="hourly"))
    perl.migrate(back=True)
    hourly, daily = TWO[len(LIMIT) :], LIMIT
    perl.configure(limits=hourly + daily)
    said = '"alice" has a row under hourly by now, which stays; the one that was set aside (used 7) goes'
    assert said in perl.migrate(dry_run=True)
    assert said in perl.migrate()
    assert used(perl, "limit_name", "used") == [("alice", "hourly", "5")]


def test_under_a_sliding_limit_what_counts_now_goes_on_and_is_not_counted_twice_afterwards(perl: Perl) -> None:
    perl.configure(limits=SLIDING)
    perl.seed()
    perl.migrate()
    slide(perl, part("alice", 4, 3600), part("alice", 5, 7200), part("bob", 6, 3600), part("set", 6, 3600))
    perl.sql("INSERT INTO ratelimit_history VALUES ('alice', 'daily', UNIX_TIMESTAMP() - 60, 100)")
    perl.sql("UPDATE ratelimit SET used = 9 + 100, in_parts = 9 + 100 WHERE sender = 'alice'")  # at the last flush
    perl.sql("UPDATE ratelimit SET used = 2 WHERE sender = 'set'")
    perl.sql(f"INSERT INTO ratelimit (sender, used, in_parts, expiry) VALUES ('left', 3, 3, {EARLIER})")
    perl.migrate(back=True)
    assert used(perl, "used", "expiry") == [
        ("alice", "9", str(NOW + 7200)),
        ("bob", "6", str(NOW + 3600)),
        ("set", "2", str(NOW + 3600)),
        ("left", "3", str(EARLIER)),
    ]
    assert perl.sql("SELECT SUM(used), SUM(expiry > UNIX_TIMESTAMP()) FROM ratelimit_history") == [("121", "0")]
    daemon = PerlDaemon(perl.sql, LATER)
    daemon.ask("alice", 1, NOW)
    daemon.write()
    perl.migrate()

    async def work(store: Store) -> None:
        await flush(store, [part("alice", 1, 86400)])
        found = await row(store, "alice", "daily", NOW)
        assert (found.used, found.parts) == (11, ((NOW + 7200, 10), (NOW + 86400, 1)))

    trio.run(counted, perl, work, Kept(0, {"daily"}))


def test_a_fixed_limit_keeps_its_history(perl: Perl) -> None:
    perl.seed()
    perl.migrate()
    perl.sql("INSERT INTO ratelimit (sender, used, expiry) VALUES ('alice', 5, UNIX_TIMESTAMP() + 3600)")
    perl.sql("INSERT INTO ratelimit_history SELECT sender, limit_name, expiry, used FROM ratelimit")
    before = perl.sql("SELECT * FROM ratelimit_history")
    perl.migrate(back=True)
    assert perl.sql("SELECT * FROM ratelimit_history") == before
    perl.migrate()
    assert perl.sql("SELECT * FROM ratelimit_history") == before


def test_what_the_perl_daemon_would_make_last_for_ever_ends_and_what_ends_early_is_said(perl: Perl) -> None:
    perl.seed()
    perl.migrate()
    expiry = LATER

    async def work(store: Store) -> None:
        await flush(store, [delta(key, 1, expiry=expiry, quota=1000) for key in ("free", "long", "over", "plain")])
        await store.grant(Grant("daily", "free", 0, 1000, False, expiry, expiry, 0), NOW)
        await store.grant(Grant("daily", "long", 70, 1000, False, expiry, expiry, LATER + 86400), NOW)

    trio.run(counted, perl, work)
    perl.sql("UPDATE ratelimit SET quota = 5, until = UNIX_TIMESTAMP() - 1 WHERE sender = 'over'")
    perl.sql("INSERT INTO ratelimit (sender, quota, configured) VALUES ('exception', 50, 50)")
    report = perl.migrate(back=True)
    assert number(perl, "quota") == {
        "free": "4294967295",
        "long": "70",
        "over": "1000",
        "plain": "1000",
        "exception": "50",
    }
    assert '"free": unlimited until its period ends: quota 4294967295 until then' in report
    assert any(line.startswith('"long": its quota 70 was until ') for line in report)
    assert '"exception": its configured quota 50 ends with its period; with persist = 1 a quota stays' in report
    assert not any('"plain"' in line for line in report)


def test_repeating_it_is_harmless(perl: Perl) -> None:
    perl.configure(limits=TWO)
    perl.seed(("alice", 0, 1000, 5, LATER))
    perl.migrate()
    count(perl, delta("alice", 7, expiry=LATER, limit="hourly"))
    perl.migrate(back=True)
    before = dump(perl)
    (said, view) = perl.migrate(back=True)
    assert said == "the table ratelimit is the Perl daemon's already"
    assert view.startswith("ran: CREATE OR REPLACE SQL SECURITY INVOKER VIEW `view_ratelimit`")
    assert dump(perl) == before


def test_a_dry_run_changes_nothing(perl: Perl) -> None:
    perl.configure(limits=TWO)
    perl.seed(("alice", 0, 1000, 5, LATER))
    perl.migrate()
    count(perl, delta("alice", 7, expiry=LATER, limit="hourly"))
    before = dump(perl)
    report = perl.migrate(dry_run=True, back=True)
    assert dump(perl) == before
    planned = [line.removeprefix("would run: ") for line in report if line.startswith("would run: ")]
    assert [line.removeprefix("ran: ") for line in perl.migrate(back=True) if line.startswith("ran: ")] == planned


COLUMNS = (
    "SELECT TABLE_NAME, GROUP_CONCAT(COLUMN_NAME ORDER BY COLUMN_NAME) FROM information_schema.COLUMNS "
    "WHERE TABLE_SCHEMA = DATABASE() AND COLUMN_NAME <> 'id' GROUP BY TABLE_NAME ORDER BY TABLE_NAME"
)


def dump(perl: Perl) -> list[str]:
    """All tables and what is in them, but for numbers of rows and times of the moment."""
    statements: list[str] = []
    for table, columns in perl.sql(COLUMNS):
        if table == "ratelimit_history":
            columns = columns.replace("expiry", "IF(expiry > UNIX_TIMESTAMP(), expiry, 'over')")
        statements += [f"SHOW CREATE TABLE {table}", f"SELECT {columns} FROM {table} ORDER BY {columns}"]
    of_the_session = re.compile(r" AUTO_INCREMENT=\d+|\|utf8mb4\|utf8mb4_\w+$")
    return [of_the_session.sub("", "|".join(row)) for row in perl.sql(";".join(statements))]


def emptied(perl: Perl) -> None:
    """The database, without tables."""
    perl.sql(f"DROP DATABASE {perl.database}; CREATE DATABASE {perl.database}")


# -- interrupted between any two statements ----------------------------------------------------------------------------


class Killed(Exception):
    """In place of kill -9."""


def killed_before(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The connection is gone before so many statements that change something."""
    run, numbers = MySQLSession.run, itertools.count()

    async def counted_run(self: MySQLSession, statement: str, *arguments: Any) -> Any:
        if not statement.lstrip().startswith(("SELECT", "SHOW", "EXPLAIN", "SET NAMES")) and next(numbers) == number:
            self.discard()
            raise Killed
        return await run(self, statement, *arguments)

    monkeypatch.setattr(MySQLSession, "run", counted_run)


ROWS = (("Alice", 0, 1000, 5, LATER), ("alice", 0, 10, 1, LATER), ("vip", 0, 0, 0, 0), ("old", 0, 70, 3, EARLIER))


@pytest.fixture
def in_turn(
    perl: Perl, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Callable[[Callable[[], None], bool], int]:
    """The same once whole, and then ended before each statement in turn and completed; on MySQL before each fourth."""

    step = 1 if request.node.callspec.params["perl"] == "mariadb" else 4

    def interrupted(prepare: Callable[[], None], back: bool) -> int:
        emptied(perl)
        prepare()
        perl.migrate(back=back)
        whole = dump(perl)
        for number in itertools.count(step - 1, step):
            emptied(perl)
            prepare()
            with monkeypatch.context() as patched:
                killed_before(patched, number)
                try:
                    perl.migrate(back=back)
                    return number
                except Killed:
                    pass
            perl.migrate(back=back)
            assert dump(perl) == whole, f"after an end before statement {number}"
        raise AssertionError

    return interrupted


LIMITED = (("alice", "daily", 5), ("bob", "daily", 6), ("alice", "hourly", 7))
OURS = (
    "ALTER TABLE {0} MODIFY sender VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL, "
    "ADD limit_name VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT 'daily' AFTER sender, "
    "ADD configured INT UNSIGNED AFTER quota, ADD seen INT UNSIGNED AFTER configured, "
    "ADD until INT UNSIGNED AFTER seen, ADD in_parts INT UNSIGNED AFTER used, "
    "DROP INDEX sender, ADD UNIQUE KEY account (sender, limit_name);"
)


def test_the_way_there_is_completed_after_an_end_anywhere(
    perl: Perl, in_turn: Callable[[Callable[[], None], bool], int]
) -> None:
    perl.configure(limits=TWO)

    def prepare() -> None:
        perl.seed(*ROWS)
        perl.sql(
            f"CREATE TABLE ratelimit_aside LIKE ratelimit; {OURS.format('ratelimit_aside')} "
            f"INSERT INTO ratelimit_aside (sender, limit_name, used, expiry, updated) "
            f"VALUES ('alice', 'hourly', 3, {LATER}, '2026-01-02 03:04:05')"
        )

    assert in_turn(prepare, False) > 15


def test_the_way_back_is_completed_after_an_end_anywhere(
    perl: Perl, in_turn: Callable[[Callable[[], None], bool], int]
) -> None:
    perl.configure(limits=SLIDING + TWO[len(LIMIT) :])
    schema = (ROOT / "sql" / "mysql.sql").read_text(encoding="utf-8").replace("'default'", "'daily'")
    rows = ", ".join(f"('{key}', '{limit}', {n}, {n}, 1000, 1000, {LATER})" for key, limit, n in LIMITED)

    def prepare() -> None:
        perl.sql(schema)
        perl.sql(
            f"INSERT INTO ratelimit (sender, limit_name, used, in_parts, quota, configured, expiry) VALUES {rows};"
            "INSERT INTO ratelimit_history SELECT sender, limit_name, expiry, used FROM ratelimit;"
            "UPDATE ratelimit SET updated = '2026-01-02 03:04:05'"
        )

    assert in_turn(prepare, True) > 12


@pytest.mark.parametrize("back", [True, False])
def test_no_daemon_counts_while_rows_of_other_limits_are_aside(
    perl: Perl, monkeypatch: pytest.MonkeyPatch, back: bool
) -> None:
    """From 0, under these limits; and then one of the two counts would be lost."""
    perl.configure(limits=TWO)
    perl.seed(("alice", 0, 1000, 5, LATER))
    perl.migrate()
    count(perl, delta("alice", 7, expiry=LATER, limit="hourly"))
    if not back:
        perl.migrate(back=True)
    for number in itertools.count():
        with monkeypatch.context() as patched:
            killed_before(patched, number)
            with pytest.raises(Killed):
                perl.migrate(back=back)
        names = [name for name, *_ in perl.sql("SHOW COLUMNS FROM ratelimit")]
        if "limit_name" in names and not perl.sql("SELECT 1 FROM ratelimit WHERE limit_name = 'hourly'"):
            break
    with pytest.raises(StoreUnsuitable, match=r"rows of other limits are in ratelimit_aside.*`ratelimitctl migrate`"):
        count(perl, delta("alice", 7, expiry=LATER, limit="hourly"))
    perl.migrate()
    count(perl, delta("alice", 7, expiry=LATER, limit="hourly"))
    assert sorted(used(perl, "limit_name", "used")) == [("alice", "daily", "5"), ("alice", "hourly", "14")]
    perl.sql("CREATE TABLE ratelimit_aside (note TEXT); INSERT INTO ratelimit_aside VALUES ('somebody else')")
    count(perl, delta("alice", 1, expiry=LATER, limit="hourly"))


# -- the file, and what is refused -------------------------------------------------------------------------------------


def test_the_files_and_the_tool_do_the_same(perl: Perl) -> None:
    def file(name: str) -> None:
        text = (ROOT / "sql" / name).read_text(encoding="utf-8")
        perl.sql(text.replace("'default'", "'daily'"))

    perl.configure(limits=TWO)
    results = []
    for by_tool in (True, False):
        emptied(perl)
        perl.seed(("alice", 0, 1000, 5, LATER), ("vip", 0, 0, 0, 0), ("old", 0, 70, 3, EARLIER))
        if by_tool:
            perl.migrate()
        else:
            file("mysql-migrate-ratelimit-policyd.sql")
            file("mysql.sql")
        there = dump(perl)
        perl.sql("INSERT INTO ratelimit (sender, limit_name, used) VALUES ('alice', 'hourly', 3)")
        perl.sql("UPDATE ratelimit SET updated = '2026-01-02 03:04:05'")
        perl.migrate(back=True) if by_tool else file("mysql-migrate-back.sql")
        results.append((there, dump(perl)))
    assert results[0] == results[1]


@pytest.fixture
def ours(perl: Perl) -> Perl:
    """A table that is ours."""
    perl.seed(("alice", 0, 1000, 5, LATER))
    perl.migrate()
    return perl


def refused(perl: Perl, words: str) -> None:
    """The way back is refused, and nothing changes; a dry run says so."""
    before = dump(perl)
    with pytest.raises(StoreError, match=words):
        perl.migrate(back=True)
    assert dump(perl) == before
    assert any(re.match(f"would be refused: .*{words}", line) for line in perl.migrate(dry_run=True, back=True))


def test_while_a_daemon_runs_it_is_refused(ours: Perl) -> None:
    state = StateDir(ours.file.parent / "state")
    state.acquire()
    try:
        refused(ours, "ratelimitd is running: stop it first")
    finally:
        state.release()
    ours.migrate(back=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_opens_nothing_of_the_daemons_users_that_this_user_could_not(ours: Perl) -> None:
    """A name in its folder may be another for a file of root's, which a lock would empty."""
    root = ours.file.parent
    while root != root.parent and not root.stat().st_mode & stat.S_IXOTH:
        root.chmod(root.stat().st_mode | stat.S_IXOTH)
        root = root.parent
    state, precious = ours.file.parent / "state", ours.file.parent / "precious"
    (state / "journal").mkdir(parents=True)
    precious.write_text("kept")
    precious.chmod(0o600)
    (state / "lock").hardlink_to(precious)
    for folder in (state, state / "journal"):
        os.chown(folder, 1, 1)
    refused(ours, "it is not known whether ratelimitd is running: .*Permission denied")
    assert precious.read_text() == "kept"
    (state / "lock").unlink()
    (state / "lock").touch()
    os.chown(state / "lock", 1, 1)
    (state / "journal" / "1.segment").symlink_to(precious)
    with pytest.raises(StoreError, match=r"the journal cannot be read: .*Permission denied"):
        ours.migrate(back=True)
    (state / "journal" / "1.segment").unlink()
    ours.migrate(back=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
async def test_a_state_directory_that_this_user_may_not_enter_is_not_taken_for_none(folder: Path) -> None:
    state = folder / "state"
    (state / "journal").mkdir(parents=True)
    state.chmod(0o700)
    os.seteuid(1)
    try:
        with pytest.raises(StoreError, match=r"it is not known whether ratelimitd is running: .*Permission denied"):
            holding(state)
        with pytest.raises(StoreError, match=r"the journal cannot be read: .*Permission denied"):
            await unstored(cast("MySQLSession", None), Names(), state / "journal", node_table=False)
    finally:
        os.seteuid(0)


def test_while_another_machines_daemon_has_a_session_it_is_refused(ours: Perl) -> None:
    async def work(store: Store) -> None:
        await flush(store, [delta("alice", 1, expiry=LATER)])
        await trio.to_thread.run_sync(refused, ours, r"other sessions of this account .*1 \(ids \d+; from ")

    trio.run(counted, ours, work)
    ours.migrate(back=True)


def test_without_a_row_of_the_first_limit_it_is_refused(ours: Perl) -> None:
    ours.configure(limits=LIMIT.replace("daily", "other"))
    refused(ours, r"the first limit is other, of which there are no rows, but of daily \(1 row\)")


def test_a_table_that_is_none_is_refused(perl: Perl) -> None:
    with pytest.raises(StoreError, match="there is no table ratelimit"):
        perl.migrate(back=True)
    perl.sql("CREATE TABLE ratelimit (id INT)")
    with pytest.raises(StoreError, match="neither ratelimitd's nor the Perl daemon's: its column sender is nothing"):
        perl.migrate(back=True)
