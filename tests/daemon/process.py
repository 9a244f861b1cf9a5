"""A ratelimitd as a process of its own, and what it leaves behind: log, dump, rows."""

import signal
import socket
import sqlite3
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import tomli

from ratelimitd.net.listeners import Address, parse_address
from tests.daemon.client import PolicyClient
from tests.daemon.forked import start
from tests.instances.ports import free_port
from tests.instances.processes import Process
from tests.instances.waiting import wait_until

TIMEOUT_S = 60.0

Tables = Mapping[str, Any]


class Row(NamedTuple):
    """A row of the table `ratelimit`."""

    limit: str
    key: str
    used: int
    quota: int
    persist: int
    expiry: int


def config(**tables: Any) -> str:
    """A configuration as TOML: `server={"listen": [...]}`, `limit=[{...}]`, plain settings by name.

    What is not given is fit for a test: state_dir `state`, a free port, the log in `log`, a limit of 1,000 a day.
    """
    given: dict[str, Any] = {"state_dir": "state", **tables}
    given["server"] = {"listen": [f"127.0.0.1:{free_port()}"], **given.get("server", {})}
    given["log"] = {"syslog": "", "file": "log", **given.get("log", {})}
    given["limit"] = [{"quota": 1000, **limit} for limit in given.get("limit", [{}])]
    return toml(given)


def toml(table: Tables, path: str = "") -> str:
    """A table as TOML; its values are scalars, lists of scalars, tables, and lists of tables."""
    plain, inner = "", ""
    for name, value in table.items():
        where = f"{path}.{_name(name)}" if path else _name(name)
        if isinstance(value, Mapping):
            inner += f"[{where}]\n" + toml(value, where)
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            inner += "".join(f"[[{where}]]\n" + toml(item, where) for item in value)
        else:
            plain += f"{_name(name)} = {msgspec.json.encode(value).decode()}\n"
    return plain + inner


def _name(name: str) -> str:
    return name if name.isidentifier() else msgspec.json.encode(name).decode()


def changed(text: str) -> list[str]:
    """A prefix for the program: it runs `text` first, which changes a constant or a method of its modules."""
    return [
        sys.executable,
        "-c",
        f"{text}\nimport sys\nfrom ratelimitd.daemon import main\nsys.argv[1:2] = []\nsys.exit(main.main())\n",
    ]


class Ratelimitd:
    """A daemon that runs on the configuration `text`, in `folder`; once it has ended it may be started again."""

    def __init__(self, folder: Path, text: str, *, prefix: Sequence[str] = ()) -> None:
        self.folder = folder
        self.file = folder / "ratelimitd.toml"
        self.file.write_text(text, encoding="utf-8")
        settings = tomli.loads(text)
        self.state = folder / settings.get("state_dir", "state")
        self.log_file = folder / (settings.get("log", {}).get("file") or "log")
        self.database = self.state / settings.get("store", {}).get("path", "ratelimit.sqlite3")
        self.listen: list[str] = settings["server"]["listen"]
        self._prefix = list(prefix)
        self._process: Process | None = None

    @property
    def addresses(self) -> list[Address]:
        """Where it listens: (host, port), or the path of a unix socket."""
        return [parse_address(text) for text in self.listen]

    @property
    def port(self) -> int:
        """Its first TCP port."""
        return next(address[1] for address in self.addresses if isinstance(address, tuple))

    @property
    def process(self) -> Process:
        """The process that runs, or ran last."""
        assert self._process is not None
        return self._process

    def spawn(self, *arguments: str, stderr: int | None = None) -> Process:
        """Start the program, and wait for nothing."""
        given: list[str | Path] = ["-c", self.file, *arguments]
        self._process = start(given, self.folder / "output", prefix=self._prefix, stderr=stderr)
        return self._process

    def start(self, stderr: int | None = None) -> None:
        """Start, and wait until it listens on every address."""
        process = self.spawn(stderr=stderr)
        for address in self.addresses:
            wait_until(lambda: self._listens(process, address), f"a listener on {address}", TIMEOUT_S)  # noqa: B023

    def _listens(self, process: Process, address: Address) -> bool:
        process.check()
        try:
            with PolicyClient(address):
                return True
        except OSError:
            return False

    def stop(self, number: int = signal.SIGTERM) -> int:
        """SIGTERM, and wait for its end: the exit status."""
        self.process.signal(number)
        return self.process.wait(TIMEOUT_S)

    def kill(self) -> None:
        """SIGKILL; nothing if it has ended already."""
        if self._process is not None:
            self._process.kill()

    def signal(self, number: int) -> None:
        """Send a signal."""
        self.process.signal(number)

    def client(self) -> PolicyClient:
        """A connection to the first address."""
        return PolicyClient(self.addresses[0])

    def output(self) -> str:
        """What it printed, on stdout and stderr."""
        return self.process.tail()

    def log(self) -> list[str]:
        """The lines of the log file, each without its time."""
        if not self.log_file.exists():
            return []
        return [line[25:] for line in self.log_file.read_text(encoding="utf-8").split("\n")[:-1]]

    def decisions(self) -> list[str]:
        """The log's lines about requests."""
        return [line for line in self.log() if ": client=" in line]

    def wait_for_log(self, text: str, times: int = 1) -> None:
        """Wait until so many lines of the log have the text in them."""
        found = lambda: sum(text in line for line in self.log()) >= times  # noqa: E731
        wait_until(found, f"{text!r} in the log", TIMEOUT_S)

    def dump(self) -> list[list[str]]:
        """Ask for the cache dump: its lines, each as its fields."""
        times = sum("the cache is dumped" in line for line in self.log())
        self.signal(signal.SIGUSR1)
        self.wait_for_log("the cache is dumped", times + 1)
        text = (self.state / "cache.dump").read_text(encoding="utf-8")
        return [line.split("\t:\t") for line in text.splitlines()]

    def rows(self) -> list[Row]:
        """The rows of the SQLite store, by limit and key."""
        columns = "limit_name, sender, used, quota, persist, expiry"
        with closing(sqlite3.connect(self.database, timeout=TIMEOUT_S)) as connection:
            return [Row(*row) for row in connection.execute(f"SELECT {columns} FROM ratelimit ORDER BY 1, 2")]

    def used(self, limit: str = "default") -> dict[str, int]:
        """What the SQLite store has for each key of a limit."""
        return {row.key: row.used for row in self.rows() if row.limit == limit}


def listen_elsewhere(port: int) -> socket.socket:
    """A listening socket of somebody else's. Raises OSError."""
    taken = socket.socket()
    try:
        taken.bind(("127.0.0.1", port))
        taken.listen()
    except OSError:
        taken.close()
        raise
    return taken
