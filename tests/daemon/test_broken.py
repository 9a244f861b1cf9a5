"""Wrong configurations and circumstances: one line that names the place, exit status 2 or 75, no traceback."""

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ratelimitd.daemon.main import main
from tests.conftest import missing
from tests.daemon.conftest import Start
from tests.daemon.process import Ratelimitd, config, listen_elsewhere
from tests.instances.ports import free_port

LIMIT = "[[limit]]\nquota = 1\n"
SERVER = '[server]\nlisten = ["127.0.0.1:1"]\n'

PLUGIN = """\
def raises(options):
    raise ValueError("colour: green is\\nno colour")

def raises_at_import(): ...

def no_function(options):
    return 42
"""
ENTRY_POINTS = """\
[ratelimitd.keys]
raising = broken_plugin:raises
missing = no_such_module:key
pointless = broken_plugin:no_function
"""

BROKEN = {
    "syntax": ("state_dir = ", "syntax"),
    "not TOML at all": ("<xml/>", "syntax"),
    "nested without end": ("a = " + "[" * 100_000, "syntax"),
    "a number without end": (f"[[limit]]\nquota = {'9' * 5000}\n", "syntax"),
    "no limit": ("", "limit: found nothing"),
    "no quota": ("[[limit]]\n", 'limit "default".quota: found nothing'),
    "an unknown setting": ("timezon = 1\n" + LIMIT, "timezon: found an unknown setting"),
    "an unknown table": ("[serber]\n" + LIMIT, "serber: found an unknown setting"),
    "an unknown setting of a limit": (LIMIT + "qota = 2\n", 'limit "default".qota: found an unknown setting'),
    "a wrong type": ("[server]\nmax_connections = '10'\n" + LIMIT, 'server.max_connections: found "10"'),
    "a table for a text": ("[state_dir]\n" + LIMIT, "state_dir: found a table"),
    "a date for a quota": ("[[limit]]\nquota = 1979-05-27\n", 'limit "default".quota: found 1979-05-27'),
    "out of bounds": ("[[limit]]\nquota = -1\n", 'limit "default".quota: found -1'),
    "no number": ("[store]\nflush_interval_s = nan\n" + LIMIT, "store.flush_interval_s: found nan"),
    "an unknown period": (LIMIT + 'period = "yearly"\n', 'limit "default".period: found "yearly"'),
    "an unknown plugin": (LIMIT + 'key = "tenant"\n', 'limit "default".key: found "tenant"'),
    "options of an unknown plugin": ("[keys.tenant]\n" + LIMIT, "keys.tenant: found no such key plugin"),
    "options that a plugin refuses": ("[keys.email]\ncase = 1\n" + LIMIT, "keys.email.case: found an unknown option"),
    "a plugin that raises": (LIMIT + 'key = "raising"\n', "keys.raising: found ValueError: colour: green is no colour"),
    "a plugin that is not there": (LIMIT + 'key = "missing"\n', "No module named 'no_such_module'"),
    "a plugin that makes no function": (LIMIT + 'key = "pointless"\n', "whose factory gave an object of type int"),
    "an action that is none": (LIMIT + 'action = "OK"\n', 'limit "default".action: found "OK"'),
    "an action of two lines": (LIMIT + 'action = "450 4.7.1 a\\nb"\n', 'limit "default".action: found'),
    "an unknown placeholder": (LIMIT + 'action = "450 4.7.1 {user}"\n', 'limit "default".action: found'),
    "an address that is none": ('[server]\nlisten = ["here"]\n' + LIMIT, 'server.listen[0]: found "here"'),
    "a network that is none": ('[server]\nallow = ["127.0.0.1/8"]\n' + LIMIT, "server.allow[0]: found"),
    "a time zone that is none": ('timezone = "Mars/Olympus"\n' + LIMIT, 'timezone: found "Mars/Olympus"'),
    "a facility that is none": ('[log]\nfacility = "post"\n' + LIMIT, 'log.facility: found "post"'),
    "a column that is none": ('[store]\ncolumns = { used = "a b" }\n' + LIMIT, 'store.columns."used"'),
    "two limits of one name": (LIMIT * 2, 'limit "default".name'),
    "a NUL in a path": ('state_dir = "a\\u0000b"\n' + LIMIT, "state_dir"),
    "a NUL in the log's path": ('[log]\nfile = "a\\u0000b"\n' + LIMIT, "log.file"),
    "a NUL in the store's path": ('[store]\npath = "a\\u0000b"\n' + LIMIT, "store.path"),
}


