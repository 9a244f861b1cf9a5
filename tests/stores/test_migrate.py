"""The Perl daemon's table becomes ours."""

import re
import time
from pathlib import Path

import pytest
import trio

from ratelimitd.config import read as config
from ratelimitd.ctl import main as ctl
from ratelimitd.ctl.migrate.migrate import migrate
from ratelimitd.ctl.migrate.senders import OldRow, merge
from ratelimitd.errors import StartError, StoreError
from tests.instances.mariadb import MariaDB
from tests.instances.ports import free_port
from tests.stores.backends import delta, flush, row
from tests.stores.perl_table import EARLIER, LATER, LIMIT, SEED, Perl


@pytest.mark.real
def test_ids_quotas_persist_flags_and_counts_are_kept(perl: Perl) -> None:
    perl.seed(("alice", 0, 1000, 5, LATER), ("bob", 1, 20, 6, LATER), ("carol", 0, 50, 7, EARLIER))
    before = perl.rows()
    updated = perl.sql("SELECT updated FROM ratelimit ORDER BY id")
    report = perl.migrate()
    assert perl.rows() == before
    assert perl.sql("SELECT updated FROM ratelimit ORDER BY id") == updated
    assert perl.sql("SELECT DISTINCT limit_name FROM ratelimit") == [("daily",)]
    assert any(line.startswith("ran: ALTER TABLE `ratelimit`") for line in report)
    assert report[-1] == "3 rows, 0 with a sender that is not normalised"


@pytest.mark.real
async def test_the_store_goes_on_counting_in_a_migrated_table(perl: Perl) -> None:
    perl.seed(("alice", 0, 50, 5, LATER), ("bob", 1, 20, 6, EARLIER), ("carol", 0, 50, 7, EARLIER))
    await _migrate(perl)
    store = perl.make()
    await store.open()
    now = int(time.time())
    assert (await row(store, "alice")).quota_at(now, 1000) == 50
    assert (await row(store, "bob")).quota_at(now, 1000) == 20
    assert (await row(store, "carol")).quota_at(now, 1000) == 1000  # its period is over, and it did not persist
    await flush(store, [delta(key, 1, expiry=LATER, quota=1000) for key in ("alice", "bob", "carol", "dave")])
    used = [(r.quota, r.used) for r in [await row(store, key) for key in ("alice", "bob", "carol", "dave")]]
    assert used == [(50, 6), (20, 1), (1000, 1), (1000, 1)]
    await store.close()


async def _migrate(perl: Perl) -> list[str]:
    return await trio.to_thread.run_sync(perl.migrate)


@pytest.mark.real
def test_what_a_fork_of_the_perl_daemon_leaves_null_is_0_and_is_never_null_again(perl: Perl) -> None:
    perl.seed(("alice", 1, 7, 5, LATER), ("bob", 1, 20, 6, LATER), ("carol", 0, 30, 1, LATER))
    perl.sql(
        "ALTER TABLE ratelimit MODIFY persist TINYINT(1) DEFAULT 0, MODIFY quota INT DEFAULT 0,"
        " MODIFY used INT UNSIGNED DEFAULT 0, MODIFY expiry INT UNSIGNED DEFAULT NULL;"
        "UPDATE ratelimit SET quota = NULL, used = NULL WHERE sender = 'alice';"
        "UPDATE ratelimit SET quota = -1, expiry = NULL WHERE sender = 'bob'"
    )
    report = perl.migrate()
    assert perl.rows() == [
        ("1", "alice", "1", "0", "0", str(LATER)),
        ("2", "bob", "1", "0", "6", "0"),
        ("3", "carol", "0", "30", "1", str(LATER)),
    ]
    nullable = (
        "SELECT COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_NAME = 'ratelimit' AND IS_NULLABLE = 'YES'"
    )
    assert sorted(perl.sql(f"{nullable} AND TABLE_SCHEMA = DATABASE()")) == [
        (name,) for name in ("configured", "in_parts", "seen", "until")
    ]
    assert report[-1] == "3 rows, 0 with a sender that is not normalised"


