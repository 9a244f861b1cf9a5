"""A private MySQL 9, which knows caching_sha2_password alone, in a Debian sid folder of its own."""

import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from . import cache
from .chroot import debootstrap
from .components import ComponentMissing, find, program
from .ports import free_port
from .processes import Process
from .sqlclient import SQLError, quote, run_sql
from .waiting import wait_until

_PACKAGES = ("mysql-server-core", "mysql-client-core")


def debian(kept: Path) -> Path:
    """The Debian folder with MySQL and a fresh data folder in it; the first call makes it, in a minute.

    Raises ComponentMissing where that fails. Who calls meanwhile waits.
    """
    return cache.once(kept, "mysql9", _build)


def _build(root: Path) -> None:
    debootstrap(root, "sid", _PACKAGES)
    (root / "instances").mkdir()
    initialize = [program("chroot"), str(root), "mysqld", "--no-defaults", "--initialize-insecure"]
    initialize += ["--user=root", "--datadir=/instances/template", "--tmpdir=/tmp"]
    done = subprocess.run(
        initialize, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode != 0:
        raise ComponentMissing(f"mysqld --initialize failed: {done.stdout[-2000:]}")


class MySQL9:
    """A MySQL 9 server; root has no password and comes in from 127.0.0.1 and by `socket`.

    Its data lies in the Debian folder under `kept`, and goes with stop(). `folder` gets the log and, as a
    link, the socket.
    """

    def __init__(self, kept: Path, folder: Path) -> None:
        find("mysql9")
        self.kept = kept
        self.folder = folder
        self.port = free_port()
        self.socket = folder / "sock"
        self._root = Path()
        self._data = Path()
        self._process: Process | None = None

    @property
    def ca(self) -> Path:
        """The authority mysqld made for itself; its certificates do not name the server's host."""
        return self._data / "ca.pem"

    @property
    def public_key(self) -> Path:
        """The server's RSA key, for passwords over connections without TLS."""
        return self._data / "public_key.pem"

    def start(self) -> None:
        """Start it and wait until it answers; the first time on a machine, fetch it before."""
        self._root = debian(self.kept)
        self._data = Path(tempfile.mkdtemp(prefix="data-", dir=self._root / "instances"))
        try:
            template = self._root / "instances" / "template"
            copy = ["cp", "-a", "--sparse=always", "--reflink=auto", f"{template}/.", str(self._data)]
            subprocess.run(copy, check=True)
            self._run()
            wait_until(self._answers, "MySQL's start", timeout=60)
        except BaseException as error:
            error.add_note(self.log())
            self.stop()
            raise

    def _run(self) -> None:
        inside = Path("/") / self._data.relative_to(self._root)
        self.socket.unlink(missing_ok=True)
        self.socket.symlink_to(self._data / "sock")
        command = [program("chroot"), str(self._root), "mysqld", "--no-defaults", "--user=root"]
        command += [f"--datadir={inside}", f"--socket={inside}/sock", f"--pid-file={inside}/pid"]
        command += [f"--port={self.port}", "--bind-address=127.0.0.1", "--mysqlx=OFF", "--disable-log-bin"]
        # Our TMPDIR need not exist in there.
        command += ["--secure-file-priv=NULL", "--innodb-buffer-pool-size=32M", "--tmpdir=/tmp"]
        # What is written to the kernel outlives a kill; no test needs it to outlive the machine.
        command += ["--innodb-flush-log-at-trx-commit=2", "--innodb-doublewrite=OFF", "--innodb-flush-method=nosync"]
        self._process = Process(command, self.folder / "log")

    def stop(self) -> None:
        """Stop it and delete its data."""
        process, self._process = self._process, None
        try:
            if process is not None:
                process.stop()
        finally:
            if self._data != Path():
                shutil.rmtree(self._data, ignore_errors=True)

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
        socket = Path("/") / self._data.relative_to(self._root) / "sock"
        client = [program("chroot"), str(self._root), "mysql", "--no-defaults", f"--socket={socket}"]
        client += ["--user=root", *([f"--database={database}"] if database else [])]
        return run_sql(client, text, timeout)

    def add_user(self, name: str, password: str, grant: str = "ALL PRIVILEGES ON *.*", require: str = "NONE") -> None:
        """An account from any host, with caching_sha2_password; `require` may be SSL."""
        account = f"{quote(name)}@'%'"
        self.sql(
            f"CREATE USER {account} IDENTIFIED WITH caching_sha2_password BY {quote(password)}"
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
