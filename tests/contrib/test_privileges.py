"""Started as root: what is opened as root, what is handed over, and who the daemon is then."""

import os
import pwd
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ratelimitd.daemon import handover, privileges
from ratelimitd.daemon.privileges import Identity
from ratelimitd.errors import StartError
from tests.conftest import missing
from tests.daemon.client import PolicyClient
from tests.daemon.forked import PROGRAM
from tests.daemon.process import Ratelimitd, config
from tests.instances.ports import free_port

USER = "daemon"  # there is one on every Unix
Make = Callable[..., Ratelimitd]


@pytest.fixture
def make(folder: Path) -> Iterator[Make]:
    """`make(**tables)`: a daemon, not started; killed at the test's end."""
    if os.geteuid() != 0:
        missing("only root can become somebody else")
    made: list[Ratelimitd] = []

    def one(**tables: Any) -> Ratelimitd:
        made.append(Ratelimitd(folder, config(**tables)))
        return made[-1]

    yield one
    for daemon in made:
        daemon.kill()


def start(daemon: Ratelimitd, times: int = 1) -> None:
    """Start, and wait until its log says so many times that it is ready: it listens before."""
    daemon.start()
    daemon.wait_for_log("is ready", times)


def status(pid: int) -> dict[str, list[str]]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.split() for name, _, value in (line.partition(":") for line in lines)}


@pytest.mark.real
def test_the_daemon_is_the_user_for_good_and_goes_on_working_as_it(folder: Path, make: Make) -> None:
    private = folder / "private"
    private.mkdir(mode=0o700)
    path = private / "policy"
    listen = [f"unix:{path}", f"127.0.0.1:{free_port()}"]
    server = {"listen": listen, "unix_mode": "0660", "unix_group": "mail"}
    daemon = make(user=USER, server=server, pid_file="pid", store={"flush_interval_s": 0.1})
    user = pwd.getpwnam(USER)
    for _ in range(2):
        start(daemon)
        pid = int((folder / "pid").read_text())
        assert pid == daemon.process.pid
        now = status(pid)
        assert now["Uid"] == [str(user.pw_uid)] * 4
        assert now["Gid"] == [str(user.pw_gid)] * 4
        assert {int(gid) for gid in now["Groups"]} == set(os.getgrouplist(USER, user.pw_gid))
        assert int(now["CapEff"][0], 16) == int(now["CapPrm"][0], 16) == 0
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert path.group() == "mail"
        with PolicyClient(path) as client:
            client.ask()
        daemon.log_file.rename(folder / "log.1")
        daemon.log_file.touch()
        os.chown(daemon.log_file, user.pw_uid, user.pw_gid)  # as logrotate's `create`
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_log("log files are reopened")
        assert daemon.stop() == 0
        daemon.log_file.unlink()
        (folder / "log.1").unlink()
    assert daemon.used() == {"alice@example.com": 2}
    for owned in (daemon.state, *daemon.state.rglob("*")):
        assert owned.owner() == USER, owned


@pytest.mark.real
def test_a_state_directory_of_roots_run_is_handed_over(folder: Path, make: Make) -> None:
    daemon = make()
    daemon.start()
    with daemon.client() as client:
        client.ask()
    daemon.kill()
    daemon = make(user=USER, group="mail")
    start(daemon, 2)
    assert status(daemon.process.pid)["Gid"][0] == str(daemon.state.stat().st_gid)
    daemon.stop()
    assert daemon.used() == {"alice@example.com": 1}
    assert {path.owner() for path in daemon.state.rglob("*")} == {USER}


@pytest.mark.real
@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"user": "no-such-user"}, 'user: found "no-such-user"; allowed: a user of this system'),
        ({"user": USER, "group": "no-such-group"}, 'group: found "no-such-group"; allowed: a group of this system'),
        ({"group": "mail"}, 'group: found "mail" without user; allowed: user and group, or user alone'),
        ({"pid_file": "no/such/pid"}, "no/such/pid: No such file or directory"),
    ],
)
def test_who_cannot_be_become_is_one_line_that_names_the_setting(
    make: Make, settings: dict[str, str], line: str
) -> None:
    daemon = make(**settings)
    assert daemon.spawn().wait() == 2
    assert line in daemon.output()
    assert daemon.output().count("\n") == 1


@pytest.mark.real
def test_a_readable_configuration_with_a_password_is_warned_about(folder: Path, make: Make) -> None:
    daemon = make(store={"password": "sesame"})
    for mode, warned in ((0o644, 1), (0o640, 1)):  # once, of the first start
        daemon.file.chmod(mode)
        daemon.start()
        daemon.stop()
        assert sum("which has a password in it" in line for line in daemon.log()) == warned
    assert not any("sesame" in line for line in daemon.log())


@pytest.mark.real
def test_a_database_that_the_user_may_not_write_is_said_by_check_and_handed_over_by_a_start(make: Make) -> None:
    daemon = make(user=USER, store={"flush_interval_s": 0.1})
    start(daemon)
    daemon.stop()
    os.chown(daemon.database, 0, 0)
    daemon.database.chmod(0o644)
    command = [str(PROGRAM.with_name("ratelimitctl")), "-c", str(daemon.file), "check"]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 1
    statement = f"chown {pwd.getpwnam(USER).pw_uid} {daemon.database}"
    assert f"may not write the database, which an administrator must change: statement {statement}\n" in checked.stdout
    start(daemon, 2)  # which hands over what is root's
    daemon.stop()
    assert not [line for line in daemon.log() if "may not write" in line]
    assert subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.real
def test_the_pid_file_goes_with_the_daemon(folder: Path, make: Make) -> None:
    daemon = make(pid_file="pid")
    daemon.start()
    assert (folder / "pid").read_text() == f"{daemon.process.pid}\n"
    assert daemon.stop() == 0
    assert not (folder / "pid").exists()


def test_only_what_a_run_of_ours_made_is_given_away_and_no_link_and_no_file_with_a_second_name(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        missing("only root can give files away")
    state, elsewhere = tmp_path / "state", tmp_path / "elsewhere"
    (state / "journal" / "past").mkdir(parents=True)
    (state / "inner").mkdir()
    elsewhere.mkdir()
    files = {
        "lock",
        "journal/7.segment",
        "journal/past/6.segment",
        "ratelimit.sqlite3-wal",
        "counts.db",
        ".cache.dump.new",
    }
    for ours in files:
        (state / ours).touch()
    for other in ("file", "second", "folder"):
        (elsewhere / other).touch()
    (state / "notes").touch()
    (state / "inner" / "lock").touch()
    (state / "notices.jsonl").symlink_to(elsewhere / "file")
    os.link(elsewhere / "second", state / "rejected.tsv")
    user = pwd.getpwnam(USER)
    handover.give_state(state, Identity(USER, user.pw_uid, user.pw_gid, []), ["counts.db"])
    given = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.lstat().st_uid == user.pw_uid}
    assert given == {"state", *(f"state/{name}" for name in {*files, "journal", "journal/past"})}


def test_who_is_not_root_becomes_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    user = pwd.getpwnam(USER)
    monkeypatch.setattr(os, "geteuid", lambda: user.pw_uid)
    assert privileges.find(USER, "") is None  # systemd's User= has done it
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    with pytest.raises(StartError, match=f"user: only root can become {USER}; this is uid 54321"):
        privileges.find(USER, "")
    assert privileges.find("", "") is None
