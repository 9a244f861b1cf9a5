"""What it keeps: counts in memory, their windows, and the way to the database."""

from collections.abc import Iterator
from dataclasses import replace

from tests.bench.bench import Bench
from tests.bench.parts import MAILS, bytes_each
from tests.bench.rows import FIGURES, Must, Row, alone, compared, in_turn, pairs
from tests.bench.service import Setup

MILLION = 1_000_000
DIRTY = 10_000
MANY = "1000"


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
    with bench.ours(Setup(plain=True, limits=1), accounts=0) as one_limit:
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
