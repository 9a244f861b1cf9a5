"""What a service manager is told and gives, and the unit files."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ratelimitd.daemon import main
from ratelimitd.net import systemd
from tests.conftest import require
from tests.contrib.manager import Manager, activation
from tests.daemon.client import PolicyClient
from tests.daemon.forked import PROGRAM
from tests.daemon.process import Ratelimitd, config
from tests.instances.components import program
from tests.instances.ports import free_port
from tests.instances.waiting import wait_until

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "contrib" / "systemd"

Make = Callable[..., Ratelimitd]


@pytest.fixture
def make(folder: Path) -> Iterator[Make]:
    """`make(prefix, **tables)`: a daemon started by the words of `prefix`, killed at the test's end."""
    made: list[Ratelimitd] = []

    def one(prefix: list[str], **tables: Any) -> Ratelimitd:
        made.append(Ratelimitd(folder, config(**tables), prefix=prefix))
        return made[-1]

    yield one
    for daemon in made:
        daemon.kill()


@pytest.mark.real
def test_the_manager_is_told_of_readiness_reload_and_stop(folder: Path, make: Make) -> None:
    with Manager(folder) as manager:
        daemon = make(manager.environment)
        daemon.spawn()
        ready = manager.wait_for("READY")
        assert ready == {"READY": "1", "STATUS": f"deciding at 127.0.0.1:{daemon.port}"}
        with daemon.client() as client:  # it listens when it says so
            client.ask()
        daemon.signal(signal.SIGHUP)
        assert int(manager.wait_for("RELOADING")["MONOTONIC_USEC"]) > 0
        assert manager.hear()["READY"] == "1"
        daemon.signal(signal.SIGTERM)
        assert manager.hear() == {"STOPPING": "1"}
        assert daemon.process.wait() == 0


def stands_still(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.mark.real
def test_signs_of_life_come_within_the_watchdogs_time_and_end_when_the_loop_stands_still(
    folder: Path, make: Make
) -> None:
    with Manager(folder, watchdog_s=0.4) as manager:
        daemon = make(manager.environment)
        daemon.spawn()
        for _ in range(4):
            manager.wait_for("WATCHDOG")
        daemon.signal(signal.SIGSTOP)
        wait_until(lambda: stands_still(daemon.process.pid), "its standstill")
        manager.drain()
        with pytest.raises(TimeoutError):
            manager.hear(timeout_s=1.2)  # three times the watchdog's
        daemon.signal(signal.SIGCONT)
        manager.wait_for("WATCHDOG")


@pytest.mark.real
def test_without_a_watchdog_no_signs_of_life_are_sent(folder: Path, make: Make) -> None:
    with Manager(folder) as manager:
        daemon = make(manager.environment)
        daemon.start()
        daemon.stop()
        manager.wait_for("READY")
        assert manager.hear() == {"STOPPING": "1"}


@pytest.mark.real
def test_a_manager_that_is_gone_stops_nothing(folder: Path, make: Make) -> None:
    daemon = make(["env", f"NOTIFY_SOCKET={folder}/nobody", "WATCHDOG_USEC=1000000"])
    daemon.start()
    assert daemon.stop() == 0


@pytest.mark.real
def test_sockets_of_the_manager_take_the_place_of_server_listen_and_stay_its_own(folder: Path, make: Make) -> None:
    port, path = free_port(), folder / "policy"
    daemon = make(activation([port, path]))
    configured = daemon.port
    daemon.spawn()
    wait_until(path.exists, "the socket")
    for address in (port, path):
        with PolicyClient(address) as client:
            client.ask()
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", configured)):
        pass
    assert daemon.stop() == 0
    assert path.exists()  # the manager's
    assert daemon.used() == {"alice@example.com": 2}


@pytest.mark.real
def test_what_waits_at_the_managers_socket_before_the_daemon_is_ready_is_answered(folder: Path, make: Make) -> None:
    port = free_port()
    daemon = make(activation([port]))
    process = daemon.spawn()

    def connected() -> bool:
        process.check()
        try:
            PolicyClient(port).socket.close()
        except OSError:
            return False
        return True

    wait_until(connected, "the launcher's socket")
    with PolicyClient(port) as client:
        assert client.ask() == "DUNNO"


@pytest.mark.real
def test_a_descriptor_that_is_no_listener_is_one_clear_line(folder: Path, make: Make) -> None:
    daemon = make(activation([free_port()], listen=False))
    assert daemon.spawn().wait() == 2
    assert daemon.output() == (
        f"ratelimitd: {daemon.file}: socket activation: descriptor 3 is no listening stream socket (ListenStream=)\n"
    )


def test_descriptors_that_are_for_another_process_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for pid in (str(os.getpid() + 1), "", "x"):
        monkeypatch.setenv("LISTEN_PID", pid)
        monkeypatch.setenv("LISTEN_FDS", "1")
        assert systemd.take_sockets() == []
        assert "LISTEN_FDS" not in os.environ


def test_an_abstract_address_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"ratelimitd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        assert systemd.notify("READY=1", "STATUS=x")
        assert manager.recv(100) == b"READY=1\nSTATUS=x"


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"),
    [("", "", 0), ("3000000", "", 3), ("3000000", "ours", 3), ("3000000", "1", 0), ("x", "", 0)],
)
def test_the_watchdogs_time_counts_where_it_is_meant_for_us(
    monkeypatch: pytest.MonkeyPatch, usec: str, pid: str, seconds: float
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", pid.replace("ours", str(os.getpid())))
    assert systemd.watchdog_s() == seconds


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """The unit files, with programs that there are."""
    require("systemd")
    for name in ("ratelimitd.service", "ratelimitd.socket"):
        text = (UNITS / name).read_text().replace("/usr/local/bin/ratelimitd", str(PROGRAM))
        (tmp_path / name).write_text(text)
    return [tmp_path / "ratelimitd.service", tmp_path / "ratelimitd.socket"]


def analyze(*words: str | Path) -> str:
    done = subprocess.run(
        [program("systemd-analyze"), *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.real
def test_systemd_analyze_verify_has_nothing_to_say(units: list[Path]) -> None:
    assert analyze("verify", "--man=no", *units) == ""


@pytest.mark.real
def test_the_service_is_as_exposed_as_is_documented(units: list[Path]) -> None:
    text = analyze("security", "--offline=true", "--no-pager", units[0])
    found = re.search(r"Overall exposure level for ratelimitd.service: ([0-9.]+) OK", text)
    said = re.search(r"exposure level of ([0-9.]+)", (ROOT / "contrib" / "doc" / "operations.md").read_text())
    assert found is not None
    assert said is not None
    assert abs(float(found[1]) - float(said[1])) <= 0.3  # systemd's versions weigh a little differently


def test_what_may_be_over_soon_is_started_again_and_what_is_wrong_is_not() -> None:
    lines = (UNITS / "ratelimitd.service").read_text().splitlines()
    assert "Restart=on-failure" in lines
    (never,) = [line.partition("=")[2].split() for line in lines if line.startswith("RestartPreventExitStatus=")]
    assert never == [str(main.EXIT_WRONG)]
    assert main.EXIT_WRONG not in (main.EXIT_FAULT, main.EXIT_IN_USE)


def test_the_units_programs_are_those_that_are_installed() -> None:
    text = (UNITS / "ratelimitd.service").read_text()
    assert set(re.findall(r"/usr/local/bin/\w+", text)) == {"/usr/local/bin/ratelimitd"}
    assert sys.platform != "linux" or PROGRAM.exists()
