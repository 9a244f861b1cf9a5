"""The plot of throughput against connections."""

import importlib
from pathlib import Path


def draw(found: dict[int, tuple[float, float]], file: Path) -> None:
    """Write a PNG of {connections: (ours, floor)}. Raises ModuleNotFoundError without matplotlib."""
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    pyplot = importlib.import_module("matplotlib.pyplot")
    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    counts = list(found)
    ours, floor = [found[c][0] for c in counts], [found[c][1] for c in counts]
    axes.plot(counts, floor, marker="s", label="C floor: answers, and does nothing else")
    axes.plot(counts, ours, marker="o", label="ratelimitd: two limits, journal, log file")
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
