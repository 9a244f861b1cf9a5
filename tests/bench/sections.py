"""What is measured. Each section is a generator of rows; the names are what --only takes."""

import contextlib
import itertools
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median

from tests.bench.parts import MAILS, bytes_each
from tests.bench.rows import Must, Pick, Row, alone, compared, in_turn, pairs, per_second
from tests.bench.service import PASSWORD, Drain, Floor, Measured, Neighbour, Ours, Service, Setup, database_of
from tests.instances.mariadb import MariaDB
from tests.instances.postgresql import PostgreSQL

MILLION = 1_000_000
DIRTY = 10_000
NEW = 600_000
MIB = 1 << 20
RESTS_S = 2.0
MANY = "1000"

FIGURES: dict[str, Pick] = {
    "p50": lambda m: m.figures.p50_us,
    "p99": lambda m: m.figures.p99_us,
    "p99.9": lambda m: m.figures.p999_us,
    "CPU per request": lambda m: m.cpu_us,
}


@dataclass
class Bench:
    """Where and how long is measured. `folder` is the bench's own."""

    folder: Path
    rounds: int
    seconds: float
    short: bool = False
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _floor: Floor | None = None
    _mariadb: MariaDB | None = None
    _postgresql: PostgreSQL | None = None

    @property
    def floor(self) -> Floor:
        """The C floor, one for the whole run."""
        if self._floor is None:
            self._floor = Floor(self.folder)
            self._stack.callback(self._floor.stop)
        return self._floor

    @property
    def mariadb(self) -> MariaDB:
        """A private MariaDB, one for the whole run. Raises ComponentMissing."""
        if self._mariadb is None:
            folder = self.folder / "mariadb"
            folder.mkdir()
            self._mariadb = MariaDB(folder, "--innodb-buffer-pool-size=512M")
            self._stack.callback(self._mariadb.stop)
            self._mariadb.start()
            self._mariadb.add_user("bench", PASSWORD)
        return self._mariadb

    @property
    def postgresql(self) -> PostgreSQL:
        """A private PostgreSQL, as safe against power cuts as it is by default. Raises ComponentMissing."""
        if self._postgresql is None:
            for path in (self.folder, self.folder / "postgresql"):
                path.mkdir(exist_ok=True)
                path.chmod(0o755)
            self._postgresql = PostgreSQL(
                self.folder / "postgresql", "shared_buffers=512MB", "fsync=on", "full_page_writes=on", "autovacuum=on"
            )
            self._stack.callback(self._postgresql.stop)
            self._postgresql.start()
            self._postgresql.add_user("bench", PASSWORD)
        return self._postgresql

    @contextlib.contextmanager
    def ours(self, setup: Setup | None = None, accounts: int = 1000, folder: Path | None = None) -> Iterator[Ours]:
        """A ratelimitd that knows all its accounts already; in a fresh folder unless one is given."""
        setup = setup or Setup()
        place = folder or self.fresh(setup)
        service = Ours(place, setup)
        try:
            if accounts:
                service.warm(accounts)
            yield service
        finally:
            service.stop()
            if folder is None:
                shutil.rmtree(place, ignore_errors=True)

    def fresh(self, setup: Setup) -> Path:
        """A folder for a ratelimitd, and its database."""
        folder = self.folder / f"ours{next(self._numbers)}"
        folder.mkdir()
        if setup.server is not None:
            owner = " OWNER bench" if isinstance(setup.server, PostgreSQL) else ""
            setup.server.sql(f"CREATE DATABASE {database_of(folder)}{owner}")
        return folder

    def load(self, service: Service, *options: str) -> Callable[[], Measured]:
        """One run of the load generator for the time of this bench."""
        return partial(service.measure, "-s", str(self.seconds), *options)

    def close(self) -> None:
        """Stop what was started."""
        self._stack.close()


