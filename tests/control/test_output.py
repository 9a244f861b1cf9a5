"""ratelimitctl, and `ratelimitd --check`, where standard output or standard error is closed, full, read by nobody, or
knows few characters."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.replay.logs import mail, postfix

PROGRAM = "import sys; from ratelimitd.ctl.main import main; sys.exit(main())"
DAEMON = "import sys; from ratelimitd.daemon.main import main; sys.exit(main())"
NOON = 1_795_694_400
WHOLE_LINE = "ratelimitctl: standard output: No space left on device\n"


@pytest.fixture
def verb(tmp_path: Path) -> list[str]:
    """A verb that needs nothing but files, and has an answer that is longer than any buffer."""
    log, configuration = tmp_path / "mail.log", tmp_path / "c.toml"
    log.write_text(postfix([mail(NOON + i, f"漢字{i}@example.com", 2) for i in range(30)]))
    limits = "".join(f'[[limit]]\nname = "limit{i}"\nquota = 1\n' for i in range(40))
    configuration.write_text(f'state_dir = "{tmp_path}"\n{limits}')
    return ["-c", str(configuration), "replay", str(log)]


def run(
    arguments: list[str], where: str = "", environment: Mapping[str, str] | None = None, program: str = PROGRAM
) -> subprocess.CompletedProcess[str]:
    """Run it by a shell that redirects, as an administrator's does."""
    command = ["sh", "-c", f'exec "$@" {where}', "sh", sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(environment or {})})


@pytest.mark.parametrize(("options", "unbuffered"), [([], "1"), (["--json"], ""), (["--help"], "")])
def test_what_cannot_be_written_is_one_line_and_a_status(verb: list[str], options: list[str], unbuffered: str) -> None:
    ran = run([*options, *verb], ">/dev/full", {"PYTHONUNBUFFERED": unbuffered})
    assert (ran.returncode, ran.stderr) == (1, WHOLE_LINE)


def test_so_is_a_page_that_cannot_be_written_there(verb: list[str]) -> None:
    ran = run([*verb, "--html", "-"], ">/dev/full")
    assert (ran.returncode, ran.stderr) == (1, WHOLE_LINE)


@pytest.mark.parametrize("page", [[], ["--html", "-"]])
def test_a_reader_that_has_gone_is_no_error_to_be_told(verb: list[str], page: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        command = [sys.executable, "-c", PROGRAM, *verb, *page]
        ran = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    finally:
        os.close(writing)
    assert (ran.returncode, ran.stderr) == (1, "")


def test_a_verb_works_where_nothing_can_be_written(verb: list[str], tmp_path: Path) -> None:
    for closed in (">&-", "2>&-", "<&- >&- 2>&-"):
        ran = run(verb, closed)
        assert (ran.returncode, ran.stderr) == (0, ""), closed
    wrong = run(["-c", str(tmp_path / "none.toml"), "replay", "x"], "2>&-")
    assert (wrong.returncode, wrong.stdout) == (2, "")


def test_a_character_that_the_encoding_has_not_is_a_number(verb: list[str]) -> None:
    ran = run(verb, environment={"PYTHONIOENCODING": "ascii"})
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "\\u6f22\\u5b570@example.com" in ran.stdout


def test_the_daemon_s_own_check_says_it_too(verb: list[str]) -> None:
    file = verb[:2]
    full = run([*file, "--check"], ">/dev/full", program=DAEMON)
    assert (full.returncode, full.stderr) == (1, WHOLE_LINE.replace("ratelimitctl", "ratelimitd"))
    assert run([*file, "--check"], ">&- 2>&-", program=DAEMON).returncode == 0
