"""`ratelimitctl top`: who sends most, in a real terminal and as lines."""

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.control.conftest import Ctl, Start
from tests.control.terminal import Terminal, terminal
from tests.daemon.process import Ratelimitd
from tests.instances.waiting import wait_until

PROGRAM = Path(sys.executable).with_name("ratelimitctl")
FLOODER = "flooder@example.com"
__all__ = ["terminal"]


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


@pytest.mark.real
def test_keys_sort_and_the_key_line_says_by_what(start: Start, terminal: Terminal) -> None:
    daemon = start(limit=[{"quota": 100, "quotas": {"alice@example.com": 4}}])
    for login, times in ((FLOODER, 30), ("alice@example.com", 3)):
        send(daemon, login, times)
    terminal.run(PROGRAM, "-c", daemon.file, "top", "--interval", "0.5", "--sort", "share")
    wait_until(lambda: _first(terminal.screen())[0] == "alice@example.com", "by share")
    assert "sort: u use s SHARE r rate" in terminal.screen()
    terminal.type("u")
    wait_until(lambda: _first(terminal.screen())[0] == FLOODER, "by use")
    terminal.type("r")

    def she_goes_on() -> bool:  # what came before the first answer by rate is no rate
        send(daemon, "alice@example.com", 1)
        return _first(terminal.screen())[0] == "alice@example.com"

    wait_until(she_goes_on, "by rate")
    assert "most per minute first" in terminal.screen()


@pytest.mark.real
def test_who_is_over_is_marked_by_a_word_and_by_a_colour(start: Start, terminal: Terminal) -> None:
    daemon = start(limit=[{"quota": 5}])
    for login, times in ((FLOODER, 6), ("alice@example.com", 5), ("bob@example.com", 1)):
        send(daemon, login, times)
    terminal.run(PROGRAM, "-c", daemon.file, "top")
    wait_until(lambda: FLOODER in terminal.screen(), "a first screen")
    marks = {line.split()[0]: line.split()[4] for line in terminal.screen().splitlines() if "@" in line}
    assert (marks[FLOODER], marks["alice@example.com"]) == ("OVER", "FULL")
    assert marks["bob@example.com"] not in ("OVER", "FULL")
    row = next(line for line in terminal.screen(colours=True).splitlines() if FLOODER in line)
    assert "\x1b[31m" in row


@pytest.mark.real
def test_without_colour_the_words_are_there(start: Start, terminal: Terminal) -> None:
    daemon = start(limit=[{"quota": 5}])
    send(daemon, FLOODER, 6)
    terminal.run("env", "NO_COLOR=1", PROGRAM, "-c", daemon.file, "top")
    wait_until(lambda: FLOODER in terminal.screen(), "a first screen")
    assert "\x1b" not in terminal.screen(colours=True)
    assert "OVER" in terminal.screen()


@pytest.mark.real
def test_a_terminal_that_shrinks_is_filled_again_and_never_overfilled(daemon: Ratelimitd, terminal: Terminal) -> None:
    terminal.run(PROGRAM, "-c", daemon.file, "top", "--interval", "3600")
    wait_until(lambda: "RESETS AT" in terminal.screen(), "a first screen")
    terminal.resize(40, 12)
    wait_until(lambda: "q quit" in terminal.screen().splitlines()[-1], "the key line at the bottom")
    screen = terminal.screen()
    assert "RESETS AT" not in screen
    assert _first(screen)[:2] == [FLOODER, "30"]
    terminal.resize(120, 30)
    wait_until(lambda: "RESETS AT" in terminal.screen(), "all columns")


@pytest.mark.real
def test_a_daemon_that_restarts_is_a_line_and_not_the_end(daemon: Ratelimitd, terminal: Terminal) -> None:
    terminal.run(PROGRAM, "-c", daemon.file, "top", "--interval", "0.3")
    wait_until(lambda: FLOODER in terminal.screen(), "a first screen")
    assert daemon.stop() == 0
    wait_until(lambda: "asking again: no ratelimitd answers" in terminal.screen(), "the line")
    assert FLOODER in terminal.screen()
    daemon.start()
    send(daemon, FLOODER, 1)
    wait_until(lambda: _first(terminal.screen())[1] == "31", "a new ranking")
    assert "asking again" not in terminal.screen()


