"""contrib/completion/ratelimitctl.bash completes what the command line has, neither less nor more."""

import argparse
import shutil
import subprocess
from pathlib import Path

import pytest

from ratelimitd.ctl.usage import parser

SCRIPT = Path(__file__).parents[2] / "contrib" / "completion" / "ratelimitctl.bash"
BASH = shutil.which("bash")
pytestmark = pytest.mark.skipif(BASH is None, reason="bash is not installed")


def complete(*words: str, folder: Path | None = None) -> list[str]:
    """What bash offers for the last word."""
    assert BASH is not None
    script = 'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _ratelimitctl; printf "%s\\n" "${COMPREPLY[@]}"'
    ran = subprocess.run(
        [BASH, "-c", script, SCRIPT, "ratelimitctl", *words], capture_output=True, text=True, check=True, cwd=folder
    )
    assert ran.stderr == ""
    return sorted(filter(None, ran.stdout.split("\n")))


def verbs() -> dict[str, argparse.ArgumentParser]:
    (action,) = (a for a in parser(Path("x"))._actions if isinstance(a, argparse._SubParsersAction))
    return dict(action.choices)


def options(of: argparse.ArgumentParser) -> list[str]:
    return [name for action in of._actions for name in action.option_strings]


def test_verbs_and_global_options_are_offered() -> None:
    assert complete("") == sorted([*options(parser(Path("x"))), *verbs()])
    assert complete("-c", "a.toml", "re") == ["reload", "replay", "report", "reset"]


@pytest.mark.parametrize("verb", verbs())
def test_the_options_of_each_verb_are_offered(verb: str) -> None:
    wanted = sorted(options(verbs()[verb]))
    assert complete(verb, "-") == wanted
    assert complete("--json", "-c", "a.toml", verb, "-") == wanted


def test_values_are_offered_where_they_are_known(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("")
    (tmp_path / "b").mkdir()
    assert complete("-c", "", folder=tmp_path) == ["a.toml", "b"]
    assert complete("doctor", "--postfix-config", "", folder=tmp_path) == ["b"]
    assert complete("replay", "a.toml", "", folder=tmp_path) == ["a.toml", "b"]
    assert complete("replay", "a.toml", "--html", "", folder=tmp_path) == ["a.toml", "b"]
    assert complete("set", "alice", "--quota", "u") == ["unlimited"]
    assert complete("top", "--sort", "") == ["rate", "share", "use"]
    assert complete("set", "alice", "--limit", "") == []
    assert complete("history", "alice", "--days", "") == []
