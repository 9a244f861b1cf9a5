"""What `ratelimitctl top` shows on a screen of any size, whatever keys are made of."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimitd.control.answers import AccountView, LimitRanking, Ranking
from ratelimitd.ctl import tables
from ratelimitd.ctl.top.frame import Shown, lines, table
from ratelimitd.log.colour import GREEN, RED, YELLOW

WIDE = "名前@例え.jp"
COMBINING = "e\u0301o\u0308\u20dd@example.com"
HOSTILE = "\x1b[2J\n\t\u202e@example.com"
KEYS = st.text(st.characters() | st.sampled_from("名\u0301\u20dd\ufe0f\u1161\x1b\n😀"), min_size=1, max_size=60)


def account(key: str, used: int, quota: int | None = 10) -> AccountView:
    left = None if quota is None else max(0, quota - used)
    return AccountView(
        "day",
        key,
        "daily",
        quota,
        "configured",
        used,
        left,
        0,
        0,
        "2026-11-27 00:00:00 +0000",
        "recipients",
        True,
        True,
    )


def ranking(*accounts: AccountView, time: float = 0, limits: int = 1) -> Ranking:
    return Ranking(time, [LimitRanking(f"limit{i}", "daily", [*accounts]) for i in range(limits)])


def drawn(shown: Shown, columns: int = 80, rows: int = 24) -> list[str]:
    return [text for _, text in lines(shown, "", columns, rows)]


def test_wide_and_combining_and_control_characters_leave_the_columns_in_their_places() -> None:
    accounts = [account(key, 7) for key in ("a" * 40, WIDE, COMBINING, HOSTILE)]
    for columns in (200, 60, 40, 30):
        rows = [line for line in drawn(Shown(ranking(*accounts)), columns) if " 7 " in line or line.endswith("70")]
        assert len(rows) == 4
        assert len({tables.width(row[: row.rindex("70")]) for row in rows}) == 1
        assert not any("\x1b" in row or "\u202e" in row for row in rows)


@given(st.lists(KEYS, max_size=12), st.integers(1, 120), st.integers(1, 40), st.integers(1, 5))
def test_a_screen_is_filled_and_never_overfilled(keys: list[str], columns: int, rows: int, limits: int) -> None:
    accounts = [account(key, 12_345 * i, None if i % 3 else 10) for i, key in enumerate(keys)]
    shown = Shown(ranking(*accounts, time=60, limits=limits), ranking(*accounts, limits=limits), "rate")
    made = drawn(shown, columns, rows)
    assert len(made) == rows
    assert made[-1].startswith("q quit")
    for line in made:
        assert line.isprintable()
        assert tables.width(tables.fitted(line, columns)) <= columns


def test_a_narrow_screen_shows_key_and_use_and_mark() -> None:
    made = drawn(Shown(ranking(account("a-rather-long-name@a-long-domain.example", 1_234_567, 1_000_000))), 40)
    row = next(line for line in made if "1,234,567" in line)
    assert row.startswith("a-rather-")
    assert row.endswith("OVER")
    assert len(row) <= 40


def test_limits_share_the_lines_and_what_one_does_not_need_the_others_get() -> None:
    many, few = [account(f"user{i}", 20 - i) for i in range(20)], [account("one", 1)]
    shown = Shown(Ranking(0, [LimitRanking("a", "daily", many), LimitRanking("b", "daily", few)]))
    made = drawn(shown, 80, 24)
    assert sum(line.startswith("user") for line in made) == 14
    assert sum(line.startswith("one") for line in made) == 1
    assert "limits not shown: 28" in drawn(Shown(ranking(*few, limits=30)), 100, 12)[-1]


def test_an_account_is_coloured_by_its_share_and_marked_by_a_word() -> None:
    accounts = [account("a", 11), account("b", 10), account("c", 9), account("d", 1), account("e", 99, None)]
    found = {
        text.split()[0]: (colour, text.split()[-5:])
        for colour, text in lines(Shown(ranking(*accounts)), "", 80, 24)
        if text
    }
    assert [found[key][0] for key in "abcde"] == [RED, RED, YELLOW, GREEN, ""]
    assert "OVER" in found["a"][1]
    assert "FULL" in found["b"][1]
    assert not {"OVER", "FULL"} & {*found["c"][1], *found["d"][1], *found["e"][1]}


@pytest.mark.parametrize(("sort", "first"), [("use", "big"), ("rate", "fast")])
def test_what_comes_first(sort: str, first: str) -> None:
    before = ranking(account("big", 100, None), account("fast", 1, None))
    now = ranking(account("big", 101, None), account("fast", 9, None), time=60)
    rows = [line.split() for line in table(Shown(now, before, sort)).splitlines() if line.startswith(("big", "fast"))]
    assert rows[0][0] == first
    assert {row[0]: row[3] for row in rows} == {"big": "1", "fast": "8"}


@given(KEYS, st.integers(0, 70))
def test_a_text_is_cut_to_its_columns(text: str, columns: int) -> None:
    fitted = tables.fitted(text, columns)
    assert tables.width(fitted) <= columns
    assert fitted == text or fitted.endswith("..."[:columns])


@pytest.mark.parametrize("rows", range(1, 12))
def test_that_there_is_no_room_is_not_that_nobody_has_sent(rows: int) -> None:
    assert not any("nobody" in line for line in drawn(Shown(ranking(account("alice", 1), limits=2)), 80, rows))
    assert any("nobody has sent yet" in line for line in drawn(Shown(ranking(limits=1)), 80, max(rows, 5)))
