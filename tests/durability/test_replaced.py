"""The database is replaced, removed or damaged while the daemon runs: memory wins over what is older there."""

import contextlib
import os
import shutil
import sqlite3
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ratelimitd.core.rows import Account, Grant, Row
from ratelimitd.errors import StartError
from ratelimitd.stores.file import DatabaseFile
from ratelimitd.stores.sqlite import SQLiteStore
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
    recorded = SQLiteStore._recorded

    def replace(self: SQLiteStore, connection: sqlite3.Connection, run: str) -> int:
        monkeypatch.undo()
        copy.replace(node.folder / FILE)
        return recorded(self, connection, run)

    monkeypatch.setattr(SQLiteStore, "_recorded", replace)
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
    file = DatabaseFile(node.folder / FILE)
    assert file.connect().execute("SELECT used FROM ratelimit").fetchall() == [(10,)]
    assert await node.flush()
    assert await used(node) == 30


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
    found: list[Row] = await node.store.lookup([Account("default", "alice")])
    assert [row.used for row in found] == [10]
