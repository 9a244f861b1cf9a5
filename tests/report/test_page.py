"""contrib/doc/history.md: what history and report print is printed as the page says."""

import re
from pathlib import Path

from ratelimitd.ctl.bars import Bars
from ratelimitd.ctl.colours import HISTORY, coloured
from tests.report.scenario import BARS, history_text, report_text, reported

PAGE = (Path(__file__).parents[2] / "contrib" / "doc" / "history.md").read_text(encoding="utf-8")
PRINTED = re.findall(r"^```\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


def test_the_history_of_an_account() -> None:
    assert history_text() == PRINTED[0]


def test_the_report() -> None:
    assert report_text() == PRINTED[1]


def test_no_row_with_a_bar_is_wider_than_the_terminal() -> None:
    for columns in (80, 120, 200):
        for text in (history_text(Bars(columns)), report_text(Bars(columns)).partition("\n\nLIMIT")[0]):
            rows = [line for line in text.splitlines() if line.endswith(("#", "|"))]
            assert max(map(len, rows)) < columns
            assert max(map(len, rows)) >= columns - 3 or columns > 80
            assert text.isascii()


def test_what_is_over_the_quota_is_red_on_a_terminal_and_nothing_else() -> None:
    lines = coloured(history_text(), HISTORY).splitlines()
    over = [line for line in lines if " OVER " in re.sub(r"\x1b\[[0-9;]*m", "", line)]
    assert len(over) == 3
    assert all(line.count("\x1b[1;31m") == 2 for line in over)
    assert all("\x1b" not in line for line in lines if line not in over)
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured(history_text(), HISTORY)) == history_text()
    plain = coloured(history_text(Bars(BARS.columns)), HISTORY)
    assert plain.count("\x1b[1;31m") == 6


def test_the_page_says_whom_the_report_finds() -> None:
    report = reported()
    assert [one.key for one in report.new] == ["stolen@example.com"]
    assert report.counted_by == "daily"
    assert "So an hour with `USED` 27" in PAGE
