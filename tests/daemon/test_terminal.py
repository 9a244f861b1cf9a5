"""What a person sees who starts the daemon in a terminal."""

import os
import pty
from pathlib import Path

import pytest

from tests.daemon.conftest import Start
from tests.instances.ports import free_port


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


def test_a_daemon_in_a_terminal_says_where_it_listens_and_how_to_wire_postfix(make: Start, folder: Path) -> None:
    port = free_port()
    daemon = make(
        server={"listen": [f"127.0.0.1:{port}", f"unix:{folder}/socket"]},
        limit=[{"name": "day", "quota": 5}, {"name": "pool", "key": "domain", "quota": 0, "period": "monthly"}],
    )
    master, slave = pty.openpty()
    try:
        daemon.start(stderr=slave)
    finally:
        os.close(slave)
    assert daemon.stop() == 0
    said = read_all(master)
    assert f"listening on  127.0.0.1:{port}\n" in said
    assert f"listening on  unix:{folder}/socket\n" in said
    assert f"store         sqlite:{daemon.database}\n" in said
    assert "limit         day: 5 daily per email\n" in said
    assert "limit         pool: unlimited monthly per domain\n" in said
    assert "smtpd_sender_restrictions = check_policy_service\n" in said
    assert f"{{ inet:127.0.0.1:{port}, timeout=10s, default_action=DUNNO }}\n" in said
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
    said = [line for line in read_all(master).splitlines() if "sasl_username=alice" in line]
    in_file = [line[25:] for line in daemon.log_file.read_text().splitlines() if "sasl_username=alice" in line]
    assert "\x1b" not in "".join(in_file)
    assert said == [in_file[0], begin + in_file[1] + end]
    assert in_file[1].endswith("curr_count=2/1, status=OVER_QUOTA")


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
