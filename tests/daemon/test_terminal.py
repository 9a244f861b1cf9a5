"""What a person sees who starts the daemon in a terminal."""

import os
import pty
from pathlib import Path

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
