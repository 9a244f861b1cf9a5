"""ratelimitctl while no daemon runs, and where it may not ask."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ratelimitd.control.commands import Refused, Reset, Status
from ratelimitd.ctl import main as ctl
from ratelimitd.ctl.client import ask
from tests.control.conftest import Ctl, Start
from tests.daemon.process import Ratelimitd, changed
from tests.instances.waiting import wait_until

ALICE = "alice@example.com"
NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def stopped(start: Start) -> Ratelimitd:
    """A daemon that has ended well; alice has sent 3 of 10."""
    daemon = start(limit=[{"quota": 10}])
    send(daemon, 3)
    daemon.stop()
    return daemon


def send(daemon: Ratelimitd, times: int) -> list[str]:
    with daemon.client() as client:
        return [client.ask(ALICE) for _ in range(times)]


def used(ran_limits: list[dict[str, object]]) -> list[object]:
    return [view["used"] for view in ran_limits]


def test_status_is_3_and_says_what_is_there(stopped: Ratelimitd, ctl_of: Ctl) -> None:
    ran = ctl_of(stopped, "status")
    assert ran.status == 3
    assert "is not running" in ran.out
    assert "ratelimit.sqlite3, up" in ran.out
    assert ctl_of(stopped, "status", "--json").json["running"] is False


def test_show_set_and_reset_work_on_the_store(stopped: Ratelimitd, ctl_of: Ctl) -> None:
    shown = ctl_of(stopped, "show", ALICE, "--json")
    assert (shown.status, used(shown.json["limits"])) == (0, [3])
    assert ctl_of(stopped, "set", ALICE, "--quota", "4").status == 0
    assert ctl_of(stopped, "reset", ALICE).status == 0
    assert [(row.used, row.quota) for row in stopped.rows()] == [(0, 4)]
    stopped.start()
    assert [reply[:3] for reply in send(stopped, 5)] == ["DUN"] * 4 + ["450"]


def test_what_a_killed_daemon_left_in_its_journal_counts(start: Start, ctl_of: Ctl) -> None:
    daemon = start(limit=[{"quota": 10}], store={"flush_interval_s": 3600})
    send(daemon, 4)
    daemon.kill()
    left = ctl_of(daemon, "status", "--json").json
    assert left["not_stored"] == {"accounts": 1, "recipients": 4}
    assert used(ctl_of(daemon, "show", ALICE, "--json").json["limits"]) == [4]
    daemon.start()
    assert used(ctl_of(daemon, "show", ALICE, "--json").json["limits"]) == [4]
    send(daemon, 2)
    daemon.kill()
    assert ctl_of(daemon, "reset", ALICE).status == 0
    daemon.start()
    assert used(ctl_of(daemon, "show", ALICE, "--json").json["limits"]) == [0]


@pytest.mark.parametrize("verb", [("dump",), ("dump", "-"), ("top",)])
def test_what_only_a_daemon_can_do_is_3(stopped: Ratelimitd, ctl_of: Ctl, verb: tuple[str, ...]) -> None:
    ran = ctl_of(stopped, *verb)
    assert (ran.status, ran.out, ran.err.count("\n")) == (3, "", 1)


def test_where_no_daemon_has_ever_run_nothing_is_made(stopped: Ratelimitd, ctl_of: Ctl) -> None:
    shutil.rmtree(stopped.state)
    for arguments in (("status",), ("show", ALICE), ("set", ALICE, "--quota", "1"), ("reset", ALICE)):
        assert ctl_of(stopped, *arguments).status == 3
    assert not stopped.state.exists()


def test_a_daemon_that_holds_the_state_but_does_not_answer_is_said(start: Start, ctl_of: Ctl) -> None:
    daemon = start()
    (daemon.state / "control.sock").unlink()
    ran = ctl_of(daemon, "reset", ALICE)
    assert (ran.status, f"(pid {daemon.process.pid})" in ran.err) == (3, True)


def files(daemon: Ratelimitd) -> dict[str, bytes]:
    """What is in state_dir; the index of SQLite's log is no content."""
    return {
        str(path): b"" if path.is_dir() or path.name.endswith("-shm") else path.read_bytes()
        for path in daemon.state.rglob("*")
        if not path.is_socket()
    }


@pytest.mark.parametrize("end", ["stop", "kill"])
@pytest.mark.parametrize("arguments", [("status",), ("show", ALICE), ("history", ALICE), ("report",)])
def test_who_only_looks_locks_creates_and_changes_nothing(
    start: Start, ctl_of: Ctl, arguments: tuple[str, ...], end: str
) -> None:
    daemon = start(store={"flush_interval_s": 3600, "history_days": 30})
    send(daemon, 4)
    getattr(daemon, end)()
    (daemon.state / "journal" / ".7.new").write_text("of a rewrite that was killed")
    with locked(daemon, "4711"):
        before = files(daemon)
        ran = ctl_of(daemon, *arguments, "--json")
        assert files(daemon) == before
    assert ran.status == (3 if arguments == ("status",) else 0)
    if arguments in (("show", ALICE), ("history", ALICE)):
        assert used(ran.json["limits"]) == [4]


