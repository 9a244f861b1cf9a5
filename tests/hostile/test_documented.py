"""What contrib/doc/operations.md says of bounds and their cost is so."""

import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

import ratelimitd.metrics
from ratelimitd.core.counters import Meter
from ratelimitd.settings import LogSettings, NotifySettings, Server
from tests.core.build import limit, memo

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"\| `([a-z_]+)\.([a-z_]+)` \| ([0-9,]+)( [KM]iB)? \| (.*) \| (.*) \| (.*) \| (.*) \|")
TABLES = {"server": Server(), "log": LogSettings(), "notify": NotifySettings()}
UNITS = {None: 1, " KiB": 1 << 10, " MiB": 1 << 20}
MANY = 20_000


def rows() -> list[re.Match[str]]:
    return list(ROW.finditer((ROOT / "contrib" / "doc" / "operations.md").read_text(encoding="utf-8")))


def documented_bytes(setting: str) -> int:
    [cost] = [row[6] for row in rows() if row[2] == setting]
    found = re.match(r"([0-9]+) bytes", cost)
    assert found is not None
    return int(found[1])


def test_every_bound_that_is_documented_is_a_setting_with_its_default_and_a_metric() -> None:
    metrics = Path(ratelimitd.metrics.__file__).read_text(encoding="utf-8")
    assert len(rows()) == 8
    for row in rows():
        assert getattr(TABLES[row[1]], row[2]) == int(row[3].replace(",", "")) * UNITS[row[4]]
        for name in re.findall(r"`([a-z_]+)_total", row[8]):
            assert f'"{name}"' in metrics


def test_every_bound_of_what_a_client_may_take_is_documented() -> None:
    bounds = {name for name in Server.__struct_fields__ if name.startswith("max_")}
    assert bounds <= {row[2] for row in rows()}


def accounts() -> object:
    meter = Meter(limit(1000))
    for number in range(MANY):
        meter.accept(f"user{number:06d}@customer.example.com", None, 0, 1)
    return meter


def transactions() -> object:
    charges = memo(10 * MANY)
    for number in range(MANY):
        key = f"1a2b.65a1b2c3.{number:x}.0 user{number:06d}@customer.example.com"
        charges.admit(key, None, f"{number}@recipient.example", 1)
    return charges


def recipients() -> object:
    charges = memo(max_recipients=10 * MANY)
    for number in range(MANY // 500):
        for recipient in range(500):
            charges.admit(
                f"{number}.a", charges.find(f"{number}.a"), f"someone{number}.{recipient}@recipient.example", 1
            )
    return charges


@pytest.mark.parametrize(
    ("setting", "make"),
    [("max_accounts", accounts), ("max_transactions", transactions), ("max_remembered_recipients", recipients)],
)
def test_what_each_costs_is_what_is_documented(setting: str, make: Callable[[], object]) -> None:
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        made = make()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert made
    each = (after - before) / MANY
    assert documented_bytes(setting) / 2 < each < documented_bytes(setting) * 1.5  # dictionaries grow by doubling