def throughput(bench: Bench) -> Iterator[Row]:
    """1, 50 and 1,000 connections against the floor."""
    by_connections: dict[str, list[Measured]] = {}
    musts = {
        ("50", "throughput"): Must(at_least=0.4),
        ("1", "p50"): Must(at_most=3),
        ("50", "p99"): Must(at_most=4),
    }
    with bench.ours() as ours:
        for count in ("1", "50", "1000"):
            mine, floor = in_turn(bench.rounds, bench.load(ours, "-c", count), bench.load(bench.floor, "-c", count))
            by_connections[count] = mine
            name = f"{int(count):,} connection{'s'[: count != '1']}: "
            must = musts.get((count, "throughput"))
            yield compared(name + "throughput", "req/s", pairs(mine, floor), "floor", must)
            for figure, pick in FIGURES.items():
                yield compared(name + figure, "us", pairs(mine, floor, pick), "floor", musts.get((count, figure)))
        many, fifty = in_turn(bench.rounds, bench.load(ours, "-c", "1000"), bench.load(ours, "-c", "50"))
        must = Must(at_least=0.8)
        yield compared("1,000 connections: throughput", "req/s", pairs(many, fifty), "50 connections", must)


def requests(bench: Bench) -> Iterator[Row]:
    """DATA, with three recipients, against RCPT."""
    with bench.ours() as ours:
        data = bench.load(ours, "-d", "DATA", "-r", "3")
        floor = bench.load(bench.floor, "-d", "DATA", "-r", "3")
        at_data, at_recipient, answered = in_turn(bench.rounds, data, bench.load(ours), floor)
    yield compared("DATA: throughput", "req/s", pairs(at_data, at_recipient), "RCPT")
    yield compared("DATA: throughput", "req/s", pairs(at_data, answered), "floor")


def logs(bench: Bench) -> Iterator[Row]:
    """A log file, syslog, no log."""
    setups = {name: Setup(log=name) for name in ("file", "syslog", "none")}
    with contextlib.ExitStack() as stack:
        loads = []
        for name, setup in setups.items():
            folder = bench.fresh(setup)
            drain = Drain(folder / "log.sock") if name == "syslog" else None
            service = stack.enter_context(bench.ours(setup, folder=folder))
            loads.append(bench.load(service))
            if drain is not None:
                stack.callback(drain.stop)
        *measured, floor = in_turn(bench.rounds, *loads, bench.load(bench.floor))
    for name, mine in zip(setups, measured, strict=True):
        log = "no log" if name == "none" else f"log to {name}"
        yield compared(f"{log}: throughput", "req/s", pairs(mine, floor), "floor")
        yield compared(f"{log}: CPU per request", "us", pairs(mine, floor, FIGURES["CPU per request"]), "floor")


def journal(bench: Bench) -> Iterator[Row]:
    """With the journal, against without."""
    with bench.ours() as journaling, bench.ours(Setup(journal=False)) as without:
        mine, other = in_turn(bench.rounds * 2, bench.load(journaling), bench.load(without))
    yield compared("journal: throughput", "req/s", pairs(mine, other), "no journal", Must(at_least=0.9))
    cpu = FIGURES["CPU per request"]
    yield compared("journal: CPU per request", "us", pairs(mine, other, cpu), "no journal")


def stores(bench: Bench) -> Iterator[Row]:
    """MariaDB and PostgreSQL against SQLite, flushing every second."""
    sqlite = Setup(flush_interval_s=1)
    for name, server in (("MariaDB", bench.mariadb), ("PostgreSQL", bench.postgresql)):
        with bench.ours(sqlite) as embedded, bench.ours(replace(sqlite, server=server)) as shared:
            mine, other = in_turn(bench.rounds, bench.load(shared), bench.load(embedded))
        yield compared(f"{name}: throughput", "req/s", pairs(mine, other), "SQLite")
        yield compared(f"{name}: p99.9", "us", pairs(mine, other, FIGURES["p99.9"]), "SQLite")