@pytest.mark.real
def test_a_daemon_that_hangs_is_a_line_and_holds_up_no_key(daemon: Ratelimitd, terminal: Terminal) -> None:
    terminal.run(PROGRAM, "-c", daemon.file, "top", "--interval", "0.3")
    wait_until(lambda: FLOODER in terminal.screen(), "a first screen")
    daemon.process.signal(signal.SIGSTOP)
    try:
        wait_until(lambda: "no answer for 2 s" in terminal.screen(), "the line")
        assert FLOODER in terminal.screen()
        terminal.resize(40, 12)
        wait_until(lambda: "RESETS AT" not in terminal.screen(), "another size")
        daemon.process.signal(signal.SIGCONT)
        wait_until(lambda: "no answer" not in terminal.screen(), "an answer")
        daemon.process.signal(signal.SIGSTOP)
        wait_until(lambda: "no answer for" in terminal.screen(), "the line again")
        terminal.type("q")
        wait_until(terminal.has_ended, "its end")
    finally:
        daemon.process.signal(signal.SIGCONT)


@pytest.mark.real
def test_sigterm_gives_the_terminal_back(daemon: Ratelimitd, terminal: Terminal) -> None:
    shell = (
        f"{PROGRAM} -c {daemon.file} top & echo $! > {daemon.file}.pid; wait $!; echo ended $?; stty -a | grep icanon"
    )
    terminal.run("sh", "-c", f"{shell}; exec sleep 1000")
    wait_until(lambda: FLOODER in terminal.screen(), "a first screen")
    os.kill(int(Path(f"{daemon.file}.pid").read_text()), signal.SIGTERM)
    wait_until(lambda: "icanon" in terminal.screen(), "the shell's next command")
    assert "ended 143" in terminal.screen()
    assert FLOODER not in terminal.screen()
    assert "-icanon" not in terminal.screen()
    assert terminal.shows_cursor()


@pytest.mark.real
def test_ctrl_z_gives_the_terminal_back_until_it_goes_on(daemon: Ratelimitd, terminal: Terminal) -> None:
    terminal.run("bash", "--norc", "--noprofile", "-i")
    terminal.type(f"{PROGRAM} -c {daemon.file} top --interval 0.3", "Enter")
    wait_until(lambda: FLOODER in terminal.screen(), "a first screen")
    terminal.type("C-z")
    wait_until(lambda: "Stopped" in terminal.screen(), "the shell's word")
    assert terminal.shows_cursor()
    terminal.type("fg", "Enter")
    wait_until(lambda: "q quit" in terminal.screen(), "the screen")
    terminal.type("q")
    wait_until(lambda: "q quit" not in terminal.screen(), "the shell")


def test_a_terminal_that_hangs_up_ends_it_without_a_word(daemon: Ratelimitd, folder: Path) -> None:
    master, slave = pty.openpty()
    errors = folder / "errors"
    command = [PROGRAM, "-c", daemon.file, "top", "--interval", "0.1"]
    with errors.open("wb") as stderr:
        process = subprocess.Popen(
            ["setsid", "-c", *map(str, command)],
            stdin=slave,
            stdout=slave,
            stderr=stderr,
            env={**os.environ, "TERM": "xterm"},
        )
    os.close(slave)
    shown = b""
    while FLOODER.encode() not in shown:
        shown += os.read(master, 65536)
    os.close(master)
    assert process.wait(30) in (0, -signal.SIGHUP, 128 + signal.SIGHUP)
    assert errors.read_text() == ""


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


def test_what_comes_first_is_chosen_of_all_accounts(start: Start, ctl_of: Ctl) -> None:
    limit = {"quota": 100, "quotas": {"small@example.com": 4, "free@example.com": "unlimited"}}
    daemon = start(limit=[limit])
    for login, times in (("free@example.com", 40), (FLOODER, 30), ("small@example.com", 5)):
        send(daemon, login, times)

    def first(*options: str) -> list[str]:
        (ranked,) = ctl_of(daemon, "top", "--once", "--json", "--count", "1", *options).json["limits"]
        return [view["key"] for view in ranked["accounts"]]

    assert first() == ["free@example.com"]
    assert first("--sort", "share") == ["small@example.com"]
    assert first("--sort", "rate", "--interval", "0.1") == ["free@example.com"]  # nobody sends: by use
    assert ctl_of(daemon, "top", "--sort", "size").status == 2


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
