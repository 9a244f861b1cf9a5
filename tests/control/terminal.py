"""A real terminal, in tmux: what it shows, what is typed, how large it is."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import require


class Terminal:
    """A terminal of 100 columns and 30 lines."""

    def __init__(self, folder: Path) -> None:
        self._tmux = ["tmux", "-S", str(folder / "tmux"), "-f", "/dev/null"]

    def run(self, *command: str | Path) -> None:
        new = ("new-session", "-d", "-x", "100", "-y", "30", "-s", "t", *map(str, command))
        self._call(*new, ";", "set", "remain-on-exit", "on")

    def screen(self, *, colours: bool = False) -> str:
        return self._call("capture-pane", "-p", *(["-e"] if colours else []), "-t", "t")

    def has_ended(self) -> bool:
        """Whether the command is over; that "Pane is dead" is on the screen then, tmux does not always see to."""
        return self._call("list-panes", "-t", "t", "-F", "#{pane_dead}").strip() == "1"

    def shows_cursor(self) -> bool:
        return self._call("display-message", "-p", "-t", "t", "#{cursor_flag}").strip() == "1"

    def type(self, *keys: str) -> None:
        self._call("send-keys", "-t", "t", *keys)

    def resize(self, columns: int, lines: int) -> None:
        self._call("resize-window", "-t", "t", "-x", str(columns), "-y", str(lines))

    def close(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], capture_output=True)

    def _call(self, *arguments: str) -> str:
        ran = subprocess.run([*self._tmux, *arguments], capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout


@pytest.fixture
def terminal(folder: Path) -> Iterator[Terminal]:
    require("tmux")
    made = Terminal(folder)
    yield made
    made.close()
