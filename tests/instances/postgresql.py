"""A private PostgreSQL cluster: its own data folder, socket, port and, where asked for, certificates."""

import atexit
import contextlib
import csv
import functools
import getpass
import io
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from .certificates import Certificates, make_certificates
from .components import find, postgresql_program, program
from .ports import free_port
from .processes import Process
from .sqlclient import SQLError
from .waiting import wait_until

ADMINISTRATOR = "postgres"
"""Comes in over the socket, without a password."""

_SETTINGS = (
    *("fsync=off", "full_page_writes=off", "shared_buffers=32MB", "max_wal_size=64MB", "autovacuum=off"),
    *("listen_addresses=127.0.0.1", "password_encryption=scram-sha-256", "logging_collector=off"),
)
_ACCESS = f"""\
local all {ADMINISTRATOR} trust
local all all scram-sha-256
local replication all trust
host all all 127.0.0.1/32 scram-sha-256
host replication all 127.0.0.1/32 trust
"""


def _unprivileged() -> tuple[list[str], str]:
    """What a command begins with to run as somebody whom PostgreSQL accepts, and who that is: it refuses root."""
    if os.geteuid() != 0:
        return [], getpass.getuser()
    user = next(name for name in ("postgres", "nobody") if name in {entry.pw_name for entry in pwd.getpwall()})
    ids = pwd.getpwnam(user)
    return [program("setpriv"), f"--reuid={ids.pw_uid}", f"--regid={ids.pw_gid}", "--clear-groups"], user


def _give(path: Path) -> None:
    """Make a path the server's."""
    user = _unprivileged()[1]
    if user != getpass.getuser():
        subprocess.run(["chown", "-R", user, str(path)], check=True)


