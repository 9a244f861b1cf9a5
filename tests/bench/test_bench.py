"""The bench itself: it runs, and says what it should. Nothing about how fast anything is."""

from pathlib import Path

import msgspec
import pytest

from tests.bench import stages
from tests.bench.__main__ import main
from tests.bench.plot import draw_costs
from tests.bench.rows import Must, Point, Row, alone, compared, table
from tests.conftest import require

pytestmark = pytest.mark.real


def run(*arguments: str) -> None:
    require("gcc")
    assert main(["--rounds", "1", "--seconds", "0.1", "--plot", "-", "--costs", "-", *arguments]) == 0


def test_the_bench_prints_a_table_and_writes_its_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rows.json"
    run("--only", "journal", "--only", "idle", "--json", str(file))
    printed = capsys.readouterr().out
    assert "| journal: throughput " in printed
    assert "| 900 idle and trickling: p99 " in printed
    rows = msgspec.json.decode(file.read_bytes(), type=list[Row])
    assert [row.name for row in rows][:2] == ["journal: throughput", "journal: CPU per request"]
    assert all(row.ours > 0 for row in rows if row.unit == "req/s")


def test_a_real_postfix_sends_through_the_daemon_the_floor_and_neither(capsys: pytest.CaptureFixture[str]) -> None:
    require("postfix")
    run("--only", "postfix")
    printed = capsys.readouterr().out
    for recipients in ("1 recipient", "3 recipients"):
        assert f"| Postfix, {recipients}: throughput " in printed
        assert f"| Postfix, {recipients}: CPU per request " in printed


def test_what_a_request_costs_is_told_for_all_that_grows(tmp_path: Path) -> None:
    require("mariadb")
    file = tmp_path / "rows.json"
    run("--short", "--only", "costs", "--json", str(file))
    rows = msgspec.json.decode(file.read_bytes(), type=list[Row])
    points = [(row.point.of, row.point.count) for row in rows if row.point]
    assert points[::2] == [("accounts", 1000), ("connections", 1), ("limits", 1), ("nodes", 1)]
    assert all(row.ours > row.other > 0 for row in rows if row.point)


def test_the_costs_become_one_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "costs.png"
    points = [Point(of, count) for of in ("accounts", "connections", "limits", "nodes") for count in (1, 10)]
    draw_costs([compared("CPU", "us", [(20, 5)], "floor", point=point) for point in points], file)
    assert file.read_bytes().startswith(b"\x89PNG")


def test_the_stages_of_a_request_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "COUNT", 500)
    monkeypatch.setattr(stages, "REPEATS", 1)
    found = stages.measure()
    assert list(found)[-2:] == ["the pump itself", "in all"]
    assert sum(list(found.values())[:-1]) == pytest.approx(found["in all"])


def test_ratios_are_taken_pair_by_pair() -> None:
    row = compared("throughput", "req/s", [(10, 100), (40, 50), (30, 100)], "floor", Must(at_least=0.4))
    assert (row.ours, row.other, row.ratio, row.low, row.high) == (30, 100, 0.3, 0.1, 0.8)
    assert "| >= 0.4 NO |" in table([row])


def test_a_figure_alone_is_held_against_its_own_bound() -> None:
    assert alone("memory", "bytes", [390, 400, 410], Must(at_most=400)).verdict == "<= 400 yes"
