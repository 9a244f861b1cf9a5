"""The database is replaced, removed or damaged while the daemon runs: memory wins over what is older there."""

import contextlib
import os
import shutil
import sqlite3
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from ratelimitd.core.rows import Account, Grant, Row
from ratelimitd.errors import StartError
from ratelimitd.stores import sqlite_runs
from ratelimitd.stores.file import DatabaseFile
from tests.durability.node import Node, make_limit

NOW = 1_900_000_000
FILE = "ratelimit.sqlite3"
REPLACED, LOST = "the database was replaced", "the store is unavailable"


class Clock:
    """A time that the test sets."""

    now = float(NOW)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    """It has stored 10 recipients of alice."""
    made = Node(tmp_path, [make_limit(quota=1000)], Clock())
    await made.start()
    await made.ask("alice", 10)
    assert await made.flush()
    yield made
    await made.stop()


def backup(node: Node) -> Path:
    """A copy of the database as it is now."""
    copy = node.folder / "backup"
    with (
        contextlib.closing(sqlite3.connect(node.folder / FILE)) as there,
        contextlib.closing(sqlite3.connect(copy)) as to,
    ):
        there.backup(to)
    return copy


def remove(node: Node) -> None:
    """As an administrator does who wants it new."""
    for name in (FILE, f"{FILE}-wal", f"{FILE}-shm"):
        (node.folder / name).unlink()


async def used(node: Node, key: str = "alice") -> int:
    return (await node.rows())["default", key].used


@pytest.mark.parametrize("pending", [0, 3])
@pytest.mark.parametrize("what", ["a backup", "a backup, and new charges before", "nothing", "the main file is gone"])
async def test_counts_are_put_into_the_file_that_stands_there_now(node: Node, what: str, pending: int) -> None:
    copy = backup(node)
    await node.ask("alice", 20)
    assert await node.flush()
    if "before" in what:
        await node.ask("bob", 5)
    if what == "nothing":
        remove(node)
    elif what == "the main file is gone":
        (node.folder / FILE).unlink()
    else:
        copy.replace(node.folder / FILE)
    if pending:
        await node.ask("alice", pending)
    assert await node.flush()
    assert await used(node) == 30 + pending
    assert "before" not in what or await used(node, "bob") == 5
    assert len(node.said(REPLACED)) == 1
    assert not node.said(LOST)
    await node.ask("alice", 1)
    assert await node.flush()
    assert await used(node) == 31 + pending
    assert len(node.said(REPLACED)) == 1
    with contextlib.closing(sqlite3.connect(node.folder / FILE)) as found:
        assert found.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_a_daemon_that_starts_again_afterwards_doubles_nothing(node: Node) -> None:
    copy = backup(node)
    await node.ask("alice", 20)
    assert await node.flush()
    copy.replace(node.folder / FILE)
    assert await node.flush()
    await node.ask("alice", 5)
    await node.crash()
    again = Node(node.folder, [make_limit(quota=1000)], Clock())
    await again.start()
    assert (await again.ask("alice", 1)).used == 36
    assert await again.flush()
    assert await used(again) == 36
    await again.stop()