@functools.cache
def _template() -> Path:
    """A fresh data folder, made once in a test run and copied for every server."""
    find("postgresql")
    folder = Path(tempfile.mkdtemp(prefix="ratelimitd-postgresql-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _give(folder)
    command = [*_unprivileged()[0], postgresql_program("initdb"), f"--pgdata={folder}", f"--username={ADMINISTRATOR}"]
    command += ["--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
    result = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/"
    )
    if result.returncode != 0:
        raise RuntimeError(f"initdb: {result.stdout}")
    (folder / "pg_hba.conf").write_text(_ACCESS, encoding="utf-8")
    return folder


class PostgreSQL:
    """A PostgreSQL server under `folder`, with the socket of its `port` there. `tls`: it offers TLS.

    `settings` (name=value) are the server's. `of`: it is a standby of this server.
    """

    def __init__(self, folder: Path, *settings: str, tls: bool = False, of: "PostgreSQL | None" = None) -> None:
        find("postgresql")
        self.folder = folder
        self.port = free_port()
        self.socket = folder
        """The folder of the socket, as PostgreSQL's clients have it."""
        self.settings = [*_SETTINGS, *settings]
        self.certificates: Certificates | None = None
        self._primary = of
        self._data = folder / "data"
        self._process: Process | None = None
        if tls:
            find("openssl")
            self.certificates = made = make_certificates(folder)
            self.settings += ["ssl=on", f"ssl_ca_file={made.ca}", f"ssl_cert_file={made.certificate}"]
            self.settings += [f"ssl_key_file={made.key}"]
            made.key.chmod(0o600)

    def start(self, *, wait: bool = True) -> None:
        """Start it; `wait` until it answers."""
        if self._process is not None:
            raise RuntimeError("PostgreSQL runs already")
        if not self._data.exists():
            self._make_data()
        given = [word for setting in self.settings for word in ("-c", setting)]
        command = [*_unprivileged()[0], postgresql_program("postgres"), "-D", str(self._data), "-p", str(self.port)]
        command += ["-c", f"unix_socket_directories={self.folder}", *given]
        self._process = Process(command, self.folder / "log")
        if wait:
            self.wait_ready()

    def _make_data(self) -> None:
        if self._primary is None:
            copy = ["cp", "-a", "--sparse=always", "--reflink=auto", str(_template()), str(self._data)]
        else:
            copy = [postgresql_program("pg_basebackup"), f"--host={self._primary.socket}"]
            copy += [f"--port={self._primary.port}", f"--username={ADMINISTRATOR}", f"--pgdata={self._data}"]
            copy += ["--write-recovery-conf", "--checkpoint=fast", "--no-sync"]
        subprocess.run(copy, check=True, stdin=subprocess.DEVNULL, capture_output=True)
        _give(self.folder)

    def wait_ready(self, timeout: float = 60) -> None:
        """Wait until it answers; a server that fails to is stopped."""
        try:
            wait_until(self._answers, "PostgreSQL's start", timeout)
        except BaseException as error:
            error.add_note(self.log())
            self.kill()
            raise

    def running(self) -> bool:
        """Whether its process runs (or is frozen)."""
        return self._process is not None and self._process.running()

    def stop(self) -> None:
        """Shut it down in good order, whoever is connected."""
        process, self._process = self._process, None
        if process is not None:
            self._signal(process, signal.SIGCONT)
            process.signal(signal.SIGINT)
            process.stop()

    def kill(self) -> None:
        """kill -9, its backends too: each is a session of its own."""
        process, self._process = self._process, None
        if process is not None:
            self._signal(process, signal.SIGKILL)
            process.kill()

    def restart(self) -> None:
        """Stop it, where it still runs, and start it on the same port."""
        self.stop()
        self.start()

    def promote(self) -> None:
        """Make a standby the primary."""
        self.sql("SELECT pg_promote()")

    def freeze(self) -> None:
        """SIGSTOP: connections stay open, and nobody answers."""
        assert self._process is not None
        self._signal(self._process, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._signal(self._process, signal.SIGCONT)

    def sql(self, text: str, database: str = "", timeout: float = 30) -> list[tuple[str, ...]]:
        """Run statements as the administrator over the socket; SQLError with the server's words."""
        command = [postgresql_program("psql"), "--no-psqlrc", "--quiet", "--csv", "--tuples-only"]
        command += ["--set=ON_ERROR_STOP=1", "--pset=null=NULL", f"--host={self.socket}", f"--port={self.port}"]
        command += [f"--username={ADMINISTRATOR}", f"--dbname={database or 'postgres'}"]
        data = text.encode("utf-8", "surrogateescape")
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        clean["PGCLIENTENCODING"] = "UTF8"
        result = subprocess.run(
            command, input=data, capture_output=True, timeout=timeout, check=False, cwd="/", env=clean
        )
        if result.returncode != 0:
            raise SQLError(result.stderr.decode("utf-8", "replace").strip())
        return list(map(tuple, csv.reader(io.StringIO(result.stdout.decode("utf-8", "surrogateescape"), newline=""))))

    def add_user(self, name: str, password: str, *, database: str = "") -> None:
        """An account with a SCRAM password; `database` is made as its own."""
        literal = "'" + password.replace("'", "''") + "'"
        self.sql(f'CREATE ROLE "{name}" LOGIN PASSWORD {literal}')
        if database:
            self.sql(f'CREATE DATABASE "{database}" OWNER "{name}"')

    def log(self) -> str:
        """The end of the server's log."""
        path = self.folder / "log"
        return path.read_text(encoding="utf-8", errors="replace")[-8000:] if path.exists() else ""

    def _signal(self, process: Process, number: int) -> None:
        """To the server and its backends."""
        for pid in [process.pid, *_children(process.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _answers(self) -> bool:
        assert self._process is not None
        self._process.check()
        try:
            return self.sql("SELECT 1") == [("1",)]
        except SQLError:
            return False


def _children(parent: int) -> list[int]:
    children = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                stat = Path(f"/proc/{name}/stat").read_text(encoding="utf-8", errors="replace")
                if int(stat.rpartition(")")[2].split()[1]) == parent:
                    children.append(int(name))
    return children
