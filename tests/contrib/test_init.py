"""The init script, driven by the real start-stop-daemon."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import require
from tests.daemon.client import PolicyClient
from tests.daemon.forked import PROGRAM
from tests.daemon.process import Ratelimitd, config

SCRIPT = Path(__file__).parents[2] / "contrib" / "init.d" / "ratelimitd"

Run = Callable[[str], "subprocess.CompletedProcess[str]"]


@pytest.fixture
def daemon(folder: Path) -> Ratelimitd:
    """A configuration; the daemon is the script's to start."""
    require("start-stop-daemon")
    return Ratelimitd(folder, config())


@pytest.fixture
def service(folder: Path, daemon: Ratelimitd) -> Iterator[Run]:
    """`service("start")`: the script with this verb."""
    values = {
        "DAEMON": PROGRAM,
        "CTL": PROGRAM.with_name("ratelimitctl"),
        "CONFIG": daemon.file,
        "PIDFILE": folder / "ratelimitd.pid",
        "FAILURE": folder / "ratelimitd.failure",
    }
    (folder / "default").write_text("".join(f"{name}='{value}'\n" for name, value in values.items()))

    def run(verb: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["/bin/sh", SCRIPT, verb],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=200,
            env={**os.environ, "DEFAULTS": str(folder / "default")},
        )

    yield run
    run("stop")


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def pid(folder: Path) -> int:
    return int((folder / "ratelimitd.pid").read_text())


@pytest.mark.real
def test_start_comes_back_when_the_daemon_answers_and_stop_when_its_counts_are_stored(
    folder: Path, daemon: Ratelimitd, service: Run
) -> None:
    assert service("status").returncode == 3
    done = service("start")
    assert done.returncode == 0, done.stdout
    with PolicyClient(daemon.port) as client:
        client.ask()
    first = pid(folder)
    assert "runs already" in service("start").stdout
    assert pid(folder) == first
    done = service("status")
    assert done.returncode == 0
    assert f"running (pid {first})" in done.stdout
    assert f"127.0.0.1:{daemon.port}\n" in done.stdout
    header, line, totals = done.stdout.splitlines()[-3:]  # as the Perl daemon's status had it
    assert header.split("\t:\t")[:4] == ["Key", "Limit", "Quota", "Used"]
    assert line.startswith("alice@example.com\t:\t")
    assert totals.startswith("Accounts: 1, Not stored: ")
    assert service("stop").returncode == 0
    assert daemon.used() == {"alice@example.com": 1}
    assert not (folder / "ratelimitd.pid").exists()
    assert service("status").returncode == 3
    assert service("stop").returncode == 0


@pytest.mark.real
def test_restart_and_reload(folder: Path, daemon: Ratelimitd, service: Run) -> None:
    assert service("try-restart").returncode == 0
    assert service("status").returncode == 3
    assert service("restart").returncode == 0
    first = pid(folder)
    assert service("reload").returncode == 0
    daemon.wait_for_log("log files are reopened")
    assert service("try-restart").returncode == 0
    assert pid(folder) != first


@pytest.mark.real
def test_a_pid_file_that_a_crash_has_left_names_nobody_else(folder: Path, daemon: Ratelimitd, service: Run) -> None:
    with subprocess.Popen(["sleep", "600"]) as other:
        try:
            for verb, status in (("status", 1), ("reload", 7), ("stop", 0), ("start", 0)):
                (folder / "ratelimitd.pid").write_text(f"{other.pid}\n")
                assert (verb, service(verb).returncode) == (verb, status)
            assert pid(folder) != other.pid
        finally:
            other.kill()
        assert other.wait() == -signal.SIGKILL  # no other signal was first