async def test_a_file_that_is_replaced_between_the_look_and_the_commit_is_noticed(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = backup(node)
    await node.ask("alice", 20)
    recorded = sqlite_runs.recorded

    def replace(connection: sqlite3.Connection, sql: Callable[[str], str], run: str) -> int:
        monkeypatch.undo()
        copy.replace(node.folder / FILE)
        return recorded(connection, sql, run)

    monkeypatch.setattr(sqlite_runs, "recorded", replace)
    assert await node.flush()
    assert await used(node) == 30
    assert len(node.said(REPLACED)) == 1


async def test_an_older_use_in_the_same_window_never_lowers_and_a_higher_one_stays(node: Node) -> None:
    copy = backup(node)
    with contextlib.closing(sqlite3.connect(copy)) as connection, connection:
        connection.execute("UPDATE ratelimit SET used = 500")
    copy.replace(node.folder / FILE)
    await node.ask("alice", 2)
    assert await node.flush()
    assert await used(node) == 502
    assert (await node.ask("alice", 1)).used == 503


@pytest.mark.parametrize("persist", [False, True])
async def test_quotas_and_grants_in_memory_win(node: Node, persist: bool) -> None:
    copy = backup(node)
    expiry = (await node.rows())["default", "alice"].expiry
    await node.sync.edit(lambda store: store.grant(Grant("default", "alice", 50, 1000, persist, expiry), NOW))
    copy.replace(node.folder / FILE)
    assert await node.flush()
    row = (await node.rows())["default", "alice"]
    assert (row.quota_at(NOW, 1000), row.persist, row.used) == (50, persist, 10)
    assert (await node.ask("alice", 60)).reply.startswith(b"action=450")


async def test_a_quota_that_was_taken_back_does_not_return_with_the_backup(node: Node) -> None:
    expiry = (await node.rows())["default", "alice"].expiry
    await node.sync.edit(lambda store: store.grant(Grant("default", "alice", 5, 1000, True, expiry), NOW))
    copy = backup(node)
    await node.sync.edit(lambda store: store.grant(Grant("default", "alice", 1000, 1000, False, expiry), NOW))
    copy.replace(node.folder / FILE)
    assert await node.flush()
    row = (await node.rows())["default", "alice"]
    assert (row.quota_at(NOW, 1000), row.persist) == (1000, False)


async def test_accounts_that_are_not_in_memory_have_what_the_backup_has(node: Node) -> None:
    node.edit("INSERT INTO ratelimit (sender, limit_name, quota, persist) VALUES ('carol', 'default', 7, 1)")
    copy = backup(node)
    copy.replace(node.folder / FILE)
    assert await node.flush()
    assert (await node.rows())["default", "carol"].quota == 7
    assert (await node.ask("carol", 8)).reply.startswith(b"action=450")


async def test_what_an_outage_has_left_pending_is_added_once(node: Node) -> None:
    copy = backup(node)
    await node.ask("alice", 20)
    assert not await node.flush("after")  # it is stored, and nobody said so
    copy.replace(node.folder / FILE)
    await node.ask("alice", 3)
    assert await node.flush()
    assert await used(node) == 33


async def test_a_record_of_this_run_that_went_back_is_noticed(node: Node) -> None:
    """As where the file's content, or that of a server, is put back to an earlier state."""
    await node.ask("alice", 20)
    assert await node.flush()
    node.edit("UPDATE ratelimit SET used = 10")
    node.edit("UPDATE ratelimit_node SET segment = segment - 1")
    await node.ask("alice", 1)
    assert await node.flush()
    assert await used(node) == 31
    assert len(node.said(REPLACED)) == 1


async def test_a_file_that_is_no_database_is_left_alone_until_it_is_removed(node: Node) -> None:
    remove(node)
    (node.folder / FILE).write_bytes(b"no database " * 1000)
    await node.ask("alice", 20)
    for _ in range(3):
        assert not await node.flush()
    assert (node.folder / FILE).read_bytes() == b"no database " * 1000
    assert len(node.said(LOST)) == len(node.said(REPLACED)) == 1
    assert (await node.ask("alice", 1)).used == 31
    (node.folder / FILE).unlink()
    assert await node.flush()
    assert await used(node) == 31
    assert len(node.said(LOST)) == len(node.said(REPLACED)) == 1


def damaged(folder: Path, kind: str) -> bytes:
    """A file that is no database any more."""
    path = folder / FILE
    if kind == "another program's":
        path.write_bytes(b"%PDF-1.4 and so on\n" * 500)
    else:
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("CREATE TABLE ratelimit (sender)")
            connection.executemany("INSERT INTO ratelimit VALUES (?)", [(f"user{n}" * 20,) for n in range(2000)])
        content = bytearray(path.read_bytes())
        if kind == "cut":
            del content[len(content) // 2 :]
        else:
            content[8192:12288] = b"\xa5" * 4096
        path.write_bytes(content)
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["another program's", "cut", "overwritten"])
async def test_a_start_refuses_a_damaged_file_and_leaves_it_as_it_is(tmp_path: Path, kind: str) -> None:
    before = damaged(tmp_path, kind)
    node = Node(tmp_path, [make_limit()], Clock())
    with pytest.raises(StartError, match=f"store: {tmp_path}/{FILE}: damaged, or no SQLite database") as caught:
        await node.start()
    assert str(caught.value).isprintable()
    await node.store.close()
    assert (tmp_path / FILE).read_bytes() == before
    assert not [name for name in os.listdir(tmp_path) if name.startswith(f"{FILE}-")]


async def test_the_file_and_its_log_are_not_for_everybody(node: Node) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in node.folder.iterdir() if FILE in path.name}
    assert modes == {FILE: 0o640, f"{FILE}-wal": 0o640, f"{FILE}-shm": 0o640}


async def test_a_log_that_belongs_to_the_new_file_is_kept(node: Node) -> None:
    """Somebody who restores all three files has put back a database with changes in its log."""
    copy = node.folder / "whole"
    copy.mkdir()
    for name in (FILE, f"{FILE}-wal", f"{FILE}-shm"):
        shutil.copy(node.folder / name, copy / name)
    await node.ask("alice", 20)
    assert await node.flush()
    for name in (FILE, f"{FILE}-wal", f"{FILE}-shm"):
        os.replace(copy / name, node.folder / name)
    with contextlib.closing(DatabaseFile(node.folder / FILE).connect()) as connection:
        assert connection.execute("SELECT used FROM ratelimit").fetchall() == [(10,)]
    assert await node.flush()
    assert await used(node) == 30


