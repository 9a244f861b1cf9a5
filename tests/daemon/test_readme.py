"""What README.md tells people to do, done."""

import fcntl
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomli

from tests.daemon.client import PolicyClient
from tests.daemon.process import Ratelimitd, listen_elsewhere
from tests.instances.ports import free_port
from tests.instances.processes import Process
from tests.instances.waiting import wait_until

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PORT = 10032
INSTALL_TIMEOUT_S = 600
GENERATED = (".venv", ".git", ".state", ".*_cache", ".hypothesis", "__pycache__", "dist", "build", "*.egg-info")


def blocks(language: str) -> list[str]:
    """README's code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    return [line for block in blocks("sh") for line in block.splitlines()]


@pytest.fixture
def checkout(folder: Path) -> Path:
    """A copy of the checkout, as a clone has it."""
    copy = folder / "checkout"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*GENERATED))
    return copy


@pytest.fixture
def port(checkout: Path) -> Iterator[int]:
    """10032, or where that is taken another one that is set in the copy's example; one test run at a time has it."""
    with (checkout.parents[1] / "ratelimitd-tests-10032.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            listen_elsewhere(PORT).close()
        except OSError:
            other = free_port()
            with (checkout / "conf" / "example.toml").open("a", encoding="utf-8") as file:
                file.write(f'\n[server]\nlisten = ["127.0.0.1:{other}"]\n')
            yield other
        else:
            yield PORT


@pytest.fixture
def first_command(checkout: Path, port: int) -> Iterator[Process]:
    """README's first command, running in the copy."""
    assert port
    process = Process(["/bin/sh", "-c", f"cd {checkout} && {commands()[0]}"], checkout.parent / "output")
    yield process
    process.kill()


@pytest.mark.real
def test_the_first_command_leaves_a_daemon_that_answers(first_command: Process, checkout: Path, port: int) -> None:
    def answers() -> bool:
        first_command.check()
        if "is ready" not in first_command.tail():
            return False
        try:
            with PolicyClient(port) as client:
                return client.ask("readme@example.com") == "DUNNO"
        except OSError:
            return False

    wait_until(answers, "a daemon that answers", INSTALL_TIMEOUT_S, poll=0.2)
    assert (checkout / ".state" / "ratelimit.sqlite3").exists()


def test_the_second_command_runs_the_tests() -> None:
    assert commands()[1] == "tests/run"
    assert (ROOT / "tests" / "run").stat().st_mode & 0o111


def test_every_example_of_a_configuration_is_right(folder: Path) -> None:
    examples = [tomli.loads(block) for block in blocks("toml")]
    limits = [block for block in blocks("toml") if "[[limit]]" in block and "[keys." not in block]
    assert len(examples) > 1
    assert limits
    for block in limits:
        head = f'state_dir = "state"\n[server]\nlisten = ["127.0.0.1:{free_port()}"]\n[log]\nsyslog = ""\n'
        daemon = Ratelimitd(folder, head + block)
        assert daemon.spawn("--check").wait() == 0, daemon.output()


def test_the_wiring_is_the_one_that_is_recommended_and_the_trap_is_named() -> None:
    assert f"check_policy_service {{ inet:127.0.0.1:{PORT}, timeout=10s, default_action=DUNNO }}" in README
    assert "Do not set `smtpd_policy_service_try_limit=1`" in README


def test_every_file_that_is_linked_to_exists() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_chapters_come_in_the_order_in_which_they_are_needed() -> None:
    chapters = re.findall(r"^## (.+)$", README, flags=re.MULTILINE)
    wanted = [
        "Run it",
        "Wire it to Postfix",
        "Configure it",
        "Operate it",
        "Migrate from the Perl daemon",
        "Write a key plugin",
        "Develop it",
    ]
    assert [chapter for chapter in chapters if chapter in wanted] == wanted