def expect_refusal(daemon: Ratelimitd, *parts: str, status: int = 2) -> None:
    (daemon.folder / "output").write_text("")
    assert daemon.spawn().wait() == status
    expect_one_line(daemon.output(), *parts)


def expect_one_line(output: str, *parts: str) -> None:
    assert output.startswith("ratelimitd: ")
    assert output.endswith("\n")
    assert output[:-1].isprintable()
    for part in parts:
        assert part in output


@pytest.fixture
def plugins(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution of broken plugins."""
    (folder / "broken_plugin.py").write_text(PLUGIN)
    info = folder / "broken_plugin-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-plugin\nVersion: 1\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder))


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_configuration_is_refused_in_one_line(
    folder: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    text, place = BROKEN[kind]
    file = folder / "ratelimitd.toml"
    file.write_text(text)
    assert main(["-c", str(file), "--check"]) == 2
    captured = capfd.readouterr()
    expect_one_line(captured.err, f"{file}:", place)
    assert captured.out == ""


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize("kind", ["syntax", "an unknown plugin", "a plugin that raises"])
def test_a_daemon_does_not_start_on_a_broken_configuration(make: Start, kind: str) -> None:
    text, place = BROKEN[kind]
    daemon = make()
    daemon.file.write_text(text)
    expect_refusal(daemon, f"{daemon.file}:", place)
    assert not daemon.state.exists()


def test_a_file_that_is_missing_no_file_or_no_utf8_is_refused(make: Start) -> None:
    daemon = make()
    daemon.file.write_bytes(b"\xff")
    expect_refusal(daemon, f"{daemon.file}:1: not UTF-8")
    daemon.file.unlink()
    expect_refusal(daemon, f"{daemon.file}: cannot be read: found No such file or directory")
    daemon.file.mkdir()
    expect_refusal(daemon, f"{daemon.file}: cannot be read: found Is a directory")


def test_a_tcp_port_in_use_is_refused(make: Start) -> None:
    daemon = make()
    with listen_elsewhere(daemon.port):
        expect_refusal(daemon, f"server.listen: 127.0.0.1:{daemon.port}: already in use", status=75)


def test_a_daemon_that_could_not_start_leaves_no_socket_behind(make: Start, folder: Path) -> None:
    port = free_port()
    daemon = make(server={"listen": [f"unix:{folder}/socket", f"127.0.0.1:{port}"]})
    with listen_elsewhere(port):
        expect_refusal(daemon, f"server.listen: 127.0.0.1:{port}: already in use", status=75)
    assert not (folder / "socket").exists()
    daemon.start()
    assert daemon.stop() == 0


def test_a_socket_path_of_a_live_daemon_is_refused(make: Start, folder: Path) -> None:
    path = folder / "socket"
    first = make(server={"listen": [f"unix:{path}"]})
    first.start()
    (folder / "second").mkdir()
    second = Ratelimitd(folder / "second", config(server={"listen": [f"unix:{path}"]}))
    expect_refusal(second, f"server.listen: unix:{path}: already in use", status=75)
    with first.client() as client:
        assert client.ask() == "DUNNO"
    assert first.stop() == 0
    assert not path.exists()


def test_a_stale_socket_is_replaced(make: Start, folder: Path) -> None:
    daemon = make(server={"listen": [f"unix:{folder}/socket"]})
    daemon.start()
    daemon.kill()
    assert (folder / "socket").is_socket()
    daemon.start()
    with daemon.client() as client:
        assert client.ask() == "DUNNO"
    assert daemon.stop() == 0


def test_a_socket_path_that_is_something_else_is_refused(make: Start, folder: Path) -> None:
    path = folder / "socket"
    daemon = make(server={"listen": [f"unix:{path}"]})
    path.write_text("precious")
    expect_refusal(daemon, f"server.listen: unix:{path}: exists and is not a socket")
    assert path.read_text() == "precious"
    path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(str(path))
        expect_refusal(daemon, f"server.listen: unix:{path}: belongs to a datagram service")


def test_a_socket_folder_or_group_that_is_missing_is_refused(make: Start, folder: Path) -> None:
    daemon = make(server={"listen": [f"unix:{folder}/no/socket"]})
    expect_refusal(daemon, f"server.listen: unix:{folder}/no/socket: No such file or directory")
    daemon = make(server={"listen": [f"unix:{folder}/socket"], "unix_group": "no-such-group"})
    expect_refusal(daemon, 'server.unix_group: found "no-such-group"; allowed: a group of this system')
    assert not (folder / "socket").exists()


def test_a_state_dir_of_a_running_daemon_is_refused(make: Start, folder: Path) -> None:
    first = make()
    first.start()
    (folder / "second").mkdir()
    second = Ratelimitd(folder / "second", config(state_dir=str(first.state)))
    expect_refusal(
        second, f"state_dir: {first.state}: in use by another ratelimitd (pid {first.process.pid})", status=75
    )
    assert first.stop() == 0


def test_a_log_folder_that_is_missing_is_refused(make: Start, folder: Path) -> None:
    daemon = make(log={"file": "no/log"})
    expect_refusal(daemon, f"log.file: {folder}/no/log: No such file or directory")


def test_a_state_dir_that_is_a_file_is_refused(make: Start, folder: Path) -> None:
    (folder / "file").write_text("")
    daemon = make(state_dir="file")
    expect_refusal(daemon, f"state_dir: {folder}/file: File exists")


def test_a_journal_of_a_later_version_is_refused_and_left_alone(make: Start, folder: Path) -> None:
    segment = folder / "state" / "journal" / "7.segment"
    segment.parent.mkdir(parents=True)
    segment.write_bytes(b"ratelimitd-journal 99 abcd 7\nwhatever")
    expect_refusal(make(), f"journal: {segment}: format 99")
    assert segment.read_bytes().endswith(b"whatever")


def powerless() -> list[str]:
    """What makes a program one that has no more power than its owner's: nothing for anyone but root."""
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        missing("setpriv")
    return [setpriv, "--bounding-set=-all", "--inh-caps=-all"]


@pytest.fixture
def powerless_daemon(folder: Path) -> Iterator[Ratelimitd]:
    """A daemon without root's powers, its state_dir made."""
    daemon = Ratelimitd(folder, config(), prefix=powerless())
    (daemon.state / "journal").mkdir(parents=True)
    (daemon.state / "lock").write_text("")
    yield daemon
    folder.chmod(0o755)
    daemon.kill()


@pytest.mark.parametrize("name", ["state", "state/lock", "state/journal"])
def test_a_state_dir_that_is_not_writable_is_refused(powerless_daemon: Ratelimitd, folder: Path, name: str) -> None:
    if name == "state":
        (folder / "state" / "lock").unlink()
    (folder / name).chmod(0o400 if name == "state/lock" else 0o500)
    expect_refusal(powerless_daemon, f"state_dir: {folder}/state", "Permission denied; it must be writable")


def test_a_state_dir_that_cannot_be_made_is_refused(powerless_daemon: Ratelimitd, folder: Path) -> None:
    shutil.rmtree(powerless_daemon.state)
    powerless_daemon.log_file.write_text("")
    folder.chmod(0o500)
    expect_refusal(powerless_daemon, f"state_dir: {folder}/state: Permission denied; it must be writable")


def test_a_log_file_that_is_not_writable_is_refused(powerless_daemon: Ratelimitd) -> None:
    powerless_daemon.log_file.write_text("")
    powerless_daemon.log_file.chmod(0o400)
    expect_refusal(powerless_daemon, f"log.file: {powerless_daemon.log_file}: Permission denied")
