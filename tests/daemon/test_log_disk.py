"""The disk under the log file hangs, is slow or full: replies go on, and what the disk takes in time is not lost."""

import fcntl
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from ratelimitd.ctl import main as ctl
from ratelimitd.log import scribe
from ratelimitd.log.destinations import LateSyslog
from ratelimitd.log.scribe import SLOW_S, Scribe
from ratelimitd.log.sinks import StderrSink, SyslogSink
from tests.conftest import missing
from tests.daemon.client import request
from tests.daemon.process import Ratelimitd, changed, config
from tests.instances.components import ComponentMissing
from tests.instances.smalldisk import SmallDisk
from tests.instances.waiting import wait_until

MANY = 3000
BACKLOG_BYTES = 65536

HANGS = """
import os, time
write, slow = os.write, []

def hanging(fd, data):
    if os.path.exists({gate!r}) and os.readlink(f"/proc/self/fd/{{fd}}").startswith({log!r}):
        if slow:
            open({gate!r}).close()
        else:
            slow.append(time.sleep({slow_s}))
    return write(fd, data)

os.write = hanging
"""
"""While there is a pipe at the path `gate`, the first write to the log is slow, and each after it waits until somebody
opens the pipe."""


class Disk:
    """The disk under the log of `daemon`."""

    def __init__(self, folder: Path, **tables: object) -> None:
        self._gate = folder / "gate"
        text = HANGS.format(gate=str(self._gate), log=str(folder / "log"), slow_s=2 * SLOW_S)
        self.daemon = Ratelimitd(folder, config(**tables), prefix=changed(text))
        self.daemon.start()

    def hang(self) -> None:
        """From now on the disk is slow, and then hangs."""
        os.mkfifo(self._gate)

    def go_on(self) -> None:
        """Let the write go on that waits, and all after it."""
        with self._gate.open("w"):
            self._gate.unlink()


@pytest.fixture
def hung(folder: Path) -> Iterator[Callable[..., Disk]]:
    """`hung(**tables)`: the disk of a daemon that runs; it hangs already."""
    made: list[Disk] = []

    def start(**tables: object) -> Disk:
        made.append(Disk(folder, **{"limit": [{"quota": "unlimited"}], **tables}))
        made[0].hang()
        return made[0]

    yield start
    for disk in made:
        disk.daemon.kill()


def ask(daemon: Ratelimitd, *queue_ids: str) -> None:
    with daemon.client() as client:
        for queue_id in queue_ids:
            client.send(request(queue_id=queue_id))
            client.reply()


def reload(daemon: Ratelimitd, text: str) -> None:
    """Have the daemon apply this configuration."""
    daemon.file.write_text(text)
    assert ctl.main(["-c", str(daemon.file), "reload"]) == 0


def asked(daemon: Ratelimitd, *more: Path) -> list[str]:
    """The queue ids in the log, and in older files of it."""
    texts = [path.read_text() for path in more] + [daemon.log_file.read_text()]
    lines = [line[25:] for text in texts for line in text.splitlines()]
    return [line.partition(":")[0] for line in lines if line.startswith("Q") and ": client=" in line]


def ids(count: int) -> list[str]:
    return [f"Q{number}" for number in range(count)]


def test_a_disk_that_hangs_under_the_log_delays_no_reply_and_what_is_lost_is_counted(
    hung: Callable[..., Disk],
) -> None:
    disk = hung(log={"max_backlog_bytes": BACKLOG_BYTES})
    ask(disk.daemon, *ids(MANY))
    disk.go_on()
    count = MANY

    def takes_lines_again() -> bool:
        nonlocal count
        count += 1
        ask(disk.daemon, ids(count)[-1])
        return not set(ids(count)[MANY:]).isdisjoint(asked(disk.daemon))

    wait_until(takes_lines_again, "a line that is not dropped, once the disk has taken what waited")
    dropped = int(disk.daemon.dump()[-1][0].rpartition("Log lines dropped: ")[2])
    kept = asked(disk.daemon)
    assert len(kept) == count - dropped < MANY
    assert kept == [name for name in ids(count) if name in kept]
    assert 0.9 * BACKLOG_BYTES < disk.daemon.log_file.stat().st_size < 2 * BACKLOG_BYTES
    assert disk.daemon.stop() == 0


def test_a_stop_waits_for_a_slow_disk_under_the_log_and_no_line_is_lost(hung: Callable[..., Disk]) -> None:
    disk = hung()
    ask(disk.daemon, *ids(200))
    disk.daemon.signal(signal.SIGTERM)
    journal = disk.daemon.state / "journal"
    wait_until(lambda: not list(journal.glob("*.segment")), "the end of the journal")
    disk.daemon.process.check()
    disk.go_on()
    assert disk.daemon.process.wait() == 0
    assert asked(disk.daemon) == ids(200)
    assert "ratelimitd has stopped" in disk.daemon.log()[-1]