@pytest.mark.real
def test_a_database_of_the_version_before_gets_the_tables_that_it_lacks(perl: Perl) -> None:
    perl.seed(("alice", 0, 10, 5, LATER))
    perl.migrate()
    perl.sql("DROP TABLE ratelimit_history")
    assert "would create: ratelimit_history" in perl.migrate(dry_run=True)
    assert ("ratelimit_history",) not in perl.sql("SHOW TABLES")
    assert perl.migrate()[:2] == ["the table ratelimit is migrated already", "created: ratelimit_history"]
    assert ("ratelimit_history",) in perl.sql("SHOW TABLES")
    assert len(perl.migrate()) == 2


@pytest.mark.real
def test_a_table_that_was_migrated_before_is_completed(perl: Perl) -> None:
    perl.seed(("alice", 0, 10, 5, LATER), ("bob", 0, 10, 5, LATER))
    perl.migrate()
    whole = perl.sql("SHOW CREATE TABLE ratelimit")
    perl.sql(
        "ALTER TABLE ratelimit DROP COLUMN seen, DROP COLUMN until, DROP COLUMN in_parts,"
        " ALTER limit_name SET DEFAULT 'default', MODIFY used INT UNSIGNED NULL DEFAULT 0;"
        "UPDATE ratelimit SET used = NULL WHERE sender = 'alice'"
    )
    planned = perl.migrate(dry_run=True)
    alter, update = ["would", "run:", "ALTER", "TABLE"], ["would", "run:", "UPDATE", "`ratelimit`"]
    assert [line.split()[:4] for line in planned[1:-1]] == [*[alter] * 4, update, alter]
    perl.migrate()
    assert perl.sql("SHOW CREATE TABLE ratelimit") == whole
    assert perl.sql("SELECT used FROM ratelimit ORDER BY sender") == [("0",), ("5",)]
    assert perl.migrate()[0] == "the table ratelimit is migrated already"
    assert len(perl.migrate()) == 2


@pytest.mark.real
def test_panels_and_the_old_view_go_on(perl: Perl) -> None:
    perl.seed(("alice", 0, 1000, 5, 86400 * 365))
    perl.migrate()
    assert perl.sql("SELECT sender, quota, used FROM ratelimit") == [("alice", "1000", "5")]
    ((sender, when),) = perl.sql("SELECT sender, expirytime FROM view_ratelimit")
    assert (sender, when[:4]) in [("alice", "1970"), ("alice", "1971")]
    perl.sql("INSERT INTO ratelimit (sender, quota, persist) VALUES ('bob', 7, 1)")
    perl.sql("UPDATE ratelimit SET quota = 9 WHERE sender = 'alice'")
    assert perl.sql("SELECT sender, limit_name, quota, updated > '2026-02-01' FROM ratelimit ORDER BY sender") == [
        ("alice", "daily", "9", "1"),
        ("bob", "daily", "7", "1"),
    ]


@pytest.mark.real
def test_a_table_is_not_touched_by_a_dry_run(perl: Perl) -> None:
    perl.seed(("alice", 0, 0, 5, LATER), ("Alice", 1, 20, 6, LATER))
    before = perl.sql("SHOW CREATE TABLE ratelimit") + perl.rows() + perl.sql("SHOW TABLES")
    report = perl.migrate(dry_run=True)
    assert perl.sql("SHOW CREATE TABLE ratelimit") + perl.rows() + perl.sql("SHOW TABLES") == before
    assert '"alice": quota 0 was unlimited and stays so: persist = 1' in report
    assert any(line.startswith("would run: ALTER TABLE `ratelimit` MODIFY") for line in report)
    assert report[-1] == (
        '"alice" (used 5, unlimited) and "Alice" (used 6, quota 20, persist) -> "alice" (used 11, unlimited, persist)'
    )


@pytest.mark.real
def test_migrating_again_changes_nothing(perl: Perl) -> None:
    perl.seed(("alice", 0, 0, 5, LATER), ("Bob ", 1, 20, 6, LATER), ("bob", 0, 30, 1, LATER))
    perl.migrate()
    before = perl.sql("SHOW CREATE TABLE ratelimit") + perl.sql("SELECT * FROM ratelimit ORDER BY id")
    perl.sql("UPDATE ratelimit SET persist = 0, updated = updated WHERE sender = 'alice'")
    report = perl.migrate()
    assert report == ["the table ratelimit is migrated already", "2 rows, 0 with a sender that is not normalised"]
    assert perl.sql("SELECT persist FROM ratelimit WHERE sender = 'alice'") == [("0",)]
    perl.sql("UPDATE ratelimit SET persist = 1, updated = updated WHERE sender = 'alice'")
    assert perl.sql("SHOW CREATE TABLE ratelimit") + perl.sql("SELECT * FROM ratelimit ORDER BY id") == before