# -- what is beside the file, and what is in it ------------------------------------------------------------------------


def cut(path: Path, size: int) -> None:
    os.truncate(path, size)


def remove_log(node: Node) -> None:
    (node.folder / f"{FILE}-wal").unlink()


def remove_index_of_log(node: Node) -> None:
    (node.folder / f"{FILE}-shm").unlink()


def replace_log(node: Node) -> None:
    """By an empty one."""
    remove_log(node)
    (node.folder / f"{FILE}-wal").touch()


def empty_log(node: Node) -> None:
    cut(node.folder / f"{FILE}-wal", 0)


def cut_log(node: Node) -> None:
    """In the middle of what is not in the file yet."""
    log = node.folder / f"{FILE}-wal"
    cut(log, log.stat().st_size // 2)


def empty_file(node: Node) -> None:
    cut(node.folder / FILE, 0)


def checkpoint(node: Node) -> None:
    with contextlib.closing(sqlite3.connect(node.folder / FILE)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def empty_file_with_all_in_it(node: Node) -> None:
    checkpoint(node)
    empty_file(node)


LOSSES = [remove_log, remove_index_of_log, replace_log, empty_log, cut_log, empty_file, empty_file_with_all_in_it]


@pytest.mark.parametrize("loss", LOSSES)
async def test_a_part_that_is_lost_under_the_daemon_is_put_back_before_a_kill(
    node: Node, loss: Callable[[Node], None], tmp_path: Path
) -> None:
    await node.ask("alice", 20)
    assert await node.flush()
    loss(node)
    await node.ask("alice", 3)
    assert await node.flush()
    assert len(node.said(REPLACED)) == 1
    assert not node.said(LOST)
    await node.ask("alice", 4)
    assert await node.flush()
    assert len(node.said(REPLACED)) == 1
    assert counts_after_a_kill(node, tmp_path / "killed") == {"alice": 37}


def counts_after_a_kill(node: Node, folder: Path) -> dict[str, int]:
    """What a process finds in the files as they are while the daemon has them open."""
    folder.mkdir()
    for name in (FILE, f"{FILE}-wal"):
        shutil.copy(node.folder / name, folder / name)
    with contextlib.closing(sqlite3.connect(folder / FILE)) as connection:
        return dict(connection.execute("SELECT sender, used FROM ratelimit"))


async def test_a_log_that_was_removed_costs_no_account_that_is_not_in_memory(node: Node) -> None:
    """What is in the open log goes into the file as it is closed."""
    await node.sync.edit(lambda store: store.grant(Grant("default", "carol", 7, 1000, True, NOW + 9), NOW))
    node.policy.meters[0].counters.pop("carol", None)
    remove_log(node)
    assert await node.flush()
    row = (await node.rows())["default", "carol"]
    assert (row.quota, row.persist) == (7, True)


async def test_a_file_that_is_cut_in_the_middle_is_left_alone_until_it_is_removed(node: Node) -> None:
    for n in range(300):
        await node.ask(f"{n:0100}", 1)
    assert await node.flush()
    checkpoint(node)
    path = node.folder / FILE
    cut(path, path.stat().st_size // 2)
    before = path.read_bytes()
    await node.ask("alice", 3)
    for _ in range(2):
        assert not await node.flush()
    assert len(node.said(REPLACED)) == len(node.said(LOST)) == 1
    assert path.read_bytes() == before
    path.unlink()
    assert await node.flush()
    assert await used(node) == 13
    assert len(await node.rows()) == 301


@pytest.mark.parametrize("pragma", ["VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)", "PRAGMA incremental_vacuum"])
async def test_what_makes_the_file_shorter_in_order_replaces_nothing(node: Node, pragma: str) -> None:
    for n in range(2000):
        await node.ask(f"{n:0100}", 1)
    assert await node.flush()
    node.edit("DELETE FROM ratelimit WHERE sender <> 'alice'")
    checkpoint(node)
    assert await node.flush()
    before = (node.folder / FILE).stat().st_size
    node.maintain(pragma)
    checkpoint(node)
    assert pragma != "VACUUM" or (node.folder / FILE).stat().st_size < before
    for expected in (13, 16):
        await node.ask("alice", 3)
        assert await node.flush()
        assert await used(node) == expected
    assert not node.said(REPLACED)


DROPS = [
    ["DROP TABLE ratelimit"],
    ["DROP TABLE ratelimit_node"],
    ["DROP TABLE ratelimit", "DROP TABLE ratelimit_node", "DROP VIEW view_ratelimit"],
    ["ALTER TABLE ratelimit RENAME TO kept"],
    *(
        ["DROP TRIGGER ratelimit_touched", "DROP VIEW view_ratelimit", f"ALTER TABLE ratelimit DROP COLUMN {column}"]
        for column in ("used", "quota", "configured", "seen", "persist", "expiry")
    ),
    ["DROP VIEW view_ratelimit", "ALTER TABLE ratelimit RENAME used TO spent"],
]


@pytest.mark.parametrize("statements", DROPS, ids=lambda statements: statements[-1])
@pytest.mark.parametrize("pending", [0, 3])
async def test_a_table_or_a_column_that_is_dropped_is_made_again_and_filled(
    node: Node, statements: list[str], pending: int
) -> None:
    expiry = (await node.rows())["default", "alice"].expiry
    await node.sync.edit(lambda store: store.grant(Grant("default", "alice", 50, 1000, True, expiry), NOW))
    for statement in statements:
        node.maintain(statement)
    if pending:
        await node.ask("alice", pending)
    assert await node.flush()
    row = (await node.rows())["default", "alice"]
    assert (row.used, row.quota, row.persist) == (10 + pending, 50, True)
    assert len(node.said(REPLACED)) == 1
    assert not node.said(LOST)
    await node.ask("alice", 1)
    assert await node.flush()
    assert await used(node) == 11 + pending
    assert len(node.said(REPLACED)) == 1


async def test_a_column_of_quotas_that_is_made_again_makes_nobody_unlimited(node: Node) -> None:
    """Nor where the account is not in memory."""
    node.policy.meters[0].counters.pop("alice")
    for statement in DROPS[5]:
        node.maintain(statement)
    await node.ask("bob", 1)
    assert await node.flush()
    row = (await node.rows())["default", "alice"]
    assert (row.quota_at(NOW, 1000), row.persist) == (1000, False)


async def test_the_time_of_changes_is_kept_in_a_table_that_is_made_again(node: Node) -> None:
    """The trigger and the index had gone with the table that was renamed."""
    node.maintain("ALTER TABLE ratelimit RENAME TO kept")
    assert await node.flush()
    found = "SELECT count(*) FROM sqlite_master WHERE name IN ('ratelimit_touched', 'ratelimit_updated')"
    with contextlib.closing(sqlite3.connect(node.folder / FILE)) as connection:
        assert connection.execute(f"{found} AND tbl_name = 'ratelimit'").fetchall() == [(2,)]
        assert connection.execute("SELECT used FROM kept").fetchall() == [(10,)]


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE INDEX mine ON ratelimit (quota)",
        "CREATE TABLE mine (a)",
        "ALTER TABLE ratelimit ADD COLUMN note TEXT",
        "DROP VIEW view_ratelimit",
        "CREATE VIEW mine AS SELECT sender FROM ratelimit",
    ],
)
async def test_what_else_somebody_does_to_the_tables_replaces_nothing(node: Node, statement: str) -> None:
    node.maintain(statement)
    node.edit("UPDATE ratelimit SET used = 4")
    await node.ask("alice", 3)
    assert await node.flush()
    assert await used(node) == 7
    assert not node.said(REPLACED)


async def test_a_start_says_which_column_cannot_be_made_again(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as connection, connection:
        connection.execute("CREATE TABLE ratelimit (id INTEGER PRIMARY KEY, limit_name TEXT, quota INTEGER)")
    node = Node(tmp_path, [make_limit()], Clock())
    with pytest.raises(StartError, match="the table ratelimit lacks the column sender, which cannot be added to it"):
        await node.start()
    await node.store.close()


# -- runs of long ago --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead_s", [0, 365 * 86_400])
async def test_a_start_under_a_clock_that_is_ahead_doubles_nothing(node: Node, ahead_s: int) -> None:
    """What the journal still holds is recorded as stored, however long ago that seems to be."""
    await node.ask("alice", 20)
    assert not await node.flush("after")
    await node.crash()
    node.edit("UPDATE ratelimit_node SET updated = datetime('now', ?)", f"-{ahead_s} seconds")
    again = Node(node.folder, [make_limit(quota=1000)], Clock())
    await again.start()
    assert (await again.ask("alice", 1)).used == 31
    assert await again.flush()
    assert await used(again) == 31
    await again.stop()


async def test_the_rows_of_lookups_agree_after_a_replacement(node: Node) -> None:
    copy = backup(node)
    copy.replace(node.folder / FILE)
    assert await node.flush()
    found: list[Row] = await node.store.lookup([Account("default", "alice")], 0)
    assert [row.used for row in found] == [10]
