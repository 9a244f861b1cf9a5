"""What a request costs as the work grows: CPU per request with more accounts, connections, limits and nodes."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from tests.bench.bench import Bench
from tests.bench.rows import Point, Row, compared, in_turn
from tests.bench.service import Service, Setup, cpu_us_together

ACCOUNTS = (1_000, 100_000, 1_000_000)
CONNECTIONS = (1, 5, 50, 1_000)
LIMITS = (1, 2, 5, 10)
NODES = (1, 2, 4)
SHORTENED = 2
NODE = ("-c", "10", "-w", "4000")
"""What each node is asked: the same however many there are, and together less than two cores can do."""

Costs = Callable[[], float]


def costs(bench: Bench) -> Iterator[Row]:
    """Each against the floor under the same load, and the most against the least: flat is 1."""
    for curve in (_accounts, _connections, _limits, _nodes):
        yield from curve(bench)


def _accounts(bench: Bench) -> Iterator[Row]:
    """Zipf 1.0; what was charged is stored each second, so that the most of it is stored while it is measured."""
    runs: dict[int, tuple[Costs, Costs]] = {}
    with contextlib.ExitStack() as stack:
        for count in _counts(bench, ACCOUNTS):
            ours = stack.enter_context(bench.ours(Setup(flush_interval_s=1), accounts=count))
            runs[count] = _pair(bench, [ours], [bench.floor], "-z", "1", "-k", str(count))
        yield from _curve(bench, "accounts", runs)


def _connections(bench: Bench) -> Iterator[Row]:
    with bench.ours() as ours:
        counts = _counts(bench, CONNECTIONS)
        runs = {count: _pair(bench, [ours], [bench.floor], "-c", str(count)) for count in counts}
        yield from _curve(bench, "connections", runs)


def _limits(bench: Bench) -> Iterator[Row]:
    with contextlib.ExitStack() as stack:
        runs: dict[int, tuple[Costs, Costs]] = {}
        for count in _counts(bench, LIMITS):
            ours = stack.enter_context(bench.ours(Setup(limits=count)))
            runs[count] = _pair(bench, [ours], [bench.floor])
        yield from _curve(bench, "limits", runs)


def _nodes(bench: Bench) -> Iterator[Row]:
    """Nodes on one MariaDB that all count the same 1,000 accounts, and store them each second."""
    counts = _counts(bench, NODES)
    setup = Setup(server=bench.mariadb, database="nodes", flush_interval_s=1)
    bench.mariadb.sql("CREATE DATABASE nodes")
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(bench.ours(setup)) for _ in range(max(counts))]
        runs = {count: _pair(bench, nodes[:count], bench.floors(count), *NODE) for count in counts}
        yield from _curve(bench, "nodes", runs)


def _pair(bench: Bench, ours: Sequence[Service], floors: Sequence[Service], *options: str) -> tuple[Costs, Costs]:
    """A run of ours, and one of as many floors under the same load."""
    timed = ("-s", str(bench.seconds), *options)
    return partial(cpu_us_together, ours, *timed), partial(cpu_us_together, floors, *timed)


def _counts(bench: Bench, counts: tuple[int, ...]) -> tuple[int, ...]:
    return counts[:SHORTENED] if bench.short else counts


def _curve(bench: Bench, of: str, runs: Mapping[int, tuple[Costs, Costs]]) -> Iterator[Row]:
    """A row for each count, and one of the most against the least, from runs that take turns."""
    measured = in_turn(bench.rounds, *(run for pair in runs.values() for run in pair))
    ours, floors = measured[::2], measured[1::2]
    for count, mine, floor in zip(runs, ours, floors, strict=True):
        name = f"{count:,} {of if count > 1 else of.removesuffix('s')}: CPU per request"
        yield compared(name, "us", list(zip(mine, floor, strict=True)), "floor", point=Point(of, count))
    yield compared(
        f"{max(runs):,} {of}: CPU per request", "us", list(zip(ours[-1], ours[0], strict=True)), f"{min(runs):,}"
    )