def accounts(bench: Bench) -> Iterator[Row]:
    """1, 1,000 and 1,000,000 accounts, Zipf 1.0; the memory that the million takes."""
    with bench.ours(Setup(plain=True, by_domain=False), accounts=0) as one_limit:
        empty = one_limit.resident_bytes()
        one_limit.warm(MILLION)
        used = [(one_limit.resident_bytes() - empty) / MILLION]
        yield alone("1,000,000 accounts: memory of each", "bytes", used, Must(at_most=250))
    with bench.ours(accounts=0) as million, bench.ours() as thousand:
        million.warm(MILLION)
        zipf = ("-z", "1", "-k")
        one, other, most = in_turn(
            bench.rounds,
            bench.load(thousand, "-k", "1"),
            bench.load(thousand, *zipf, MANY),
            bench.load(million, *zipf, str(MILLION)),
        )
        yield compared("1 account: throughput", "req/s", pairs(one, other), "1,000 accounts")
        yield compared("1,000,000 accounts: throughput", "req/s", pairs(most, other), "1,000 accounts", Must(0.7))
        for figure in ("p99", "p99.9", "CPU per request"):
            figures = pairs(most, other, FIGURES[figure])
            yield compared(f"1,000,000 accounts: {figure}", "us", figures, "1,000 accounts")
        slowest = [m.figures.max_us / 1000 for m in most]
        yield alone("1,000,000 accounts: slowest reply", "ms", slowest)
        yield alone("1,000 accounts: slowest reply", "ms", [m.figures.max_us / 1000 for m in other])


def sliding(bench: Bench) -> Iterator[Row]:
    """One sliding limit and one fixed one, against two fixed ones; the memory of an account under a sliding limit."""
    with bench.ours(Setup(sliding=True)) as slides, bench.ours() as fixed:
        mine, other = in_turn(bench.rounds, bench.load(slides), bench.load(fixed))
    must = Must(at_least=0.85)
    yield compared("a sliding limit: throughput", "req/s", pairs(mine, other), "two fixed ones", must)
    for figure, pick in FIGURES.items():
        yield compared(f"a sliding limit: {figure}", "us", pairs(mine, other, pick), "two fixed ones")
    accounts = DIRTY if bench.short else MILLION
    yield alone(f"{accounts:,} accounts, {MAILS} mails of each in a day: memory", "bytes", [bytes_each(accounts)])


def stall(bench: Bench) -> Iterator[Row]:
    """How long the loop stands still while 10,000 accounts are flushed, also with their history and as parts."""
    setups = {"SQLite": Setup(watch=True, flush_interval_s=3600)}
    if not bench.short:
        setups["MariaDB"] = replace(setups["SQLite"], server=bench.mariadb)
        setups["PostgreSQL"] = replace(setups["SQLite"], server=bench.postgresql)
        for name in ("SQLite", "MariaDB", "PostgreSQL"):
            setups[f"{name}, history"] = replace(setups[name], history_days=30)
            setups[f"{name}, sliding"] = replace(setups[name], sliding=True)
    for name, setup in setups.items():
        with bench.ours(setup, accounts=DIRTY) as ours:
            ours.flush()
            noted = []
            for _ in range(bench.rounds * 2):
                ours.warm(DIRTY)
                noted.append(ours.flush())
        assert all(n["accounts"] >= DIRTY for n in noted)
        stalls = [(n["stall_s"] * 1000, n["idle_stall_s"] * 1000) for n in noted]
        yield compared(f"flush to {name}: longest stall", "ms", stalls, "no flush")
        yield alone(f"flush to {name}: longest stall", "ms", [s for s, _ in stalls], Must(at_most=10))
        steps = [n["step_s"] * 1000 for n in noted]
        yield alone(f"flush to {name}: longest step, CPU", "ms", steps, Must(at_most=10))
        yield alone(f"flush to {name}: duration", "ms", [n["seconds"] * 1000 for n in noted])
        yield alone(f"flush to {name}: rows", "per s", [n["accounts"] / n["seconds"] for n in noted])


def disk(bench: Bench) -> Iterator[Row]:
    """Logins that are seen for the first time, while another process writes and syncs on the same disk, and while none
    does."""
    accounts = DIRTY if bench.short else NEW
    measured: list[tuple[Measured, Measured]] = []
    for _ in range(bench.rounds):
        runs = []
        for busy in (True, False):
            with contextlib.ExitStack() as stack:
                if busy:
                    stack.callback(Neighbour(bench.folder / "neighbour").stop)
                ours = stack.enter_context(bench.ours(Setup(plain=True, by_domain=False), accounts=0))
                runs.append(ours.measure("-S", "-k", str(accounts), "-n", str(accounts), "-c", "50", timeout=3600))
        measured.append((runs[0], runs[1]))
    figure = FIGURES["p99.9"]
    p999 = [(figure(busy), figure(idle)) for busy, idle in measured]
    yield compared(f"{accounts:,} new logins, a busy disk: p99.9", "us", p999, "idle disk", Must(at_most=3))
    for name, which in (("a busy disk", 0), ("an idle disk", 1)):
        slowest = [pair[which].figures.max_us / 1000 for pair in measured]
        yield alone(f"{accounts:,} new logins, {name}: slowest reply", "ms", slowest)


