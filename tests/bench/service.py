"""What the bench measures: a private ratelimitd and the C floor, each on a free port, with what they use."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench import load
from tests.bench.build import build
from tests.instances.mariadb import MariaDB
from tests.instances.ports import free_port
from tests.instances.postgresql import PostgreSQL
from tests.instances.processes import Process
from tests.instances.waiting import wait_until

LAUNCHER = Path(__file__).with_name("launcher.py")
PROGRAM = Path(sys.executable).with_name("ratelimitd")
LIMITS = (
    ("account", "email", "daily"),
    ("domain", "domain", "daily"),
    ("hour", "email", "hourly"),
    ("week", "email", "weekly"),
    ("month", "email", "monthly"),
    ("domain-hour", "domain", "hourly"),
    ("domain-week", "domain", "weekly"),
    ("domain-month", "domain", "monthly"),
    ("everybody", "all", "daily"),
    ("everybody-hour", "all", "hourly"),
)
"""Name, key and period of the limits, of which a setup has the first so many."""
AS_SERVICES = ("env", "MALLOC_ARENA_MAX=1")
"""As the systemd unit and the init script start it."""
PASSWORD = "bench"  # of the private servers
START_TIMEOUT_S = 120.0
_CPUCLOCK_SCHED = 2  # of the kernel; what clock_getcpuclockid(3) returns for a process


@dataclass
class Measured:
    """One run of the load generator: its figures, and the service's CPU time per request."""

    figures: load.Figures
    cpu_us: float


class Service:
    """A process that answers policy requests at `address`."""

    def __init__(self, argv: list[str | Path], address: str, log: Path) -> None:
        self.address = address
        began = time.monotonic()
        self.process = Process(argv, log)
        wait_until(self._answers, f"{argv[0]} to accept connections", START_TIMEOUT_S)
        self.start_s = time.monotonic() - began

    def _answers(self) -> bool:
        self.process.check()
        host, _, port = self.address.rpartition(":")
        with socket.socket() as probe:
            return probe.connect_ex((host, int(port))) == 0

    def cpu_s(self) -> float:
        """User and system time used so far, by the process's own clock: /proc counts in steps of 10 ms."""
        return time.clock_gettime(~self.process.pid << 3 | _CPUCLOCK_SCHED)

    def resident_bytes(self) -> int:
        """Memory in use (VmRSS)."""
        return self._status("VmRSS") * 1024

    def peak_bytes(self) -> int:
        """The most memory that was in use so far (VmHWM)."""
        return self._status("VmHWM") * 1024

    def sleeps(self) -> int:
        """How often the loop has waited so far."""
        return self._status("voluntary_ctxt_switches")

    def _status(self, name: str) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{name}:"))

    def measure(self, *options: str, timeout: float = 600) -> Measured:
        """Run the load generator against it with these options of load.c."""
        before = self.cpu_s()
        figures = load.run(build("load"), self.address, *options, timeout=timeout)
        return Measured(figures, (self.cpu_s() - before) / max(1, figures.answered) * 1e6)

    def warm(self, accounts: int, connections: int = 50) -> None:
        """Ask once for every account, so that all are in memory."""
        self.measure("-S", "-k", str(accounts), "-n", str(accounts), "-c", str(connections))

    def stop(self) -> None:
        """End it in good order."""
        self.process.stop()


def cpu_us_together(services: Sequence[Service], *options: str) -> float:
    """CPU time per request of all these, each asked at the same time by a load generator of its own."""
    before = sum(service.cpu_s() for service in services)
    loads = [load.begin(build("load"), service.address, *options) for service in services]
    answered = sum(load.finish(each).answered for each in loads)
    return (sum(service.cpu_s() for service in services) - before) / max(1, answered) * 1e6


