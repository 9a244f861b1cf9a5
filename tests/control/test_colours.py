"""Colours of `status` and `doctor`: on a terminal alone, and the text is the same without."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ratelimitd.ctl.colours import DOCTOR, STATUS, Colours, coloured
from tests.control.conftest import Start
from tests.daemon.process import Ratelimitd

PROGRAM = Path(sys.executable).with_name("ratelimitctl")
CODES = re.compile("\x1b\\[[0-9;]*m")


def on_a_terminal(daemon: Ratelimitd, *arguments: str, **environment: str) -> str:
    """What a run of ratelimitctl prints on a pseudo-terminal."""
    master, slave = pty.openpty()
    variables = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    process = subprocess.Popen(
        [PROGRAM, "-c", daemon.file, *arguments], stdout=slave, env=variables | {"TERM": "xterm"} | environment
    )
    os.close(slave)
    text = b""
    while True:
        try:
            text += os.read(master, 65536)
        except OSError:  # EIO: the program is over
            break
    os.close(master)
    process.wait(30)
    return text.decode().replace("\r\n", "\n")


def test_status_is_coloured_on_a_terminal_and_its_words_stay(start: Start) -> None:
    daemon = start()
    shown = on_a_terminal(daemon, "status")
    assert ", \x1b[32mup\x1b[0m\n" in shown
    assert "\x1b" not in CODES.sub("", shown)
    assert ", up\n" in CODES.sub("", shown)
    assert daemon.stop() == 0
    assert "\x1b[1;31mis not running\x1b[0m: no ratelimitd answers" in on_a_terminal(daemon, "status")


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"TERM": ""}])
def test_colours_can_be_turned_off(start: Start, environment: dict[str, str]) -> None:
    daemon = start()
    assert "\x1b" not in on_a_terminal(daemon, "status", **environment)
    assert "\x1b[" in on_a_terminal(daemon, "status", NO_COLOR="")


def painted(text: str, colours: Colours) -> list[str]:
    """What of a text is coloured."""
    made = coloured(text, colours)
    assert CODES.sub("", made) == text
    return re.findall("\x1b\\[[0-9;]+m([^\x1b]*)\x1b\\[0m", made)


def test_only_our_own_words_are_coloured() -> None:
    text = "WRONG  WRONG  and fix  are counted separately\n  fix  WRONG  fix\nWRONG  b\n  fix  c\n"
    assert painted(text, DOCTOR) == ["WRONG", "fix", "WRONG", "fix"]
    assert painted("Nothing wrong was found.\n", DOCTOR) == ["Nothing wrong was found."]


def test_what_is_wrong_is_coloured_in_status() -> None:
    well = (
        "running        1 h\nstore          sqlite:/up, UNAVAILABLE, up\n  flushed      1 s ago, in 2 ms\n"
        "  flushes      3, 0 failed, 0 records refused\njournal        1 segment, 0 B\n  error        none\n"
        "decisions      INSERT 1\nlog            0 lines dropped, 0 left out\n"
    )
    assert "up" in painted(well, STATUS)
    ill = (
        "store          sqlite:/a, UNAVAILABLE: counting in memory and journal\n"
        "  flushes      3, 1 failed, 1 record refused\njournal        1 segment, 0 B, 1 record not written\n"
        "  error        No space left\ndecisions      INSERT 1, OVER_QUOTA 1,234\n"
        "log            1 line dropped, 0 left out\n"
    )
    assert painted(ill, STATUS) == [
        "UNAVAILABLE", "1 failed", "1 record refused", "1 record not written", "No space left", "OVER_QUOTA 1,234",
        "1 line dropped",
    ]  # fmt: skip