@pytest.mark.real
def test_senders_that_are_one_account_are_merged_and_listed(perl: Perl) -> None:
    perl.seed(
        ("alice", 0, 10, 1, LATER),
        ("Alice", 1, 30, 2, LATER),
        (" alice@example.com", 0, 20, 4, EARLIER),
        ("alicé", 0, 10, 8, LATER),
        ("ALICÉ", 0, 10, 16, LATER),
        ("bob@other.example", 0, 10, 32, LATER),
    )
    perl.configure(limits='[keys]\ndefault_domain = "example.com"\n' + LIMIT)
    report = perl.migrate()
    merged = [line for line in report if "->" in line]
    assert perl.rows() == [
        ("1", "alice@example.com", "1", "30", "3", str(LATER)),
        ("4", "alicé@example.com", "0", "10", "8", str(LATER)),
        ("5", "alicÉ@example.com", "0", "10", "16", str(LATER)),
        ("6", "bob@other.example", "0", "10", "32", str(LATER)),
    ]
    assert len(merged) == 3
    assert any(line.count('"') == 8 and "used 3, quota 30, persist" in line for line in merged)


@pytest.mark.real
def test_domains_get_no_default_domain(perl: Perl) -> None:
    perl.seed(("example.com", 0, 10, 1, LATER))
    perl.configure(limits='[keys]\ndefault_domain = "other.example"\n' + LIMIT + 'key = "domain"\n')
    perl.migrate()
    assert perl.rows()[0][1] == "example.com"


@pytest.mark.real
def test_names_of_table_and_columns_are_those_configured(perl: Perl) -> None:
    perl.seed(("alice", 0, 10, 1, LATER))
    perl.sql("ALTER TABLE ratelimit RENAME mail, CHANGE used tally INT UNSIGNED NOT NULL DEFAULT 0")
    perl.sql("DROP VIEW view_ratelimit")
    perl.configure(store='table = "mail"\ncolumns = {used = "tally"}\n')
    perl.migrate()
    assert perl.sql("SELECT sender, limit_name, tally FROM view_mail") == [("alice", "daily", "1")]
    assert ("mail_node",) in perl.sql("SHOW TABLES")


@pytest.mark.real
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("DROP COLUMN expiry", "its column expiry is nothing"),
        ("MODIFY quota VARCHAR(20)", r"its column quota is varchar\(20\)"),
        ("DROP INDEX sender", "its senders are not unique"),
        ("ADD COLUMN owner INT NOT NULL", "a column owner without default"),
        ("ADD COLUMN limit_name INT", "by other means"),
    ],
)
def test_a_table_that_is_not_known_is_refused_and_left_alone(perl: Perl, change: str, words: str) -> None:
    perl.seed(("alice", 0, 10, 1, LATER))
    perl.sql("DROP VIEW view_ratelimit")
    perl.sql(f"ALTER TABLE ratelimit {change}")
    before = perl.sql("SHOW CREATE TABLE ratelimit")
    with pytest.raises(StoreError, match=words):
        perl.migrate()
    assert perl.sql("SHOW CREATE TABLE ratelimit") == before


@pytest.mark.real
def test_numbers_that_are_no_whole_ones_or_too_narrow_become_ours(perl: Perl) -> None:
    perl.seed(("alice", 1, 1000, 5, LATER), ("bob", 0, 20, 6, EARLIER), ("carol", 0, 30, 7, LATER))
    perl.migrate()
    ours = perl.sql("SHOW CREATE TABLE ratelimit")
    before = perl.sql("SELECT * FROM ratelimit ORDER BY id")
    perl.sql(
        "ALTER TABLE ratelimit MODIFY quota SMALLINT, MODIFY used FLOAT NOT NULL DEFAULT 0, MODIFY expiry DOUBLE,"
        " MODIFY persist DECIMAL(3,1), MODIFY configured DECIMAL(12,2), MODIFY seen TINYINT"
    )
    perl.sql("UPDATE ratelimit SET quota = -1, used = 7.4, updated = updated WHERE sender = 'carol'")
    dry = perl.migrate(dry_run=True)
    report = perl.migrate()
    assert [line for line in dry if "MODIFY" in line] == [
        line.replace("ran:", "would run:") for line in report if "MODIFY" in line
    ]
    assert perl.sql("SHOW CREATE TABLE ratelimit") == ours
    after = perl.sql("SELECT * FROM ratelimit ORDER BY id")
    assert after[:2] == before[:2]
    assert perl.rows()[2] == ("3", "carol", "0", "0", "7", str(LATER))
    assert not [line for line in perl.migrate() if line.startswith("ran:")]

    async def opened() -> None:
        store = perl.make()
        await store.open()
        await store.close()

    trio.run(opened)