def test_a_disk_that_never_takes_the_log_does_not_keep_the_daemon_up(hung: Callable[..., Disk]) -> None:
    disk = hung()
    ask(disk.daemon, *ids(200))
    assert disk.daemon.stop() == 0
    assert disk.daemon.used() == {"alice@example.com": 200}


@pytest.mark.parametrize("format", ["postfix-policyd", "json"])
def test_a_log_that_is_rotated_while_its_disk_hangs_loses_no_line(hung: Callable[..., Disk], format: str) -> None:
    disk = hung()
    daemon = disk.daemon
    ask(daemon, *ids(100))
    old = daemon.log_file.with_suffix(".1")
    daemon.log_file.rename(old)
    text = daemon.file.read_text()
    daemon.file.write_text(text.replace("[log]\n", f'[log]\nformat = "{format}"\n'))
    daemon.signal(signal.SIGHUP)
    wait_until(daemon.log_file.exists, "the new log")
    disk.go_on()
    wait_until(lambda: "the configuration is reloaded" in daemon.log_file.read_text(), "the reload")
    assert daemon.stop() == 0
    assert asked(daemon, old) == ids(100)


@pytest.mark.parametrize("change", ['format = "json"', 'ident = "x"', "stderr = true"])
def test_a_reload_that_keeps_a_file_whose_disk_hangs_delays_no_reply_and_keeps_the_order_of_lines(
    hung: Callable[..., Disk], change: str
) -> None:
    disk = hung()
    daemon = disk.daemon
    ask(daemon, *ids(100))
    reload(daemon, daemon.file.read_text().replace("[log]\n", f"[log]\n{change}\n"))
    ask(daemon, "LAST")
    disk.go_on()
    assert daemon.stop() == 0
    lines = daemon.log()
    assert [line.partition(":")[0] for line in lines if line.startswith("Q")] == ids(100)
    reloaded, last = (
        next(number for number, line in enumerate(lines) if text in line)
        for text in ("the configuration is reloaded", "LAST")
    )
    assert max(number for number, line in enumerate(lines) if line.startswith("Q")) < reloaded < last


@pytest.mark.parametrize("other", ["elsewhere", "log2"], ids=["on another disk", "on the same disk"])
def test_two_reloads_to_another_file_and_back_while_the_disk_hangs_delay_no_reply_and_keep_the_order_of_lines(
    hung: Callable[..., Disk], other: str
) -> None:
    disk = hung()
    daemon = disk.daemon
    ask(daemon, *ids(100))
    text = daemon.file.read_text()
    for there in (text.replace('file = "log"', f'file = "{other}"'), text):
        reload(daemon, there)
    ask(daemon, "LAST")
    disk.go_on()
    assert daemon.stop() == 0
    lines = daemon.log()
    last = next(number for number, line in enumerate(lines) if "LAST" in line)
    assert asked(daemon) == ids(100)
    assert max(number for number, line in enumerate(lines) if line.startswith("Q")) < last


async def test_lines_for_stderr_are_written_also_where_a_stop_comes_as_syslog_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scribe, "SLOW_S", -1)
    file, path = tmp_path / "stderr", str(tmp_path / "syslog")
    fd = os.open(file, os.O_WRONLY | os.O_CREAT)
    log = LateSyslog(path, lambda: SyslogSink(path, "ratelimitd", "mail", BACKLOG_BYTES), StderrSink(BACKLOG_BYTES, fd))
    os.close(fd)
    log.write([("info", "one")])
    monkeypatch.setattr(scribe, "GATHER_S", 0.2)
    log.write([("info", "two")])
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog, trio.CancelScope() as stopped:
        syslog.bind(path)
        stopped.cancel()
        await log.drain()
    log.close()
    assert file.read_text() == "one\ntwo\n"


def test_the_lines_of_a_daemon_that_is_killed_are_in_the_file(folder: Path) -> None:
    daemon = Ratelimitd(folder, config())
    try:
        daemon.start()
        ask(daemon, *ids(200))
        wait_until(lambda: len(asked(daemon)) == 200, "the lines, while nobody asks any more")
    finally:
        daemon.kill()
    assert asked(daemon) == ids(200)