def start(bench: Bench) -> Iterator[Row]:
    """From the start to the first connection: an empty table, and one with 1,000,000 rows."""
    setup = Setup()
    few, many = bench.fresh(setup), bench.fresh(setup)
    for folder in (few, many):
        with bench.ours(setup, accounts=0, folder=folder):
            pass
    with contextlib.closing(sqlite3.connect(many / "ratelimit.sqlite3")) as database, database:
        insert = "INSERT INTO ratelimit (sender, limit_name, quota, configured, used, expiry)"
        rows = ((f"user{i}@d{i % 97}.example.com",) for i in range(MILLION))
        database.executemany(f"{insert} VALUES (?, 'account', 9, 9, 1, 4000000000)", rows)
    seconds: list[tuple[float, float]] = []
    for _ in range(bench.rounds):
        with bench.ours(setup, accounts=0, folder=many) as full:
            pass
        with bench.ours(setup, accounts=0, folder=few) as empty:
            pass
        seconds.append((full.start_s, empty.start_s))
    yield compared("start with 1,000,000 rows", "s", seconds, "empty table")


def rest(bench: Bench) -> Iterator[Row]:
    """A daemon that nobody asks: what it takes to start, what it has in memory, how often it wakes."""
    rows: list[tuple[float, ...]] = []
    for _ in range(bench.rounds * 2):
        with bench.ours(Setup(plain=True), accounts=0) as ours:
            start_s, cpu_s = ours.start_s, ours.cpu_s()
            time.sleep(RESTS_S)  # a worker thread, the first refresh
            began, sleeps = time.monotonic(), ours.sleeps()
            time.sleep(RESTS_S)
            woken = (ours.sleeps() - sleeps) / (time.monotonic() - began)
            rows.append((start_s, cpu_s, ours.resident_bytes() / MIB, ours.peak_bytes() / MIB, woken))
    took_s, cpu_s_each, resting, peaks, wakes = zip(*rows, strict=True)
    yield alone("start", "s", took_s, Must(at_most=0.2))
    yield alone("start: CPU", "s", cpu_s_each)
    yield alone("at rest: memory", "MiB", resting, Must(at_most=28))
    yield alone("at rest: peak since the start", "MiB", peaks, Must(at_most=36))
    yield alone("at rest: woken", "per s", wakes)


def idle(bench: Bench) -> Iterator[Row]:
    """100 connections beside 450 idle and 450 trickling ones, against 100 alone."""
    with bench.ours() as ours:
        crowded = bench.load(ours, "-c", "100", "-i", "450", "-T", "450")
        mine, other = in_turn(bench.rounds * 2, crowded, bench.load(ours, "-c", "100"))
    yield compared("900 idle and trickling: throughput", "req/s", pairs(mine, other), "100 alone")
    for figure in ("p99", "CPU per request"):
        yield compared(f"900 idle and trickling: {figure}", "us", pairs(mine, other, FIGURES[figure]), "100 alone")


SECTIONS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    section.__name__: section
    for section in (throughput, requests, logs, journal, stores, accounts, sliding, stall, disk, start, rest, idle)
}
SHORT = ("throughput", "requests", "journal", "stall", "idle")


def by_connections(bench: Bench, counts: tuple[int, ...]) -> dict[int, tuple[float, float]]:
    """Throughput of ours and of the floor at each count of connections, medians: the plot."""
    found: dict[int, tuple[float, float]] = {}
    with bench.ours() as ours:
        for count in counts:
            runs = (bench.load(service, "-c", str(count)) for service in (ours, bench.floor))
            mine, floor = (median(map(per_second, measured)) for measured in in_turn(bench.rounds, *runs))
            found[count] = mine, floor
    return found
