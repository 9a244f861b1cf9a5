"""What a person sees who starts the daemon in a terminal."""

import os
import pty
import socket
import subprocess
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from ratelimitd.daemon.banner import as_asked
from tests.daemon.conftest import Start
from tests.daemon.process import Ratelimitd
from tests.instances.ports import free_port
from tests.instances.waiting import wait_until


def read_all(terminal: int) -> str:
    """What was written to a pseudo-terminal whose other side is closed by now."""
    text = b""
    while True:
        try:
            data = os.read(terminal, 65536)
        except OSError:  # EIO: nobody has the other side
            break
        if not data:
            break
        text += data
    os.close(terminal)
    return text.decode().replace("\r\n", "\n")


def in_terminal(daemon: Ratelimitd, then: Callable[[str], None] = lambda said: None) -> str:
    """Run a daemon in a terminal: what it says. `then` has what is said up to its last line, while it runs."""
    master, slave = pty.openpty()
    try:
        daemon.start(stderr=slave)
        said = b""
        while b"Ctrl-C" not in said:
            said += os.read(master, 65536)
    finally:
        os.close(slave)
    then(said.decode().replace("\r\n", "\n"))
    assert daemon.stop() == 0
    return said.decode().replace("\r\n", "\n") + read_all(master)


def test_a_daemon_in_a_terminal_says_where_it_listens_and_how_to_wire_postfix(make: Start, folder: Path) -> None:
    port = free_port()
    daemon = make(
        server={"listen": [f"127.0.0.1:{port}", f"unix:{folder}/socket"]},
        limit=[{"name": "day", "quota": 5}, {"name": "pool", "key": "domain", "quota": 0, "period": "monthly"}],
    )
    said = in_terminal(daemon)
    assert f"listening on  127.0.0.1:{port}\n" in said
    assert f"listening on  unix:{folder}/socket\n" in said
    assert f"store         sqlite:{daemon.database}\n" in said
    assert "limit         day: 5 daily per email\n" in said
    assert "limit         pool: unlimited monthly per domain\n" in said
    wiring = f"check_policy_service {{ inet:127.0.0.1:{port}, timeout=10s, default_action=DUNNO }}"
    # Whole, and in the first column, for main.cf:
    assert f"\nsmtpd_sender_restrictions = reject_unlisted_recipient, {wiring}\n" in said
    assert "Ctrl-C" in said


@pytest.mark.parametrize(
    ("environment", "begin", "end"), [({"TERM": "xterm"}, "\x1b[33m", "\x1b[0m"), ({"NO_COLOR": "1"}, "", "")]
)
def test_a_line_that_is_over_quota_is_coloured_on_a_terminal_and_nowhere_else(
    make: Start, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], begin: str, end: str
) -> None:
    for name, value in ({"TERM": "xterm", "NO_COLOR": ""} | environment).items():
        monkeypatch.setenv(name, value)
    daemon = make(log={"stderr": True, "file": "the.log"}, limit=[{"quota": 1}])
    master, slave = pty.openpty()
    try:
        daemon.start(stderr=slave)
    finally:
        os.close(slave)
    with daemon.client() as client:
        for _ in range(2):
            client.ask("alice@example.com")
    assert daemon.stop() == 0
    said = [line for line in read_all(master).splitlines() if "client=client" in line]
    in_file = [line[25:] for line in daemon.log_file.read_text().splitlines() if "client=client" in line]
    assert "\x1b" not in "".join(in_file)
    assert said == [in_file[0], begin + in_file[1] + end]
    assert in_file[1].endswith("curr_count=2/1, status=OVER_QUOTA")


@pytest.mark.parametrize("log", [{}, {"stderr": True}, {"stderr": True, "level": "warning"}])
def test_a_daemon_in_a_terminal_says_once_that_it_is_ready(make: Start, log: dict[str, object]) -> None:
    assert in_terminal(make(log=log)).count("is ready") == 1


@pytest.mark.parametrize("kind", ["TCP", "unix"])
def test_what_is_to_be_pasted_from_the_terminal_works_as_it_is(make: Start, folder: Path, kind: str) -> None:
    listen = f"127.0.0.1:{free_port()}" if kind == "TCP" else f"unix:{folder}/so cket"
    ran: list[subprocess.CompletedProcess[str]] = []

    def paste(said: str) -> None:
        lines = [line for line in said.splitlines() if not line.startswith(" ") and "alice@example.com" in line]
        commands = [["bash", "-c", line] for line in lines]
        ran.extend(subprocess.run(command, capture_output=True, text=True, timeout=60) for command in commands)

    in_terminal(make(server={"listen": [listen]}), paste)
    asked, shown = ran
    assert (asked.returncode, asked.stdout, asked.stderr) == (0, "action=DUNNO\n", "")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert " 3 " in shown.stdout.splitlines()[1]


def test_no_path_leads_up_where_the_configuration_does(make: Start, folder: Path) -> None:
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "link").symlink_to(folder / "a" / "b", target_is_directory=True)
    daemon = make(state_dir=f"{folder}/link/../state")
    assert f"store         sqlite:{folder}/a/state/ratelimit.sqlite3\n" in in_terminal(daemon)
    assert (folder / "a" / "state" / "lock").exists()


def test_where_there_is_no_syslog_the_log_goes_to_stderr_and_says_so(make: Start, folder: Path) -> None:
    missing = folder / "no-syslog"
    daemon = make(log={"syslog": str(missing), "file": ""})
    daemon.start()
    with daemon.client() as client:
        client.ask(queue_id="Q")
        wait_until(lambda: "\nQ: client=" in daemon.output(), "the line on stderr")
        assert daemon.output().count(f"there is no {missing}, so the log goes to stderr") == 1
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as syslog:  # it comes late
            syslog.bind(str(missing))
            syslog.settimeout(1)
            found = b""
            while b"late@example.com" not in found:
                client.ask("late@example.com")
                with suppress(TimeoutError):
                    found = syslog.recv(65536)
            assert daemon.stop() == 0
    assert "has stopped" not in daemon.output()


def test_where_there_is_no_syslog_but_a_file_stderr_has_nothing(make: Start, folder: Path) -> None:
    daemon = make(log={"syslog": str(folder / "no-syslog")})
    daemon.start()
    assert daemon.stop() == 0
    assert daemon.output() == ""
    assert not any("there is no" in line for line in daemon.log())


def test_without_a_terminal_nothing_is_said_on_stderr(start: Start) -> None:
    daemon = start()
    assert daemon.stop() == 0
    assert daemon.output() == ""


def test_check_prints_what_is_in_force_and_starts_nothing(make: Start) -> None:
    daemon = make(store={"password": "very secret"})
    assert daemon.spawn("--check").wait() == 0
    said = daemon.output()
    assert f"listen = {daemon.listen}".replace("'", '"') in said
    assert "max_connections = 4096\n" in said
    assert "very secret" not in said
    assert not daemon.state.exists()


@pytest.mark.parametrize(
    ("listens", "asked"),
    [
        (
            "unix:/var/spool/postfix/private/ratelimitd",
            "unix:private/ratelimitd",
        ),  # in a chroot or not
        ("unix:/run/ratelimitd/socket", "unix:/run/ratelimitd/socket"),
        ("[::1]:10032", "inet:[::1]:10032"),
    ],
)
def test_a_socket_in_the_queue_is_named_as_a_chrooted_postfix_finds_it(listens: str, asked: str) -> None:
    assert as_asked(listens) == asked