@pytest.mark.parametrize("slow_s", [SLOW_S, -1], ids=["fast", "slow"])
def test_what_a_full_disk_does_not_take_is_counted(monkeypatch: pytest.MonkeyPatch, slow_s: float) -> None:
    monkeypatch.setattr(scribe, "SLOW_S", slow_s)
    full = Scribe(os.open("/dev/full", os.O_WRONLY), BACKLOG_BYTES)
    for _ in range(3):
        full.write(b"one\ntwo\n")
    full.close()
    assert full.dropped == 6


@pytest.mark.parametrize("slow_s", [SLOW_S, -1], ids=["fast", "slow"])
def test_a_line_of_which_half_was_written_does_not_begin_the_next(
    monkeypatch: pytest.MonkeyPatch, slow_s: float
) -> None:
    """A pipe that is full takes a part, as a full disk does."""
    monkeypatch.setattr(scribe, "SLOW_S", slow_s)
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    room = fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    lines = Scribe(writer, BACKLOG_BYTES)
    lines.write(b"0123456789\n" * room)
    wait_until(lambda: lines.dropped > 0, "the full pipe")
    lines.write(b"lost\n")
    wait_until(lambda: lines.dropped > room - room // 11, "the line that finds it full still")
    got = os.read(reader, room)
    lines.write(b"new\n")
    lines.close()
    got += os.read(reader, room)
    os.close(reader)
    *whole, half, new = got.splitlines()
    assert set(whole) == {b"0123456789"}
    assert b"0123456789".startswith(half)
    assert new == b"new"
    assert lines.dropped == room - len(whole) + 1


@pytest.mark.parametrize("slow_s", [SLOW_S, -1], ids=["fast", "slow"])
@pytest.mark.parametrize("flags", [os.O_APPEND, 0], ids=["appended to", "from a place on"])
def test_half_a_line_that_a_file_ends_with_does_not_begin_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow_s: float, flags: int
) -> None:
    monkeypatch.setattr(scribe, "SLOW_S", slow_s)
    files = [tmp_path / name for name in ("log", "another")]
    for file in files:
        file.write_text("whole\nhalf")
    fds = [os.open(file, os.O_WRONLY | flags) for file in files]
    for fd in fds:
        os.lseek(fd, 0, os.SEEK_END)
    lines = Scribe(fds[0], BACKLOG_BYTES)
    lines.write(b"one\n")
    lines.write(b"two\n")
    wait_until(lambda: "two" in files[0].read_text(), "the lines")
    lines.switch(fds[1])
    lines.write(b"three\n")
    lines.close()
    assert files[0].read_text() == "whole\nhalf\none\ntwo\n"
    assert files[1].read_text() == "whole\nhalf\nthree\n"


def test_the_first_line_of_a_daemon_is_its_own_where_the_log_ends_with_half_a_line(folder: Path) -> None:
    daemon = Ratelimitd(folder, config())
    daemon.log_file.write_text("half")
    try:
        daemon.start()
        assert daemon.stop() == 0
    finally:
        daemon.kill()
    half, *lines = daemon.log_file.read_text().split("\n")
    assert half == "half"
    assert all(line[:1].isupper() for line in lines[:-1])


@pytest.mark.parametrize("slow_s", [SLOW_S, -1], ids=["fast", "slow"])
def test_a_log_that_was_full_and_is_cut_begins_with_a_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, slow_s: float
) -> None:
    """As logrotate's copytruncate and an administrator do, to have room."""
    monkeypatch.setattr(scribe, "SLOW_S", slow_s)
    try:
        with SmallDisk(folder / "logs") as disk:
            file = folder / "logs" / "log"
            lines = Scribe(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), BACKLOG_BYTES)
            lines.write(b"01234\n")
            wait_until(lambda: file.stat().st_size > 0, "the first line")
            disk.fill()
            lines.write(b"0123456\n" * 1000)  # the file's page has room for some of it
            wait_until(lambda: lines.dropped > 0, "the full disk")
            assert not file.read_bytes().endswith(b"\n")
            os.truncate(file, 0)
            disk.empty()
            lines.write(b"new\n")
            lines.close()
            assert file.read_bytes() == b"new\n"
    except ComponentMissing as error:
        missing(str(error))


def test_lines_keep_their_order_while_the_disk_becomes_slow_and_fast_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "log"
    written = Scribe(os.open(file, os.O_WRONLY | os.O_CREAT), BACKLOG_BYTES)
    monkeypatch.setattr(scribe, "CALM_S", 0.0)
    expected = []
    for number in range(3000):
        monkeypatch.setattr(scribe, "SLOW_S", -1 if number // 100 % 2 else 60)
        expected.append(f"{number}\n")
        written.write(expected[-1].encode())
    written.close()
    assert file.read_text() == "".join(expected)
    assert written.dropped == 0
