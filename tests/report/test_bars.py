"""Bars: how long they are, where the quota's mark is, and what a terminal without UTF-8 gets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimitd.ctl.bars import NARROWEST, WIDEST, Bars, Scale, bars

TEN = Bars(80)


@pytest.mark.parametrize(
    ("used", "bar"),
    [
        (0, "        |"),
        (1, "#       |"),
        (50, "####    |"),
        (100, "########|"),
        (101, "########|#"),
        (125, "########|##"),
    ],
)
def test_a_bar_passes_the_mark_where_the_quota_is_exceeded(used: int, bar: str) -> None:
    assert TEN.bar(used, Scale([0, 125], 100), 10) == bar


def test_a_bar_without_a_quota_has_no_mark() -> None:
    assert [TEN.bar(used, Scale([0, 100]), 10) for used in (0, 1, 50, 100)] == ["", "#", "#####", "##########"]


@given(st.lists(st.integers(0, 10**6), min_size=1), st.none() | st.integers(1, 10**6), st.integers(NARROWEST, WIDEST))
def test_no_bar_is_longer_than_there_is_room(numbers: list[int], quota: int | None, longest: int) -> None:
    for used in numbers:
        made = TEN.bar(used, Scale(numbers, quota), longest)
        assert len(made) <= longest + 1
        if quota is not None:
            before, _, after = made.partition("|")
            assert bool(after) == (used > quota)
            assert set(before) <= {"#", " "}
            assert (not after) or " " not in before


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_lines_fit_the_terminal(columns: int) -> None:
    rows = [("2026-11-23 00:00", used) for used in (1, 500, 1300)]
    made = Bars(columns).table(("FROM", "USED"), rows, (1,), Scale([1, 500, 1300], 1000))
    longest = max(map(len, made.splitlines()))
    assert longest < max(columns, 24 + NARROWEST + 4)
    assert longest > min(columns - 3, 24 + WIDEST)


@pytest.mark.parametrize(
    ("environment", "full"),
    [
        ({"LANG": "de_CH.UTF-8"}, "█"),
        ({"LANG": "de_CH.utf8"}, "█"),
        ({"LANG": "de_CH.ISO-8859-1"}, "#"),
        ({"LANG": "C"}, "#"),
        ({}, "#"),
        ({"LC_CTYPE": "C.UTF-8"}, "#"),  # Python itself sets it so where the locale is C
        ({"LC_CTYPE": "C.UTF-8", "LANG": "C.UTF-8"}, "█"),
        ({"LC_CTYPE": "en_GB.UTF-8", "LANG": "C"}, "█"),
        ({"LC_ALL": "C", "LANG": "de_CH.UTF-8"}, "#"),
        ({"LC_ALL": "sr_RS.UTF-8@latin"}, "█"),
    ],
)
def test_bars_are_ascii_where_the_locale_is_not_utf_8(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], full: str
) -> None:
    for name in ("LC_ALL", "LC_CTYPE", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stdout", open(1, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
    assert bars().full == full
    monkeypatch.setattr("sys.stdout", open(1, "w", encoding="ascii", closefd=False))  # noqa: SIM115
    assert bars().full == "#"


def test_bars_are_as_wide_as_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "123")
    assert bars().columns == 123
