"""The line that says how far a long work is."""

import io
import sys

import pytest

from ratelimitd.ctl.progress import Progress


class Terminal(io.StringIO):
    """What thinks that it is one."""

    def isatty(self) -> bool:
        return True


def test_it_is_drawn_in_place_and_taken_away_and_nothing_in_it_controls_the_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "40")
    progress = Progress()
    progress.show(lambda: "12 rows of the history, as far as \x1b[2J" + "漢" * 40)
    progress.show(lambda: pytest.fail("it was drawn a moment ago"))
    progress.clear()
    drawn = terminal.getvalue()
    line = drawn.removeprefix("\r\x1b[K").removesuffix("\r\x1b[K")
    assert line.startswith("12 rows of the history")
    assert line.endswith("...")
    assert line.isprintable()
    assert len(line) < 40


def test_elsewhere_nothing_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    progress.show(lambda: pytest.fail("nobody sees it"))
    progress.clear()
    assert capsys.readouterr().err == ""
