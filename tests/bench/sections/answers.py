"""How fast it answers, and what log, journal and idle connections cost of that."""

import contextlib
from collections.abc import Iterator
from statistics import median

from tests.bench.bench import Bench
from tests.bench.rows import FIGURES, Must, Row, compared, in_turn, pairs, per_second
from tests.bench.service import Drain, Measured, Setup


def throughput(bench: Bench) -> Iterator[Row]:
    """1, 5, 50 and 1,000 connections against the floor."""
    by_connections: dict[str, list[Measured]] = {}
    musts = {
        ("1", "p50"): Must(at_most=3),
        ("1", "CPU per request"): Must(at_most=2.0),
        ("5", "CPU per request"): Must(at_most=3.6),
        ("50", "throughput"): Must(at_least=0.45),
        ("50", "p99"): Must(at_most=2.5),
    }
    with bench.ours() as ours:
        for count in ("1", "5", "50", "1000"):
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


def idle(bench: Bench) -> Iterator[Row]:
    """100 connections beside 450 idle and 450 trickling ones, against 100 alone."""
    with bench.ours() as ours:
        crowded = bench.load(ours, "-c", "100", "-i", "450", "-T", "450")
        mine, other = in_turn(bench.rounds * 2, crowded, bench.load(ours, "-c", "100"))
    yield compared("900 idle and trickling: throughput", "req/s", pairs(mine, other), "100 alone")
    for figure in ("p99", "CPU per request"):
        yield compared(f"900 idle and trickling: {figure}", "us", pairs(mine, other, FIGURES[figure]), "100 alone")


def by_connections(bench: Bench, counts: tuple[int, ...]) -> dict[int, tuple[float, float]]:
    """Throughput of ours and of the floor at each count of connections, medians: the plot."""
    found: dict[int, tuple[float, float]] = {}
    with bench.ours() as ours:
        for count in counts:
            runs = (bench.load(service, "-c", str(count)) for service in (ours, bench.floor))
            mine, floor = (median(map(per_second, measured)) for measured in in_turn(bench.rounds, *runs))
            found[count] = mine, floor
    return found
