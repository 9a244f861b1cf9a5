"""`ratelimitd --check`: it refuses what a start would refuse, in the same line, and starts nothing."""

import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ratelimitd.config import read as config
from ratelimitd.config.show import in_force
from ratelimitd.ctl.main import main as ratelimitctl
from ratelimitd.daemon.advice import advice
from ratelimitd.daemon.main import main
from tests.conftest import missing
from tests.daemon.conftest import Start
from tests.daemon.forked import PROGRAM
from tests.daemon.process import Ratelimitd
from tests.daemon.process import config as toml

MYSQL = {"backend": "mysql"}
POSTGRESQL = {"backend": "postgresql"}
SECRET = {"url": "https://hooks.example.com/"}

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a host's port": (
        {"store": MYSQL | {"host": "db1:99999"}},
        'store.host: found "db1:99999"; allowed: HOST or HOST:PORT, [ADDRESS6]:PORT',
    ),
    "a host's port, of several": (
        {"store": MYSQL | {"host": ["db1", "db2:x"]}},
        'store.host: found "db2:x"; allowed: HOST or HOST:PORT, [ADDRESS6]:PORT',
    ),
    "a host's port, in a store that is not used": (
        {"store": {"host": "db1:99999"}},
        'store.host: found "db1:99999"; allowed: HOST or HOST:PORT, [ADDRESS6]:PORT',
    ),
    "no password file": (
        {"store": MYSQL | {"password_file": "none"}},
        "store.password_file: found FOLDER/none: No such file or directory; allowed: a readable file",
    ),
    "a password file that is a folder": (
        {"store": MYSQL | {"password_file": "."}},
        "store.password_file: found FOLDER: Is a directory; allowed: a readable file",
    ),
    "no password file of PostgreSQL's": (
        {"store": POSTGRESQL | {"password_file": "none"}},
        "store.password_file: found FOLDER/none: No such file or directory; allowed: a readable file",
    ),
    "no tls_ca for PostgreSQL": (
        {"store": POSTGRESQL | {"tls_ca": "none"}},
        "store.tls_ca: found FOLDER/none: No such file or directory; allowed: a file of PEM certificates",
    ),
    "no tls_ca": (
        {"store": MYSQL | {"tls_ca": "none"}},
        "store.tls_ca: found FOLDER/none: No such file or directory; allowed: a file of PEM certificates",
    ),
    "a tls_ca without certificates": (
        {"store": MYSQL | {"tls_ca": "empty"}},
        "store.tls_ca: found FOLDER/empty: ",
    ),
    "no public key": (
        {"store": MYSQL | {"server_public_key": "none"}},
        "store.server_public_key: found FOLDER/none: No such file or directory; allowed: a readable file",
    ),
    "a user": ({"user": "no-such-user"}, 'user: found "no-such-user"; allowed: a user of this system'),
    "a group": (
        {"user": "daemon", "group": "no-such-group"},
        'group: found "no-such-group"; allowed: a group of this system',
    ),
    "a socket's group": (
        {"server": {"listen": ["unix:/FOLDER/socket"], "unix_group": "no-such-group"}},
        'server.unix_group: found "no-such-group"; allowed: a group of this system',
    ),
    "a socket's group, without a socket": (
        {"server": {"unix_group": "no-such-group"}},
        'server.unix_group: found "no-such-group"; allowed: a group of this system',
    ),
    "a socket's path that is too long": (
        {"control": {"socket": "x" * 108}},
        f'control.socket: found "FOLDER/state/{"x" * 108}"; allowed: a path of at most 107 bytes',
    ),
    "no folder for the log": ({"log": {"file": "none/log"}}, "log.file: FOLDER/none/log: No such file or directory"),
    "no folder for the pid": ({"pid_file": "none/pid"}, "pid_file: FOLDER/none/pid: No such file or directory"),
    "no folder for the socket": (
        {"server": {"listen": ["unix:/FOLDER/none/socket"]}},
        "server.listen: unix:FOLDER/none/socket: No such file or directory",
    ),
    "no secret": (
        {"notify": [SECRET | {"secret_file": "none"}]},
        "notify[0].secret_file: found FOLDER/none: No such file or directory; allowed: a readable file",
    ),
    "no certificates of a webhook": (
        {"notify": [SECRET | {"tls_ca": "none"}]},
        "notify[0].tls_ca: found FOLDER/none: No such file or directory; allowed: a file of PEM certificates",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_a_start_would_refuse_is_refused_in_one_line(
    folder: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    tables, line = REFUSED[kind]
    (folder / "empty").write_text("")
    daemon = Ratelimitd(folder, toml(**tables).replace("/FOLDER", str(folder)))
    line = line.replace("FOLDER", str(folder))
    assert main(["-c", str(daemon.file), "--check"]) == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    found = re.match(rf"ratelimitd: {re.escape(str(daemon.file))}(:\d+)?: ", captured.err)
    assert found is not None
    assert captured.err[found.end() :].startswith(line)
    assert captured.err.count("\n") == 1
    assert not daemon.state.exists()
    assert daemon.spawn().wait() == 2
    assert daemon.output() == captured.err
    assert ratelimitctl(["-c", str(daemon.file), "check"]) == 2
    assert capfd.readouterr().err == captured.err.replace("ratelimitd: ", "ratelimitctl: ", 1)


def powerless() -> list[str]:
    """What makes a program one that may read what its user may read, and no more."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        missing("setpriv")
    return [setpriv, "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []


def test_a_file_that_the_user_may_not_read_is_named_and_no_failure(folder: Path) -> None:
    store = MYSQL | {"password_file": "secret", "tls_ca": "hidden/ca.pem", "server_public_key": "secret"}
    text = toml(store=store, notify=[SECRET | {"secret_file": "secret", "tls_ca": "secret"}])
    (folder / "secret").write_text("s3cret")
    (folder / "secret").chmod(0)
    (folder / "hidden").mkdir(mode=0)
    daemon = Ratelimitd(folder, text, prefix=powerless())
    assert daemon.spawn("--check").wait() == 0
    lines = daemon.output().splitlines()
    files = {
        "store.password_file": "secret",
        "store.tls_ca": "hidden/ca.pem",
        "store.server_public_key": "secret",
        "notify[0].secret_file": "secret",
        "notify[0].tls_ca": "secret",
    }
    for setting, file in files.items():
        reason = f"this user may not read {folder}/{file}"
        assert f"ratelimitd: warning: {daemon.file}: {setting} is not checked: {reason}" in lines
    assert sum("warning" in line for line in lines) == len(files)
    assert 'backend = "mysql"' in lines
    assert daemon.spawn().wait() == 2  # a start cannot do without
    assert "secret: Permission denied; allowed: a " in daemon.output()


def test_a_folder_under_run_that_a_start_needs_is_a_warning_for_a_service_manager_makes_it(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = "/run/ratelimitd-of-a-test"
    server = {"listen": [f"unix:{run}/socket"]}
    daemon = Ratelimitd(folder, toml(pid_file=f"{run}/pid", log={"file": f"{run}/log"}, server=server))
    assert main(["-c", str(daemon.file), "--check"]) == 0
    captured = capfd.readouterr()
    assert captured.out == in_force(config.read(daemon.file))
    assert captured.err.splitlines() == [
        f"ratelimitd: warning: {daemon.file}: {setting}: the folder {run} does not exist; a start needs it"
        for setting in ("pid_file", "log.file", "server.listen")
    ]


DOUBTFUL: dict[str, tuple[dict[str, Any], str]] = {
    "a password in a file that every user may read": (
        {"store": {"password": "s3cret"}},
        "every user may read the configuration, which has a password in it; chmod o-r: file=FOLDER/ratelimitd.toml",
    ),
    "a password file that every user may read": (
        {"store": {"password_file": "open"}},
        "every user may read a file with a password or another secret in it; chmod o-r: "
        "setting=store.password_file, file=FOLDER/open",
    ),
    "a file of a secret that every user may read": (
        {"notify": [SECRET, SECRET | {"secret_file": "open"}]},
        "every user may read a file with a password or another secret in it; chmod o-r: "
        "setting=notify[1].secret_file, file=FOLDER/open",
    ),
    "settings of a server, where there is none": (
        {"store": {"host": "db1", "tls_ca": "ca.pem", "user": "policyd"}},
        "settings are set that are not used beside the others of [store]: settings=store.host, store.tls_ca",
    ),
    "a program that is not there": (
        {"notify": [{"command": ["FOLDER/none"]}]},
        "the program of a [[notify]] cannot be run, so its notices will not be delivered: "
        "setting=notify[0].command, program=FOLDER/none",
    ),
    "a program that is no program": (
        {"notify": [{"command": ["FOLDER/open", "-v"]}]},
        "the program of a [[notify]] cannot be run, so its notices will not be delivered: "
        "setting=notify[0].command, program=FOLDER/open",
    ),
}


@pytest.mark.parametrize("kind", DOUBTFUL)
def test_what_should_be_looked_at_is_said_by_check_start_and_reload(
    folder: Path, make: Start, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    tables, line = DOUBTFUL[kind]
    (folder / "open").write_text("s3cret")
    (folder / "open").chmod(0o644)
    daemon = make()
    plain = daemon.file.read_text()
    text = toml(**tables).replace("FOLDER", str(folder))
    line = line.replace("FOLDER", str(folder))
    daemon.file.write_text(text)
    daemon.file.chmod(0o644)
    assert main(["-c", str(daemon.file), "--check"]) == 0
    assert capfd.readouterr().err.splitlines().count(f"ratelimitd: warning: {daemon.file}: {line}") == 1
    assert ratelimitctl(["-c", str(daemon.file), "check"]) == 0
    assert f"remark         {line}\n" in capfd.readouterr().out
    daemon.file.write_text(plain)
    daemon.start()
    for times in (1, 2):
        daemon.file.write_text(text)
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_log("the configuration is reloaded", times)
    assert daemon.stop() == 0
    assert daemon.log().count(line) == 1
    daemon = make(**msgspec.toml.decode(text))
    daemon.start()
    assert daemon.stop() == 0
    assert daemon.log().count(line) == 2


@pytest.mark.parametrize(
    ("store", "unused"),
    [
        ({"backend": "sqlite", "path": "a", "port": 7}, ["port"]),
        ({"backend": "mysql", "path": "a", "service": "b", "port": 7, "server_public_key": "k"}, ["path", "service"]),
        ({"backend": "mysql", "tls_verify_name": False}, ["tls_verify_name"]),
        ({"backend": "mysql", "unix_socket": "s", "host": "a", "tls_ca": "c"}, ["host"]),
        ({"backend": "postgresql", "server_public_key": "k", "user": "u"}, ["server_public_key"]),
        ({"backend": "postgresql", "unix_socket": "s", "port": 7, "tls_ca": "c"}, ["tls_ca"]),
        (
            {"backend": "postgresql", "service": "s", "user": "u", "host": ["h"], "database": "d", "password": "p"},
            ["host", "user", "database"],
        ),
        ({"backend": "postgresql", "tls_ca": "c", "tls_verify_name": False, "password_file": "f"}, []),
    ],
)
def test_settings_that_are_not_used_beside_the_others_are_named(
    folder: Path, store: dict[str, Any], unused: list[str]
) -> None:
    file = folder / "file.toml"
    file.write_text(toml(store=store))
    found = [one.fields["settings"] for one in advice(config.read(file)) if "not used" in one.event]
    assert found == ([", ".join(f"store.{name}" for name in unused)] if unused else [])


def test_that_nothing_is_logged_is_said_on_stderr(make: Start, capfd: pytest.CaptureFixture[str]) -> None:
    daemon = make(log={"file": ""})
    said = f'{daemon.file}: nothing is logged: log.syslog is "", and neither log.file nor log.stderr is set\n'
    assert main(["-c", str(daemon.file), "--check"]) == 0
    assert capfd.readouterr().err == f"ratelimitd: warning: {said}"
    daemon.start()
    assert daemon.stop() == 0
    assert f"ratelimitd: warning: {said}" in daemon.output()


def test_a_folder_that_this_user_may_not_enter_is_for_the_daemon_s_user_to_judge(folder: Path) -> None:
    (folder / "hidden").mkdir(mode=0)
    text = toml(log={"file": "hidden/logs/log"}, notify=[{"command": [f"{folder}/hidden/program"]}])
    daemon = Ratelimitd(folder, text, prefix=powerless())
    assert daemon.spawn("--check").wait() == 0
    assert "warning" not in daemon.output()


def test_ratelimitctl_reads_the_secrets_as_root_and_asks_the_database_as_the_daemons_user(folder: Path) -> None:
    if os.geteuid() != 0:
        missing("only root can become somebody else")
    (folder / "secret").write_text("s3cret")
    (folder / "secret").chmod(0o600)
    store = MYSQL | {"unix_socket": "none", "password_file": "secret"}
    daemon = Ratelimitd(folder, toml(user="daemon", store=store))
    daemon.state.mkdir()
    os.chown(daemon.state, pwd.getpwnam("daemon").pw_uid, -1)
    command: list[str | Path] = [PROGRAM.with_name("ratelimitctl"), "-c", daemon.file, "check"]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 1
    assert f"store          {folder}/none: " in checked.stdout  # no server, but a password


def test_postgresql_without_its_driver_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith(("psycopg", "ratelimitd.stores.postgresql"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    file = folder / "ratelimitd.toml"
    file.write_text(toml(store=POSTGRESQL))
    assert main(["-c", str(file), "--check"]) == 2
    assert capsys.readouterr().err == (
        f'ratelimitd: {file}:3: store.backend: found "postgresql" without psycopg or libpq; '
        f'allowed: the extra "postgresql": {sys.prefix}/bin/pip install "ratelimitd[postgresql]", '
        "and libpq (Debian: libpq5)\n"
    )
