"""The rows of the table: ratios taken pair by pair, and their medians."""

from collections.abc import Callable, Sequence
from statistics import median
from typing import TypeVar

import msgspec

from tests.bench.service import Measured

T = TypeVar("T")
Pick = Callable[[Measured], float]

FIGURES: dict[str, Pick] = {
    "p50": lambda m: m.figures.p50_us,
    "p99": lambda m: m.figures.p99_us,
    "p99.9": lambda m: m.figures.p999_us,
    "CPU per request": lambda m: m.cpu_us,
}


class Must(msgspec.Struct, frozen=True):
    """What a ratio, or a figure of its own, has to reach."""

    at_least: float | None = None
    at_most: float | None = None

    def reached(self, value: float) -> bool:
        """Whether the value is within."""
        enough = self.at_least is None or value >= self.at_least
        return enough and (self.at_most is None or value <= self.at_most)

    def __str__(self) -> str:
        return f"<= {self.at_most:g}" if self.at_least is None else f">= {self.at_least:g}"


class Point(msgspec.Struct, frozen=True):
    """Where a row stands in a plot of the cost: with so many of what grows."""

    of: str
    count: int


class Row(msgspec.Struct):
    """Medians of ours and of what it is compared with, and the ratio's median, least and greatest.

    Where it is compared with nothing, `against` is "" and the ratios are the figure itself.
    """

    name: str
    unit: str
    ours: float
    against: str
    other: float
    ratio: float
    low: float
    high: float
    must: Must | None = None
    point: Point | None = None

    @property
    def verdict(self) -> str:
        """Whether the median is what it must be."""
        if self.must is None:
            return ""
        return f"{self.must} {'yes' if self.must.reached(self.ratio) else 'NO'}"


def compared(
    name: str,
    unit: str,
    pairs: Sequence[tuple[float, float]],
    against: str,
    must: Must | None = None,
    point: Point | None = None,
) -> Row:
    """A row of pairs (ours, other), each pair measured one right after the other."""
    ratios = [ours / other if other else float("nan") for ours, other in pairs]
    ours, others = median(p[0] for p in pairs), median(p[1] for p in pairs)
    return Row(name, unit, ours, against, others, median(ratios), min(ratios), max(ratios), must, point)


def alone(name: str, unit: str, figures: Sequence[float], must: Must | None = None) -> Row:
    """A row of figures that are compared with nothing."""
    middle = median(figures)
    return Row(name, unit, middle, "", 0.0, middle, min(figures), max(figures), must)


def per_second(measured: Measured) -> float:
    """Requests per second."""
    return measured.figures.per_second


def pairs(ours: Sequence[Measured], others: Sequence[Measured], pick: Pick = per_second) -> list[tuple[float, float]]:
    """The same figure of the runs of each round."""
    return [(pick(a), pick(b)) for a, b in zip(ours, others, strict=True)]


def in_turn(rounds: int, *runs: Callable[[], T]) -> list[list[T]]:
    """Each run once per round, every other round in the opposite order; the results of each run, by round."""
    results: list[list[T]] = [[] for _ in runs]
    for number in range(rounds):
        order = range(len(runs)) if number % 2 == 0 else reversed(range(len(runs)))
        for i in order:
            results[i].append(runs[i]())
    return results


HEADS = ("", "unit", "ours", "other", "against", "ratio", "least", "most", "must")


def cells(row: Row) -> tuple[str, ...]:
    """A row's texts under HEADS."""
    if not row.against:
        return row.name, row.unit, _number(row.ours), "", "", "", _number(row.low), _number(row.high), row.verdict
    ratio, low, high = (f"{x:.2f}" for x in (row.ratio, row.low, row.high))
    return row.name, row.unit, _number(row.ours), _number(row.other), row.against, ratio, low, high, row.verdict


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table whose columns stand under each other."""
    lines = [HEADS, *map(cells, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADS))]
    texts = ["| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines]
    texts.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(texts)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