@pytest.mark.real
def test_a_broken_configuration_is_said_and_stops_nothing_that_runs(
    folder: Path, daemon: Ratelimitd, service: Run
) -> None:
    assert service("start").returncode == 0
    first = pid(folder)
    right = daemon.file.read_text()
    daemon.file.write_text(right + "nonsense = 1\n")
    for verb in ("restart", "reload", "try-restart"):
        done = service(verb)
        assert done.returncode == 6
        assert "nonsense" in done.stdout
    assert pid(folder) == first
    assert service("stop").returncode == 0
    done = service("start")
    assert (done.returncode, done.stdout.count("nonsense")) == (6, 1)
    assert not (folder / "ratelimitd.pid").exists()


@as_root
@pytest.mark.real
def test_a_start_as_root_comes_back_when_the_daemon_that_became_its_user_is_ready(
    folder: Path, daemon: Ratelimitd, service: Run
) -> None:
    daemon.file.write_text('user = "daemon"\n' + daemon.file.read_text())
    began = time.monotonic()
    done = service("start")
    assert (done.returncode, done.stdout) == (0, "Starting ratelimitd\n")
    assert time.monotonic() - began < 50  # start-stop-daemon gives up after 60 s
    assert Path(f"/proc/{pid(folder)}").owner() == "daemon"
    assert service("restart").returncode == 0


@pytest.mark.real
def test_a_start_that_fails_says_why_on_the_terminal_and_in_the_log(
    folder: Path, daemon: Ratelimitd, service: Run
) -> None:
    with socket.create_server(("127.0.0.1", daemon.port)):
        began = time.monotonic()
        done = service("start")
        assert done.returncode == 1
        assert time.monotonic() - began < 50  # it does not wait for start-stop-daemon to give up
        assert f"127.0.0.1:{daemon.port}: " in done.stdout
        assert done.stdout.count("\n") == 2  # with "Starting"
        (line,) = [line for line in daemon.log() if "ratelimitd cannot start" in line]
        assert f"127.0.0.1:{daemon.port}: " in line
    assert service("status").returncode == 3
    assert not (folder / "ratelimitd.failure").exists()
    assert service("start").returncode == 0


@pytest.mark.real
def test_a_restart_that_the_database_would_refuse_stops_nothing(folder: Path, daemon: Ratelimitd, service: Run) -> None:
    assert service("start").returncode == 0
    first = pid(folder)
    (folder / "other.sqlite3").write_text("no database")
    right = daemon.file.read_text()
    daemon.file.write_text(f'{right}[store]\npath = "{folder}/other.sqlite3"\n')
    for verb in ("restart", "try-restart"):
        done = service(verb)
        assert (done.returncode, "no SQLite database" in done.stdout) == (6, True)
    assert pid(folder) == first
    daemon.file.write_text(right)
    assert service("restart").returncode == 0
    assert pid(folder) != first


@pytest.mark.real
def test_the_pid_file_of_a_daemon_that_is_gone_is_seen_as_that(folder: Path, service: Run) -> None:
    (folder / "ratelimitd.pid").write_text("4194305\n")  # no process has it: over the kernel's largest
    assert service("status").returncode == 1
    assert service("start").returncode == 0


@pytest.mark.real
def test_a_daemon_that_has_ended_and_that_nobody_reaps_runs_no_more(
    folder: Path, daemon: Ratelimitd, service: Run
) -> None:
    """As in a container whose process 1 reaps nothing: once `stop` waited 35 s, and said nothing."""
    with subprocess.Popen([PROGRAM, "-c", daemon.file], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        (folder / "ratelimitd.pid").write_text(f"{child.pid}\n")
        daemon.wait_for_log("is ready")
        began = time.monotonic()
        assert service("stop").returncode == 0
        assert time.monotonic() - began < 25
        assert Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        (folder / "ratelimitd.pid").write_text(f"{child.pid}\n")
        assert service("status").returncode == 1
        assert "runs already" not in service("start").stdout
        assert pid(folder) != child.pid


@pytest.mark.real
def test_an_unknown_verb_says_which_there_are(service: Run) -> None:
    done = service("nonsense")
    assert done.returncode == 2
    assert "{start|stop|restart" in done.stdout
