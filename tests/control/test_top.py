"""`ratelimitctl top`: who sends most, in a real terminal and as lines."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import require
from tests.control.conftest import Ctl, Start
from tests.daemon.process import Ratelimitd
from tests.instances.waiting import wait_until

PROGRAM = Path(sys.executable).with_name("ratelimitctl")
FLOODER = "flooder@example.com"


def send(daemon: Ratelimitd, login: str, times: int) -> None:
    with daemon.client() as client:
        for _ in range(times):
            client.ask(login)


@pytest.fixture
def daemon(start: Start) -> Ratelimitd:
    """Three have sent; flooder most."""
    started = start(limit=[{"name": "daily", "quota": 100}, {"name": "pool", "key": "domain", "quota": 0}])
    for login, times in ((FLOODER, 30), ("alice@example.com", 3), ("bob@example.org", 5)):
        send(started, login, times)
    return started


class Terminal:
    """A terminal of 100 columns and 30 lines, in tmux."""

    def __init__(self, folder: Path) -> None:
        self._tmux = ["tmux", "-S", str(folder / "tmux"), "-f", "/dev/null"]

    def run(self, *command: str | Path) -> None:
        self._call(
            "new-session",
            "-d",
            "-x",
            "100",
            "-y",
            "30",
            "-s",
            "t",
            *map(str, command),
            ";",
            "set",
            "remain-on-exit",
            "on",
        )

    def screen(self) -> str:
        return self._call("capture-pane", "-p", "-t", "t")

    def has_ended(self) -> bool:
        """Whether the command is over; that "Pane is dead" is on the screen then, tmux does not always see to."""
        return self._call("list-panes", "-t", "t", "-F", "#{pane_dead}").strip() == "1"

    def type(self, keys: str) -> None:
        self._call("send-keys", "-t", "t", keys)

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


@pytest.mark.real
def test_the_one_who_floods_is_on_top_of_a_real_terminal_and_goes_on_rising(
    daemon: Ratelimitd, terminal: Terminal
) -> None:
    terminal.run(PROGRAM, "-c", daemon.file, "top", "--interval", "0.3")
    wait_until(lambda: FLOODER in terminal.screen(), "a first screen")
    lines = [line.split() for line in terminal.screen().splitlines()]
    assert [line[0] for line in lines if "@" in "".join(line[:1])] == [FLOODER, "bob@example.org", "alice@example.com"]
    send(daemon, "alice@example.com", 60)
    wait_until(lambda: _first(terminal.screen())[:2] == ["alice@example.com", "63"], "another on top")
    assert _first(terminal.screen())[2:4] == ["100", "63"]
    terminal.type("q")
    wait_until(terminal.has_ended, "its end")
    assert "alice" not in terminal.screen()  # the screen before it is back


def _first(screen: str) -> list[str]:
    return next((line.split() for line in screen.splitlines() if "@" in line), ["", ""])


@pytest.mark.real
def test_ctrl_c_gives_the_terminal_back(daemon: Ratelimitd, terminal: Terminal) -> None:
    shell = f"trap : INT; {PROGRAM} -c {daemon.file} top; stty -a | grep icanon; exec sleep 1000"
    terminal.run("sh", "-c", shell)
    wait_until(lambda: FLOODER in terminal.screen(), "a first screen")
    terminal.type("C-c")
    wait_until(lambda: "icanon" in terminal.screen(), "the shell's next command")
    assert FLOODER not in terminal.screen()
    assert "Traceback" not in terminal.screen()


def test_once_is_a_table_and_as_json_an_object(daemon: Ratelimitd, ctl_of: Ctl) -> None:
    ran = ctl_of(daemon, "top", "--once")
    assert ran.status == 0
    assert [line.split()[:2] for line in ran.out.splitlines() if "@" in line] == [
        [FLOODER, "30"],
        ["bob@example.org", "5"],
        ["alice@example.com", "3"],
    ]
    daily, pool = ctl_of(daemon, "top", "--once", "--json", "--count", "1").json["limits"]
    assert [(view["key"], view["used"], view["left"]) for view in daily["accounts"]] == [(FLOODER, 30, 70)]
    assert [(view["key"], view["used"], view["quota"]) for view in pool["accounts"]] == [("example.com", 33, None)]
    assert [
        limit["limit"] for limit in ctl_of(daemon, "top", "--once", "--json", "--limit", "pool").json["limits"]
    ] == ["pool"]
    assert ctl_of(daemon, "top", "--once", "--limit", "nightly").status == 2


def test_without_a_terminal_it_is_shown_once(daemon: Ratelimitd) -> None:
    ran = subprocess.run([PROGRAM, "-c", daemon.file, "top"], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, FLOODER in ran.stdout) == (0, True)
    assert "\x1b" not in ran.stdout


def test_json_is_a_line_each_interval_until_the_reader_goes(daemon: Ratelimitd) -> None:
    command = [str(PROGRAM), "-c", str(daemon.file), "--json", "top", "--interval", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        rankings = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.stdout.close()
        assert process.wait(60) == 1
    assert all(ranking["limits"][0]["accounts"][0]["key"] == FLOODER for ranking in rankings)


def test_a_login_does_not_colour_the_administrators_terminal(start: Start, ctl_of: Ctl) -> None:
    daemon = start()
    send(daemon, "\x1b[31mred\u202e@example.com", 1)
    for arguments in (("top", "--once"), ("doctor",) if shutil.which("postconf") else ("status",)):
        printed = ctl_of(daemon, *arguments).out
        assert "\x1b" not in printed
        assert "\u202e" not in printed
    assert "\\x1b[31mred\\u202e@example.com" in ctl_of(daemon, "top", "--once").out
