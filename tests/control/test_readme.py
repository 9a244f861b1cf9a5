"""README's table of ratelimitctl: every command in it is run, and every verb is in it or in a chapter."""

import argparse
import re
import shlex
from pathlib import Path

import pytest

from ratelimitd.ctl.usage import parser
from tests.control.conftest import Ctl, Start

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\| `ratelimitctl ([^`]*)`", README, flags=re.MULTILINE)


def test_every_verb_is_in_the_readme() -> None:
    (action,) = (a for a in parser(Path("x"))._actions if isinstance(a, argparse._SubParsersAction))
    assert [verb for verb in action.choices if f"ratelimitctl {verb}" not in README] == []


@pytest.mark.parametrize("command", [command for command in COMMANDS if not command.startswith("doctor")])
def test_every_command_of_the_readme_does_what_it_says(start: Start, ctl_of: Ctl, command: str) -> None:
    daemon = start(store={"history_days": 30})  # some show it
    with daemon.client() as client:
        client.ask("alice@example.com")
    assert ctl_of(daemon, *shlex.split(command)).status == 0
