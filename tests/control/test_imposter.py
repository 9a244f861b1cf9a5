"""ratelimitctl where somebody else answers in the daemon's place, and with arguments that are no text."""

import os
import socket
import subprocess
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pytest

from ratelimitd.ctl import client
from tests.control.conftest import Ctl, Start
from tests.control.test_top import PROGRAM
from tests.daemon.process import Ratelimitd


@contextmanager
def answering(daemon: Ratelimitd, parts: Iterable[bytes]) -> Iterator[None]:
    """Somebody at the control socket of a daemon that does not run, who answers this."""
    daemon.state.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(daemon.state / "control.sock"))
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(9999)
                try:
                    for part in parts:
                        connection.sendall(part)
                except OSError:
                    pass  # it has hung up

        thread = threading.Thread(target=answer)
        thread.start()
        yield
        thread.join()


@pytest.mark.parametrize(
    ("verb", "line"),
    [
        ("dump", b'{"file":"\\u001b]0;owned\\u0007\\u001b[2J\\u202e"}'),
        ("reload", b'{"needs_start":["\\u001b[31mX\\u202e"]}'),
        (
            "top",
            b'{"time":1e300,"limits":[{"limit":"\\u001b[2J","period":"\\u202e","window":"fixed","accounts":[]}]}',
        ),
    ],
)
def test_no_answer_controls_the_terminal(make: Start, ctl_of: Ctl, verb: str, line: bytes) -> None:
    daemon = make()
    with answering(daemon, [line + b"\n"]):
        ran = ctl_of(daemon, verb)
    printed = ran.out + ran.err
    assert "\x1b" not in printed
    assert "\u202e" not in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize("line", [b'{"file":"' + b"x" * 64, b"[" * 64])
def test_an_answer_without_an_end_is_given_up(
    make: Start, ctl_of: Ctl, monkeypatch: pytest.MonkeyPatch, line: bytes
) -> None:
    monkeypatch.setattr(client, "MAX_ANSWER_BYTES", 100_000)
    daemon = make()
    with answering(daemon, (line for _ in range(10**9))):
        ran = ctl_of(daemon, "dump")
    assert ran.status == 1
    assert ran.err == "ratelimitctl: the answer is not understood: it has 100,000 bytes or more\n"


def test_an_answer_of_many_brackets_is_not_understood(make: Start, ctl_of: Ctl) -> None:
    daemon = make()
    with answering(daemon, [b"[" * 50_000 + b"\n"]):
        ran = ctl_of(daemon, "dump")
    assert ran.status == 1
    assert ran.err.startswith("ratelimitctl: the answer is not understood: ")


def test_an_argument_that_is_not_utf8_is_the_account_that_is_shown_so(start: Start) -> None:
    daemon = start()
    with daemon.client() as client:
        client.ask("a\udcff@example.com")
    ran = subprocess.run(
        [PROGRAM, "-c", daemon.file, "show", os.fsencode("a\udcff@example.com")],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (0, "")
    assert r"a\xff@example.com" in ran.stdout