@pytest.mark.real
def test_without_a_table_there_is_nothing_to_do(perl: Perl) -> None:
    assert perl.migrate() == ["there is no table ratelimit: the daemon creates it when it starts"]


@pytest.mark.real
def test_the_command_says_what_it_did(perl: Perl, capsys: pytest.CaptureFixture[str]) -> None:
    perl.seed(("Alice", 0, 10, 1, LATER))
    assert ctl.main(["-c", str(perl.file), "migrate", "--dry-run"]) == 0
    assert "would run: ALTER TABLE" in capsys.readouterr().out
    assert ctl.main(["-c", str(perl.file), "migrate"]) == 0
    assert '"Alice" (used 1, quota 10) -> "alice" (used 1, quota 10)' in capsys.readouterr().out
    perl.sql("DROP TABLE ratelimit; CREATE TABLE ratelimit (a INT)")
    assert ctl.main(["-c", str(perl.file), "migrate"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ratelimitctl: migrate: mysql:root@")
    assert line.endswith("the table ratelimit is not the Perl daemon's: its column id is nothing")


@pytest.mark.real
def test_the_hosts_are_tried_in_turn_and_that_none_answers_is_no_wrong_usage(
    mariadb: MariaDB, database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mariadb.add_user(database, "x", grant=f"ALL ON {database}.*")
    mariadb.sql(SEED, database)
    file, closed = tmp_path / "ratelimitd.toml", f"127.0.0.1:{free_port()}"

    def migrated(*hosts: str) -> int:
        store = f'backend = "mysql"\nhost = {list(hosts)}\nuser = "{database}"\npassword = "x"\n'
        file.write_text(f'[store]\n{store}database = "{database}"\n{LIMIT}')
        return ctl.main(["-c", str(file), "migrate"])

    assert migrated(closed, f"127.0.0.1:{mariadb.port}") == 0
    assert "created: ratelimit_history\n" in capsys.readouterr().out
    assert migrated(closed, "127.0.0.1:1") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(rf"ratelimitctl: migrate: mysql:.*: {closed}: .*refused; 127\.0\.0\.1:1: .*refused", line)


def test_only_a_mysql_table_is_migrated(tmp_path: Path) -> None:
    file = tmp_path / "ratelimitd.toml"
    file.write_text(f'{LIMIT}[store]\nbackend = "sqlite"\n')
    line = LIMIT.count("\n") + 2
    with pytest.raises(StartError, match=rf'toml:{line}: store\.backend: found "sqlite"; allowed: "mysql" \(in other'):
        migrate(config.read(file), print)
    with pytest.raises(StartError, match=r'found "sqlite"; allowed: "mysql" \(the Perl daemon knows no other\)'):
        migrate(config.read(file), print, back=True)


def account(number: int, sender: str, *, persist: int = 0, quota: int = 10, used: int = 0, expiry: int = 0) -> OldRow:
    return OldRow(number, "daily", sender, persist, quota, quota, used, expiry)


def test_a_merged_row_counts_only_what_is_not_over() -> None:
    rows = [
        account(1, "A", used=1, expiry=50),
        account(2, "a", used=2, expiry=200),
        account(3, "Á", used=4, expiry=300),
    ]
    merged = merge(rows, "a", 100)
    assert (merged.id, merged.used, merged.expiry) == (2, 6, 300)


def test_a_merged_row_of_ended_ones_keeps_the_last_count() -> None:
    merged = merge([account(1, "A", used=1, expiry=50), account(2, "aa", used=2, expiry=60)], "a", 100)
    assert (merged.id, merged.sender, merged.used, merged.expiry) == (1, "a", 2, 60)


def test_unlimited_is_the_largest_quota() -> None:
    assert merge([account(1, "A", quota=0), account(2, "a", quota=99)], "a", 0).quota == 0
