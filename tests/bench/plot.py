"""The plots: throughput against connections, and what a request costs as the work grows."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.rows import Row

OURS = {"marker": "o", "color": "tab:blue"}
FLOOR = {"marker": "s", "color": "tab:orange", "linestyle": "--"}
FEW = 10
"""Up to so many times the least the counts stand to scale; more on a logarithmic axis."""


def draw_throughput(found: dict[int, tuple[float, float]], file: Path) -> None:
    """Write a PNG of {connections: (ours, floor)}. Raises ModuleNotFoundError without matplotlib."""
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    counts = list(found)
    ours, floor = [found[c][0] for c in counts], [found[c][1] for c in counts]
    axes.plot(counts, floor, label="C floor: answers, and does nothing else", **FLOOR)
    axes.plot(counts, ours, label="ratelimitd: two limits, journal, log file", **OURS)
    for count, mine, other in zip(counts, ours, floor, strict=True):
        axes.annotate(f"{mine / other:.2f}", (count, mine), (0, 7), textcoords="offset points", ha="center")
    axes.set_xscale("log")
    axes.set_xticks(counts, [str(c) for c in counts], minor=False)
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("connections")
    axes.set_ylabel("requests per second")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=120)
    pyplot.close(figure)


def draw_costs(rows: Sequence[Row], file: Path) -> None:
    """Write a PNG of the rows that have a point: a small plot for each thing that grows. Raises as draw_throughput."""
    pyplot = _pyplot()
    grown = list(dict.fromkeys(row.point.of for row in rows if row.point))
    figure, plots = pyplot.subplots(2, 2, figsize=(10, 7.5), layout="constrained")
    for axes, of in zip(plots.flat, grown, strict=False):
        _draw_cost(axes, of, [row for row in rows if row.point and row.point.of == of])
    handles, labels = plots.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    figure.suptitle("CPU time of a request as the work grows, in microseconds")
    figure.savefig(file, dpi=120)
    pyplot.close(figure)


def _draw_cost(axes: Any, of: str, rows: Sequence[Row]) -> None:
    """From 0, so that what is flat looks flat."""
    counts = [row.point.count for row in rows if row.point]
    first, last = rows[0].ours, rows[-1].ours
    title = f"{counts[-1]:,} {of}: {last / first:.2f} times the CPU of {counts[0]:,}"
    if counts[-1] <= FEW * counts[0]:
        title += f", {(last - first) / (counts[-1] - counts[0]):+.1f} us each"
    else:
        axes.set_xscale("log")
    for label, costs, look in (
        ("ratelimitd: journal and log file on", [row.ours for row in rows], OURS),
        ("C floor under the same load: answers, and does nothing else", [row.other for row in rows], FLOOR),
    ):
        axes.plot(counts, costs, label=label, **look)
        _label(axes, counts, costs, look["color"])
    axes.set_title(title)
    axes.set_xticks(counts, [f"{count:,}" for count in counts], minor=False)
    axes.minorticks_off()
    axes.margins(x=0.08)
    axes.set_ylim(0, 1.2 * max(max(row.ours, row.other) for row in rows))
    axes.set_xlabel(of)
    axes.set_ylabel("CPU per request, us")
    axes.grid(alpha=0.3)


def _label(axes: Any, counts: Sequence[int], costs: Sequence[float], color: str) -> None:
    """Each figure above its mark, on white, so that no line runs through it."""
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8}
    for count, cost in zip(counts, costs, strict=True):
        place = {"xytext": (0, 8), "textcoords": "offset points", "ha": "center"}
        axes.annotate(f"{cost:.1f}", (count, cost), color=color, bbox=ground, **place)


def _pyplot() -> Any:
    importlib.import_module("matplotlib").use("Agg")
    return importlib.import_module("matplotlib.pyplot")
