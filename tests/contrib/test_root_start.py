"""Started as root with `user` set: the user owns state_dir and may plant anything there; nothing of root's changes."""

import os
import pwd
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from ratelimitd.daemon import handover, start
from ratelimitd.daemon.privileges import Identity
from ratelimitd.errors import StartError
from ratelimitd.net.listeners import Listeners
from tests.contrib.test_privileges import make as make
from tests.daemon.forked import PROGRAM
from tests.daemon.process import Ratelimitd, config
from tests.instances.ports import free_port
from tests.instances.waiting import wait_until

USER = "daemon"  # there is one on every Unix
OWNER = pwd.getpwnam(USER)
IDENTITY = Identity(USER, OWNER.pw_uid, OWNER.pw_gid, [OWNER.pw_gid])
Make = Callable[..., Ratelimitd]
Plant = Callable[[Path, Path], None]
Snapshot = dict[str, tuple[int, int, int, bytes]]

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def precious(folder: Path) -> Path:
    """A folder of root's, with a file and a folder in it."""
    path = folder / "precious"
    (path / "inner").mkdir(parents=True)
    (path / "file").write_text("precious")
    (path / "inner" / "lock").write_text("precious")
    for file in path.rglob("*"):
        file.chmod(0o700 if file.is_dir() else 0o600)
    path.chmod(0o700)
    return path


@pytest.fixture
def users(folder: Path) -> Path:
    """A folder of the user's, beside state_dir."""
    return owned(folder / "users")


