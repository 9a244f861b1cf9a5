"""What it does to the machine, and the machine to it: start, rest, a busy disk."""

import contextlib
import sqlite3
import time
from collections.abc import Iterator

from tests.bench.bench import Bench
from tests.bench.rows import FIGURES, Must, Row, alone, compared
from tests.bench.service import Measured, Neighbour, Setup

MILLION = 1_000_000
FEW = 10_000
NEW = 600_000
MIB = 1 << 20
RESTS_S = 2.0


def disk(bench: Bench) -> Iterator[Row]:
    """Logins that are seen for the first time, while another process writes and syncs on the same disk, and while none
    does."""
    accounts = FEW if bench.short else NEW
    measured: list[tuple[Measured, Measured]] = []
    for _ in range(bench.rounds):
        runs = []
        for busy in (True, False):
            with contextlib.ExitStack() as stack:
                if busy:
                    stack.callback(Neighbour(bench.folder / "neighbour").stop)
                ours = stack.enter_context(bench.ours(Setup(plain=True, limits=1), accounts=0))
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
