"""A private MariaDB: its own data folder, socket, port and, where asked for, certificates."""

import atexit
import functools
import getpass
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from .certificates import Certificates, make_certificates
from .components import find, program
from .ports import free_port
from .processes import Process
from .sqlclient import SQLError, quote, run_sql
from .waiting import wait_until

_SMALL = ("--innodb-log-file-size=8M", "--innodb-buffer-pool-size=32M")
# What is written to the kernel outlives a kill; no test needs it to outlive the machine.
_UNSYNCED = ("--innodb-flush-log-at-trx-commit=2", "--innodb-doublewrite=OFF", "--innodb-flush-method=nosync")
_LIGHT = (*_SMALL, *_UNSYNCED)


@functools.cache
def _template() -> Path:
    """A fresh data folder, made once in a test run and copied for every server."""
    find("mariadb")
    folder = Path(tempfile.mkdtemp(prefix="ratelimitd-mariadb-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    user = getpass.getuser()
    command = [program("mariadb-install-db"), "--no-defaults", f"--datadir={folder}", f"--user={user}"]
    command += ["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve", *_LIGHT]
    result = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd="/",
    )
    if result.returncode != 0:
        raise RuntimeError(f"mariadb-install-db: {result.stdout}")
    return folder


class MariaDB:
    """A MariaDB server under `folder`: root has no password there and comes in by `socket` only.

    `tls`: it offers TLS, with the certificates in `certificates`. `arguments` go to mariadbd.
    `user`: whom it runs as, who must be able to reach `folder`; by default who we are.
    """

    def __init__(self, folder: Path, *arguments: str, tls: bool = False, user: str = "") -> None:
        find("mariadb")
        self.folder = folder
        self.user = user or getpass.getuser()
        self.port = free_port()
        self.socket = folder / "sock"
        self.arguments = list(arguments)
        self.certificates: Certificates | None = None
        self._data = folder / "data"
        self._process: Process | None = None
        if tls:
            find("openssl")
            self.certificates = made = make_certificates(folder)
            self.arguments += [
                f"--ssl-ca={made.ca}",
                f"--ssl-cert={made.certificate}",
                f"--ssl-key={made.key}",
            ]

    def start(self, *more: str, wait: bool = True) -> None:
        """Start it, with `more` arguments this once; `wait` until it answers."""
        if self._process is not None:
            raise RuntimeError("MariaDB runs already")
        if not self._data.exists():
            copy = ["cp", "-a", "--sparse=always", "--reflink=auto", str(_template()), str(self._data)]
            subprocess.run(copy, check=True)
            if self.user != getpass.getuser():
                subprocess.run(["chown", "-R", self.user, str(self.folder)], check=True)
        command = [program("mariadbd"), "--no-defaults", f"--datadir={self._data}", f"--user={self.user}"]
        command += [f"--socket={self.socket}", f"--pid-file={self.folder / 'pid'}", f"--port={self.port}"]
        command += ["--bind-address=127.0.0.1", "--skip-name-resolve", "--plugin-load-add=auth_ed25519"]
        # A server that starts deletes what looks like temporary tables, also another's.
        command += [f"--tmpdir={self.folder}"]
        command += [*_LIGHT, *self.arguments, *more]
        self._process = Process(command, self.folder / "log")
        if wait:
            self.wait_ready()

    def wait_ready(self, timeout: float = 60) -> None:
        """Wait until it answers; a server that fails to is stopped."""
        try:
            wait_until(self._answers, "MariaDB's start", timeout)
        except BaseException as error:
            error.add_note(self.log())
            self.kill()
            raise

    def running(self) -> bool:
        """Whether its process runs (or is frozen)."""
        return self._process is not None and self._process.running()

    def stop(self) -> None:
        """Shut it down in good order."""
        process, self._process = self._process, None
        if process is not None:
            process.stop()

    def kill(self) -> None:
        """kill -9."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()

    def restart(self) -> None:
        """Stop it, where it still runs, and start it on the same port."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """SIGSTOP: connections stay open, and nobody answers."""
        assert self._process is not None
        self._process.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._process.signal(signal.SIGCONT)

    def sql(self, text: str, database: str = "", timeout: float = 30) -> list[tuple[str, ...]]:
        """Run statements as root over the socket; SQLError with the server's words."""
        # Nobody listens in on a socket; and from 11.4 on the client insists on TLS, which a server may not offer.
        client = [program("mariadb"), "--no-defaults", "--skip-ssl", f"--socket={self.socket}", "--user=root"]
        return run_sql([*client, *([f"--database={database}"] if database else [])], text, timeout)

    def add_user(
        self,
        name: str,
        password: str,
        plugin: str = "mysql_native_password",
        grant: str = "ALL PRIVILEGES ON *.*",
        require: str = "NONE",
    ) -> None:
        """An account from any host; `plugin` may be ed25519, `require` SSL."""
        account = f"{quote(name)}@'%'"
        self.sql(
            f"CREATE USER {account} IDENTIFIED VIA {plugin} USING PASSWORD({quote(password)})"
            f" REQUIRE {require}; GRANT {grant} TO {account};"
        )

    def log(self) -> str:
        """The end of the server's error log."""
        path = self.folder / "log"
        return path.read_text(encoding="utf-8", errors="replace")[-8000:] if path.exists() else ""

    def _answers(self) -> bool:
        assert self._process is not None
        self._process.check()
        try:
            return self.socket.exists() and self.sql("SELECT 1") == [("1",)]
        except SQLError:
            return False