def owned(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    os.chown(path, OWNER.pw_uid, OWNER.pw_gid)
    return path


def snapshot(path: Path) -> Snapshot:
    """All that is in a folder: owner, group, mode, content."""
    found: Snapshot = {}
    for entry in (path, *path.rglob("*")):
        status = entry.lstat()
        content = entry.read_bytes() if entry.is_file() else b""
        found[str(entry)] = (status.st_uid, status.st_gid, status.st_mode, content)
    return found


def run(daemon: Ratelimitd) -> None:
    """Start, and wait until it is ready or has given up."""
    process = daemon.spawn()

    def over() -> bool:
        return not process.running() or any("is ready" in line for line in daemon.log())

    wait_until(over, "a start or its end", 60)
    daemon.kill()


def link(name: str, to: str) -> Plant:
    def plant(at: Path, precious: Path) -> None:
        (at / name).parent.mkdir(parents=True, exist_ok=True)
        (at / name).symlink_to(precious / to)

    return plant


def second_name(name: str) -> Plant:
    def plant(at: Path, precious: Path) -> None:
        os.link(precious / "file", at / name)

    return plant


NAMES = ["lock", "ratelimit.sqlite3", "ratelimit.sqlite3-wal", "notices.jsonl", ".notices.jsonl.new", "control.sock"]
PLANTED = {
    **{f"{name} is a link": link(name, "file") for name in NAMES},
    **{f"{name} is a link to nothing": link(name, "new") for name in NAMES},
    **{f"{name} is a hard link": second_name(name) for name in NAMES},
    "journal is a link": link("journal", "inner"),
    "a segment is a link": link("journal/1.segment", "file"),
}


@as_root
@pytest.mark.real
@pytest.mark.parametrize("kind", PLANTED)
def test_what_the_user_plants_in_state_dir_changes_nothing_of_roots(
    folder: Path, precious: Path, make: Make, kind: str
) -> None:
    daemon = make(user=USER)
    PLANTED[kind](owned(daemon.state), precious)
    before = snapshot(precious)
    run(daemon)
    assert snapshot(precious) == before


@as_root
@pytest.mark.real
@pytest.mark.parametrize("is_link", [True, False])
@pytest.mark.parametrize("setting", ["log", "pid", ".pid.new", "socket"])
def test_what_the_user_plants_in_a_folder_of_its_own_changes_nothing_of_roots(
    folder: Path, precious: Path, users: Path, make: Make, is_link: bool, setting: str
) -> None:
    plant = link(setting, "file") if is_link else second_name(setting)
    plant(users, precious)
    daemon = make(
        user=USER,
        pid_file=str(users / "pid"),
        server={"listen": [f"unix:{users}/socket"], "unix_group": "mail", "unix_mode": "0666"},
        log={"file": str(users / "log")},
    )
    before = snapshot(precious)
    run(daemon)
    assert snapshot(precious) == before


@as_root
@pytest.mark.real
@pytest.mark.parametrize("setting", ["log", "pid", "socket", "state"])
def test_a_folder_that_the_user_has_made_a_link_leads_root_nowhere(
    folder: Path, precious: Path, users: Path, make: Make, setting: str
) -> None:
    (users / "down").symlink_to(precious / "inner")
    os.chown(users / "down", OWNER.pw_uid, OWNER.pw_gid, follow_symlinks=False)
    at: dict[str, dict[str, Any]] = {
        "log": {"log": {"file": str(users / "down" / "log")}},
        "pid": {"pid_file": str(users / "down" / "pid")},
        "socket": {"server": {"listen": [f"unix:{users}/down/socket"], "unix_group": "mail"}},
        "state": {"state_dir": str(users / "down")},
    }
    daemon = make(user=USER, **at[setting])
    before = snapshot(precious)
    run(daemon)
    assert snapshot(precious) == before


@as_root
@pytest.mark.real
def test_a_folder_of_roots_that_is_not_ours_is_refused_and_stays_as_it_is(
    folder: Path, precious: Path, make: Make
) -> None:
    daemon = make(user=USER, state_dir=str(precious))
    before = snapshot(precious)
    for arguments in ([], ["--check"]):
        (folder / "output").write_text("")
        assert daemon.spawn(*arguments).wait() == 2
        assert f"state_dir: {precious} is root's" in daemon.output()
        assert f"chown {USER}" in daemon.output()
        assert daemon.output().count("\n") == 1
    assert snapshot(precious) == before


@as_root
@pytest.mark.parametrize("path", ["/", "/var/lib", "/var/lib/..", "/etc"])
def test_a_folder_of_the_system_is_never_given_away(path: str) -> None:
    before = os.stat(path)
    with pytest.raises(StartError, match="is root's, and not a folder of ratelimitd"):
        handover.give_state(Path(path), IDENTITY)
    assert (os.stat(path).st_uid, os.stat(path).st_mode) == (before.st_uid, before.st_mode)


@as_root
@pytest.mark.real
def test_a_root_s_folder_that_bears_our_name_or_is_missing_is_the_user_s_then(folder: Path, make: Make) -> None:
    for name in ("ratelimitd", "deep/er/state"):
        (folder / "ratelimitd").mkdir(exist_ok=True)
        daemon = make(user=USER, state_dir=name)
        daemon.start()
        assert daemon.stop() == 0
        assert {path.owner() for path in (daemon.state, *daemon.state.rglob("*"))} == {USER}
    assert (folder / "deep").owner() == "root"


CALLS = ("open", "stat", "fstat", "lstat", "mkdir", "chown", "fchown", "unlink", "rename", "readlink", "listdir")


class Swaps:
    """Before the nth system call, the folder `at` is replaced by a link to `to`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: Path, to: Path, before: int) -> None:
        self.left = before
        self.done = False
        for name in CALLS:
            monkeypatch.setattr(os, name, self._swapping(getattr(os, name), at, to))

    def _swapping(self, call: Callable[..., Any], at: Path, to: Path) -> Callable[..., Any]:
        def called(*args: Any, **named: Any) -> Any:
            self.left -= 1
            if self.left < 0 and not self.done:
                self.done = True
                at.rename(at.with_name("swapped"))
                at.symlink_to(to)
                os.lchown(at, OWNER.pw_uid, OWNER.pw_gid)
            return call(*args, **named)

        return called


@as_root
@pytest.mark.parametrize("what", ["state", "log", "pid", "socket"])
def test_a_folder_that_is_swapped_for_a_link_in_the_middle_leads_root_nowhere(
    folder: Path, precious: Path, what: str
) -> None:
    for name in ("lock", "log", "pid", "ratelimit.sqlite3"):
        (precious / name).write_text("precious")
    before = snapshot(precious)
    for calls in range(60):
        users = folder / f"users{calls}"
        at = owned(users / "at")
        if what != "state":  # whose parent is root's, or root leaves it to the user
            owned(users)
        for name in ("lock", "log"):  # of an earlier run as root
            (at / name).write_text("")
        with pytest.MonkeyPatch.context() as patch:
            swaps = Swaps(patch, at, precious, calls)
            with suppress(StartError):
                match what:
                    case "state":
                        handover.give_state(at, IDENTITY)
                    case "log":
                        handover.give_log(at / "log", IDENTITY)
                    case "pid":
                        start.write_pid_file(at / "pid")
                    case "socket":
                        listeners = Listeners("server.listen")
                        listeners.open([f"unix:{at}/socket"], 0o666, "mail")
                        listeners.close()
        assert snapshot(precious) == before
        if not swaps.done:
            return
    raise AssertionError("there was always one more call")


@as_root
@pytest.mark.real
@pytest.mark.parametrize("verb", [("set", "a@example.com", "--quota", "1"), ("reset", "a@example.com"), ("status",)])
def test_ratelimitctl_as_root_follows_no_link_of_the_user_s(
    folder: Path, precious: Path, users: Path, make: Make, verb: tuple[str, ...]
) -> None:
    (users / "down").symlink_to(precious / "inner")
    os.chown(users / "down", OWNER.pw_uid, OWNER.pw_gid, follow_symlinks=False)
    daemon = make(user=USER, state_dir=str(users / "down"))
    before = snapshot(precious)
    program = PROGRAM.with_name("ratelimitctl")
    ran = subprocess.run([program, "-c", daemon.file, *verb], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr.count("\n")) == (3, 1)
    assert "symbolic link" in ran.stderr
    assert snapshot(precious) == before


@as_root
@pytest.mark.real
def test_ratelimitctl_as_root_says_nothing_to_a_socket_that_the_user_has_linked_to(
    folder: Path, precious: Path, make: Make
) -> None:
    daemon = make(user=USER)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(precious / "socket"))
        other.listen()
        (owned(daemon.state) / "control.sock").symlink_to(precious / "socket")
        ran = subprocess.run([PROGRAM.with_name("ratelimitctl"), "-c", daemon.file, "reload"], capture_output=True)
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.accept()
    assert (ran.returncode, ran.stderr.count(b"\n")) == (3, 1)


@as_root
@pytest.mark.real
def test_a_second_daemon_leaves_the_first_one_s_pid_file_and_sockets(folder: Path, make: Make) -> None:
    (private := folder / "private").mkdir(mode=0o700)
    tables = {"user": USER, "pid_file": str(folder / "pid"), "server": {"listen": [f"unix:{private}/policy"]}}
    first = make(**tables)
    first.start()
    before = snapshot(private)
    assert make(**tables).spawn().wait() == 75
    assert (folder / "pid").read_text() == f"{first.process.pid}\n"
    assert snapshot(private) == before
    with first.client() as client:
        client.ask()
    assert first.stop() == 0


WATCHING = """
import sys
from ratelimitd.daemon import late, main, privileges

late.readable = lambda: False  # as where Python is in root's home
become, known = privileges.become, set()

def watched(identity):
    become(identity)
    known.update(sys.modules)

privileges.become = watched
sys.argv[1:2] = []
status = main.main()
print("imported late:", sorted(set(sys.modules) - known))
sys.exit(status)
"""


@as_root
@pytest.mark.real
def test_nothing_is_imported_once_the_daemon_is_the_user_who_may_not_be_able_to_read_it(folder: Path) -> None:
    notify = [{"url": "http://localhost:1/", "retries": 0, "at": [100]}, {"command": ["true"], "at": [100]}]
    metrics = {"listen": f"127.0.0.1:{(port := free_port())}"}
    text = config(user=USER, limit=[{"quota": 1}], notify=notify, metrics=metrics)
    daemon = Ratelimitd(folder, text, prefix=[sys.executable, "-c", WATCHING])
    try:
        daemon.start()
        with daemon.client() as client:
            client.ask()
        daemon.wait_for_log("a notice cannot be delivered")
        with urlopen(f"http://127.0.0.1:{port}/metrics") as page:
            page.read()
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_log("the configuration is reloaded")
        assert daemon.stop() == 0
    finally:
        daemon.kill()
    assert daemon.output() == "imported late: []\n"


@as_root
def test_a_socket_has_its_final_mode_and_group_from_the_start(folder: Path) -> None:
    (folder / "private").mkdir(mode=0o700)
    path = folder / "private" / "policy"
    os.umask(umask := os.umask(0o077))
    listeners = Listeners("server.listen")
    listeners.open([f"unix:{path}"], 0o666, "mail")
    assert listeners.addresses == [f"unix:{path}"]
    assert (stat.S_IMODE(path.stat().st_mode), path.group()) == (0o666, "mail")
    assert (os.getegid(), os.umask(umask)) == (0, umask)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    listeners.close()
    assert not path.exists()