class Floor(Service):
    """The C loop that only answers."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        super().__init__([build("floor"), str(port)], f"127.0.0.1:{port}", folder / f"floor-{port}.log")


@dataclass(frozen=True)
class Setup:
    """How a ratelimitd is set up. `log`: file, syslog, none. `server`: the store instead of SQLite; `database`: one in
    it that several share. `sliding`: the window of the first limit slides. `plain`: the program itself is started, not
    the launcher. `limits`: how many of LIMITS."""

    log: str = "file"
    journal: bool = True
    server: MariaDB | PostgreSQL | None = None
    database: str = ""
    watch: bool = False
    flush_interval_s: float = 5.0
    sliding: bool = False
    history_days: int = 0
    plain: bool = False
    limits: int = 2


class Ours(Service):
    """ratelimitd in a folder of its own."""

    def __init__(self, folder: Path, setup: Setup) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self._watched = folder / "watched"
        port = free_port()
        config = folder / "ratelimitd.toml"
        config.write_text(_config(folder, port, setup))
        program = (PROGRAM, "-c") if setup.plain else (sys.executable, "-P", LAUNCHER)
        argv: list[str | Path] = [*AS_SERVICES, *program, config]
        argv += [] if setup.journal else ["--no-journal"]
        argv += ["--watch", self._watched] if setup.watch else []
        super().__init__(argv, f"127.0.0.1:{port}", folder / "stderr.log")

    def flush(self) -> dict[str, float]:
        """Flush now; what the launcher noted of it (`accounts`, `seconds`, `stall_s`, `idle_stall_s`)."""
        before = len(self._notes())
        self.process.signal(signal.SIGUSR2)
        wait_until(lambda: len(self._notes()) > before, "the flush", 120)
        noted: dict[str, float] = json.loads(self._notes()[-1])
        if not noted["stored"]:
            raise RuntimeError(f"the flush failed: {self.process.tail()}")
        return noted

    def decisions(self) -> int:
        """How many it has logged in its file."""
        with (self.folder / "mail.log").open("rb") as lines:
            return sum(1 for _ in lines)

    def _notes(self) -> list[str]:
        return self._watched.read_text().splitlines() if self._watched.exists() else []


def _config(folder: Path, port: int, setup: Setup) -> str:
    log = {"file": f'file = "{folder}/mail.log"', "syslog": "", "none": ""}[setup.log]
    syslog = f"{folder}/log.sock" if setup.log == "syslog" else ""
    store = f'path = "{folder}/ratelimit.sqlite3"'
    if setup.server is not None:
        database = setup.database or database_of(folder)
        backend = "mysql" if isinstance(setup.server, MariaDB) else "postgresql"
        store = f'backend = "{backend}"\nport = {setup.server.port}\nuser = "bench"\npassword = "{PASSWORD}"\n'
        store += f'database = "{database}"'
    return f"""
state_dir = "{folder}/state"
[server]
listen = ["127.0.0.1:{port}"]
max_accounts = 2_000_000
[store]
flush_interval_s = {setup.flush_interval_s}
history_days = {setup.history_days}
{store}
[log]
syslog = "{syslog}"
{log}
{"".join(_limit(*limit, sliding=setup.sliding and limit is LIMITS[0]) for limit in LIMITS[: setup.limits])}"""


def _limit(name: str, key: str, period: str, *, sliding: bool) -> str:
    return f"""[[limit]]
name = "{name}"
key = "{key}"
period = "{period}"
window = "{"sliding" if sliding else "fixed"}"
quota = 4_000_000_000
"""


def database_of(folder: Path) -> str:
    """The database of the ratelimitd in this folder."""
    return "".join(c if c.isalnum() else "_" for c in folder.name)


class Neighbour:
    """Another process that writes and syncs in a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._process = subprocess.Popen([sys.executable, Path(__file__).with_name("neighbour.py"), folder])

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()


class Drain:
    """A syslog daemon that throws away what it gets on `path`."""

    def __init__(self, path: Path) -> None:
        self._process = subprocess.Popen([build("drain"), path], stdout=subprocess.PIPE, text=True)
        wait_until(path.exists, "the syslog socket")

    def stop(self) -> int:
        """End it; how many lines came."""
        self._process.terminate()
        output, _ = self._process.communicate(timeout=30)
        return int(output)
