"""`python -m tests.bench`: ratelimitd and the C floor measured in turn; a table of ratios and plots."""

import argparse
import compileall
import contextlib
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec

import ratelimitd
from tests.bench.bench import Bench
from tests.bench.plot import draw_costs, draw_throughput
from tests.bench.rows import Row, cells, table
from tests.bench.sections import SECTIONS, SHORT
from tests.bench.sections.answers import by_connections
from tests.instances.components import ComponentMissing

NONE = Path("-")
PLOTTED = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
PLOTTED_SHORT = (1, 10, 50, 200, 1000)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--short", action="store_true", help=f"under a minute: {', '.join(SHORT)}")
    parser.add_argument("--only", action="append", choices=SECTIONS, metavar="NAME", help=", ".join(SECTIONS))
    parser.add_argument("--rounds", type=int, help="pairs of runs for each ratio (5; short: 3)")
    parser.add_argument("--seconds", type=float, help="of a run (2; short: 0.7)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there, too")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="where the PNG of the throughput goes (a temporary file); - for none"
    )
    parser.add_argument("--costs", type=Path, metavar="FILE", help="where the PNG of the section costs goes; the same")
    return parser


@contextlib.contextmanager
def _bench(options: argparse.Namespace) -> Iterator[Bench]:
    rounds = options.rounds or (3 if options.short else 5)
    seconds = options.seconds or (0.7 if options.short else 2.0)
    with tempfile.TemporaryDirectory(prefix="ratelimitd-bench-", ignore_cleanup_errors=True) as folder:
        bench = Bench(Path(folder), rounds, seconds, options.short)
        try:
            yield bench
        finally:
            bench.close()


def _measure(bench: Bench, names: list[str]) -> list[Row]:
    rows: list[Row] = []
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            for row in SECTIONS[name](bench):
                rows.append(row)
                print("   ", " ".join(filter(None, cells(row))), file=sys.stderr, flush=True)
        except ComponentMissing as error:
            print(f"{name}: left out: {error}", file=sys.stderr)
    return rows


def _draw(what: str, draw: Callable[[Path], None], file: Path | None) -> None:
    """Have a plot drawn, into a temporary file where none was named."""
    if file is None:
        descriptor, name = tempfile.mkstemp(prefix="ratelimitd-bench-", suffix=".png")
        os.close(descriptor)
        file = Path(name)
    try:
        draw(file)
    except ModuleNotFoundError as error:
        print(f"no plot: {error}; pip install -e '.[bench]'", file=sys.stderr)
    else:
        print(f"\n{what}: {file}")


def _draw_throughput(bench: Bench, file: Path) -> None:
    print("plot ...", file=sys.stderr, flush=True)
    draw_throughput(by_connections(bench, PLOTTED_SHORT if bench.short else PLOTTED), file)


def main(arguments: list[str] | None = None) -> int:
    """Measure, and print what was found."""
    options = _parser().parse_args(arguments)
    names = options.only or (list(SHORT) if options.short else list(SECTIONS))
    began = time.monotonic()
    # As an installer does. Where Python may write no bytecode, a daemon compiles its source at each start: 80 ms.
    compileall.compile_dir(Path(ratelimitd.__file__).parent, quiet=1)
    with _bench(options) as bench:
        rows = _measure(bench, names)
        print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}, ", end="")
        print(f"{bench.rounds} rounds of {bench.seconds:g} s; medians, ratios pair by pair\n")
        print(table(rows), flush=True)
        if options.json:
            options.json.write_bytes(msgspec.json.format(msgspec.json.encode(rows)))
        if options.costs != NONE and any(row.point for row in rows):
            _draw("what a request costs", partial(draw_costs, rows), options.costs)
        if options.plot != NONE and (options.plot or not options.only):
            _draw("throughput against connections", partial(_draw_throughput, bench), options.plot)
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
