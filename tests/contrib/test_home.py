"""HOME, where libpq looks for its files: the daemon's user's, however the daemon came to be that user's."""

import os
import pwd
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import missing
from tests.daemon.conftest import Start, make
from tests.daemon.forked import PROGRAM
from tests.daemon.process import Ratelimitd
from tests.instances.components import program
from tests.instances.mariadb import MariaDB
from tests.instances.postgresql import PostgreSQL

__all__ = ["make"]
pytestmark = pytest.mark.real
USER = "daemon"  # there is one on every Unix
OWNER = pwd.getpwnam(USER)


@pytest.fixture
def roots(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """root's HOME, which nobody else may look into."""
    if os.geteuid() != 0:
        missing("only root can become somebody else")
    home = folder / "roots"
    home.mkdir(mode=0o700)
    monkeypatch.setenv("HOME", str(home))
    return home


@pytest.fixture
def store(make_postgresql: Callable[..., PostgreSQL]) -> dict[str, Any]:
    """`[store]` of a server that must be reached by TLS."""
    server = make_postgresql(tls=True)
    server.add_user("policyd", "secret", database="policyd")
    server.folder.chmod(0o755)
    access = {"port": server.port, "tls_ca": str(server.folder / "ca.pem"), "password": "secret"}
    return {"backend": "postgresql", "timeout_s": 20, **access}


def test_started_as_root_the_daemon_and_check_look_for_libpqs_files_as_their_user(
    make: Start, store: dict[str, Any], roots: Path
) -> None:
    daemon = make(user=USER, store=store)
    check = [str(PROGRAM.with_name("ratelimitctl")), "-c", str(daemon.file), "check"]
    for _ in range(2):  # before the first start, and after it
        checked = subprocess.run(check, capture_output=True, text=True)
        assert (checked.returncode, checked.stderr) == (0, ""), checked.stdout
        daemon.start()
        daemon.wait_for_log("is ready")
        assert not [line for line in daemon.log() if "unavailable" in line]
        daemon.stop()
        daemon.log_file.unlink()


def test_a_user_with_the_home_of_another_looks_in_its_own(
    folder: Path, make: Start, store: dict[str, Any], roots: Path
) -> None:
    become = [program("setpriv"), f"--reuid={OWNER.pw_uid}", f"--regid={OWNER.pw_gid}", "--clear-groups"]
    if subprocess.run([*become, "test", "-r", PROGRAM]).returncode:
        missing("a checkout that other users may enter")
    daemon = Ratelimitd(folder, make(store=store).file.read_text(), prefix=become)
    for path in (folder, daemon.file):
        os.chown(path, OWNER.pw_uid, OWNER.pw_gid)
    try:
        daemon.start()
        daemon.wait_for_log("is ready")
        assert not [line for line in daemon.log() if "unavailable" in line]
    finally:
        daemon.kill()


BLOCKED = """
import sys
from ratelimitd.ctl import main
from ratelimitd.daemon import privileges
class Blocked:
    def find_spec(name, *_): raise ImportError(f"{name} cannot be read")
privileges.become = lambda identity: sys.meta_path.insert(0, Blocked)
sys.exit(main.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("backend", ["sqlite", "mysql", "postgresql"])
def test_check_reads_nothing_of_pythons_once_it_is_the_daemons_user(
    make: Start, mariadb: MariaDB, postgresql: PostgreSQL, database: str, roots: Path, backend: str
) -> None:
    servers: dict[str, dict[str, Any]] = {
        "mysql": {"unix_socket": str(mariadb.socket), "user": "root"},
        "postgresql": {"unix_socket": str(postgresql.socket), "port": postgresql.port, "user": "postgres"},
    }
    postgresql.sql(f"CREATE DATABASE {database}")
    daemon = make(store={"backend": backend, "database": database, "timeout_s": 20, **servers.get(backend, {})})
    daemon.state.mkdir()
    os.chown(daemon.state, OWNER.pw_uid, OWNER.pw_gid)
    command = [sys.executable, "-c", BLOCKED, "-c", str(daemon.file), "check"]
    checked = subprocess.run(command, capture_output=True, text=True)
    postgresql.sql(f"DROP DATABASE {database} WITH (FORCE)")
    assert (checked.returncode, checked.stderr) == (0, ""), checked.stdout
