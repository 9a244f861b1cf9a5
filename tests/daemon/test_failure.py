"""A start that fails says why: on stderr, in the log, and in the file that an init script names."""

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.daemon.process import Ratelimitd, config

USER = "daemon"  # there is one on every Unix


@pytest.fixture
def syslog(folder: Path) -> Iterator[socket.socket]:
    """The socket of a syslog, at `syslog` in the folder."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(folder / "syslog"))
        (folder / "syslog").chmod(0o666)
        listener.setblocking(False)
        yield listener


def heard(syslog: socket.socket) -> list[str]:
    """What syslog was told so far."""
    lines: list[str] = []
    with suppress(BlockingIOError):
        while True:
            lines.append(syslog.recv(9999).decode())
    return lines


def taken(folder: Path, **tables: object) -> tuple[Ratelimitd, socket.socket]:
    """A daemon whose address is in use."""
    daemon = Ratelimitd(folder, config(**tables))
    return daemon, socket.create_server(("127.0.0.1", daemon.port))


def test_it_is_in_the_log_and_in_the_file(folder: Path, syslog: socket.socket) -> None:
    daemon, taker = taken(folder, log={"syslog": f"{folder}/syslog"})
    with taker:
        assert daemon.spawn("--failure-file", str(folder / "failure")).wait() == 75
    assert daemon.output() == (folder / "failure").read_text()
    assert f": server.listen: 127.0.0.1:{daemon.port}: already in use" in daemon.output()
    why = daemon.output().removeprefix("ratelimitd: ").rstrip("\n")
    (line,) = [line for line in daemon.log() if "cannot start" in line]
    assert line == f"ratelimitd cannot start: reason={why}"
    assert any(said.endswith(f": {line}") for said in heard(syslog))


def test_a_configuration_that_is_wrong_is_in_the_file(folder: Path) -> None:
    daemon = Ratelimitd(folder, config() + "[nonsense]\n")
    (folder / "failure").write_text("of an earlier start")
    assert daemon.spawn("--failure-file", str(folder / "failure")).wait() == 2
    assert daemon.output() == (folder / "failure").read_text()
    assert "nonsense" in daemon.output()


def test_a_start_that_does_not_fail_leaves_the_file_empty(folder: Path) -> None:
    daemon = Ratelimitd(folder, config())
    daemon.spawn("--failure-file", str(folder / "failure"))
    daemon.wait_for_log("is ready")
    assert daemon.stop() == 0
    assert (folder / "failure").read_text() == ""


def test_a_file_that_cannot_be_written_is_said(folder: Path) -> None:
    daemon = Ratelimitd(folder, config())
    assert daemon.spawn("--failure-file", str(folder / "none" / "failure")).wait() == 2
    assert daemon.output() == f"ratelimitd: --failure-file: {folder}/none/failure: No such file or directory\n"


@pytest.mark.parametrize("kind", ["pipe", "link", "other name", "folder"])
def test_what_somebody_else_has_placed_there_is_neither_waited_for_nor_written(folder: Path, kind: str) -> None:
    file, other = folder / "failure", folder / "precious"
    other.write_text("kept")
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "link":
        file.symlink_to(other)
    elif kind == "other name":
        file.hardlink_to(other)
    else:
        file.mkdir()
    daemon = Ratelimitd(folder, config())
    assert daemon.spawn("--failure-file", str(file)).wait(60) == 2
    assert daemon.output().startswith(f"ratelimitd: --failure-file: {file}: ")
    assert other.read_text() == "kept"


def test_syslog_is_spared_where_systemd_takes_stderr_to_the_same_journal(
    folder: Path, syslog: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon, taker = taken(folder, log={"syslog": f"{folder}/syslog", "file": ""})
    (folder / "output").write_text("")
    output = (folder / "output").stat()
    with taker:
        monkeypatch.setenv("JOURNAL_STREAM", f"{output.st_dev}:{output.st_ino}")
        assert daemon.spawn().wait() == 75
        assert not any("cannot start" in line for line in heard(syslog))
        monkeypatch.setenv("JOURNAL_STREAM", "1:1")
        assert daemon.spawn().wait() == 75
        assert any("cannot start" in line for line in heard(syslog))


def test_a_log_that_is_what_is_wrong_leaves_syslog(folder: Path, syslog: socket.socket) -> None:
    daemon = Ratelimitd(folder, config(log={"syslog": f"{folder}/syslog", "file": "none/log"}))
    assert daemon.spawn().wait() == 2
    assert any("cannot start" in line and "log.file: " in line for line in heard(syslog))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_writes_it_as_the_user_would(folder: Path) -> None:
    daemon, taker = taken(folder, user=USER, state_dir="ratelimitd", server={"listen": ["127.0.0.1:1"]})
    with taker:
        assert daemon.spawn().wait() == 75
    assert "cannot start" in daemon.log()[0]
    assert daemon.log_file.owner() == USER