def test_a_look_needs_no_database_and_no_journal_and_makes_none(stopped: Ratelimitd, ctl_of: Ctl) -> None:
    stopped.database.unlink()
    shutil.rmtree(stopped.state / "journal")
    before = files(stopped)
    assert ctl_of(stopped, "status").status == 3
    assert ctl_of(stopped, "show", ALICE).status == 1
    assert files(stopped) == before


@contextmanager
def locked(daemon: Ratelimitd, holder: str) -> Iterator[None]:
    """The state directory in use by somebody."""
    with (daemon.state / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(f"{holder}\n")
        lock.flush()
        yield


def test_a_daemon_waits_for_ratelimitctl_to_end_and_says_so(stopped: Ratelimitd) -> None:
    with locked(stopped, "ratelimitctl 4711"):
        stopped.spawn()
        wait_until(lambda: "waiting" in stopped.output(), "a daemon that waits")
        assert stopped.process.running()
    wait_until(lambda: len([line for line in stopped.log() if "is ready" in line]) == 2, "the start")
    assert stopped.output().count("in use by ratelimitctl (pid 4711); waiting for it") == 1
    assert stopped.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_daemon_that_waits_can_be_stopped(stopped: Ratelimitd, number: signal.Signals) -> None:
    with locked(stopped, "ratelimitctl 4711"):
        stopped.spawn()
        wait_until(lambda: "waiting" in stopped.output(), "a daemon that waits")
        assert stopped.stop(number) in (0, -signal.SIGTERM)
    assert stopped.output().count("\n") == 1


@pytest.mark.parametrize("holder", ["ratelimitctl 4711", "4711"])
def test_a_state_dir_that_stays_in_use_is_an_exit_status_of_its_own(stopped: Ratelimitd, holder: str) -> None:
    impatient = changed("from ratelimitd.daemon import start; start.WAIT_S = 1.0")
    daemon = Ratelimitd(stopped.folder, stopped.file.read_text(), prefix=impatient)
    with locked(daemon, holder):
        assert daemon.spawn().wait() == 75
    assert daemon.output().splitlines()[-1].endswith("(pid 4711)")


def test_a_change_that_finds_another_under_way_is_refused_in_one_line(stopped: Ratelimitd, ctl_of: Ctl) -> None:
    with locked(stopped, "ratelimitctl 4711"):
        ran = ctl_of(stopped, "reset", ALICE)
    assert (ran.status, ran.err.count("\n")) == (3, 1)
    assert "in use by ratelimitctl (pid 4711)" in ran.err


@contextmanager
def as_user(uid: int) -> Iterator[None]:
    """Be another user for a moment; SO_PEERCRED tells of the effective one."""
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


@as_root
def test_a_stranger_may_not_ask_whatever_the_files_mode(start: Start) -> None:
    daemon = start()
    daemon.state.chmod(0o755)
    path = daemon.state / "control.sock"
    with as_user(NOBODY), pytest.raises(Refused, match="permission denied; ask as root"):
        ask(path, Status())
    path.chmod(0o666)
    with as_user(NOBODY), pytest.raises(Refused, match="only root and the daemon's own user may ask"):
        ask(path, Reset(ALICE))
    daemon.wait_for_log(f"refused a command on the control socket: uid={NOBODY}")


@as_root
def test_a_mode_that_lets_others_in_lets_them_ask(start: Start) -> None:
    daemon = start(control={"mode": "0666"})
    daemon.state.chmod(0o755)
    with as_user(NOBODY):
        assert ask(daemon.state / "control.sock", Status()).pid == daemon.process.pid


@as_root
def test_root_leaves_no_file_that_the_daemons_user_cannot_write(start: Start) -> None:
    daemon = start()
    send(daemon, 1)
    daemon.kill()
    for path in (daemon.state, *daemon.state.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    # Python itself need not be readable by that user: what it would import late is imported first.
    program = (
        "import sys, encodings.ascii, encodings.idna, importlib.readers, importlib.resources.readers\n"
        "from ratelimitd.ctl.main import main; sys.exit(main())"
    )
    arguments = ["-c", str(daemon.file), "set", ALICE, "--quota", "9"]
    ran = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)
    assert (ran.returncode, "Traceback" in ran.stderr) == (0, False)
    assert {path.stat().st_uid for path in daemon.state.rglob("*")} == {NOBODY}
    assert [(row.used, row.quota) for row in daemon.rows()] == [(1, 9)]


@pytest.mark.parametrize("place", ["before", "after"])
def test_the_configuration_is_named_before_or_after_the_verb(
    stopped: Ratelimitd, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    config = ["-c", str(stopped.file)]
    arguments = [*config, "show", ALICE] if place == "before" else ["show", ALICE, *config]
    assert ctl.main(arguments) == 0
    assert ALICE in capsys.readouterr().out
