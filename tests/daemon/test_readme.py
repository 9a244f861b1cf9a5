"""What README.md and the other pages tell people to do, done."""

import fcntl
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import tomli

import tests.instances.postfix as instance
from ratelimitd.settings import Settings
from tests.daemon.client import PolicyClient
from tests.daemon.process import Ratelimitd, config, listen_elsewhere
from tests.instances.ports import free_port
from tests.instances.postfix import Postfix
from tests.instances.processes import Process
from tests.instances.smtp import Smtp
from tests.instances.waiting import wait_until

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = (
    "README.md", "contrib/doc/operations.md", "contrib/doc/recipients.md", "contrib/doc/windows.md", "sql/README.md",
    "plugins/README.md",
)  # fmt: skip
"""The pages with examples of a configuration."""
MAX_LINES = 220
PORT = 10032
INSTALL_TIMEOUT_S = 600
GENERATED = (".venv", ".git", ".state", ".*_cache", ".hypothesis", "__pycache__", "dist", "build", "*.egg-info")


def blocks(language: str, text: str = README) -> list[str]:
    """The code blocks of a language on a page; "" for those without one."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [block for name, block in found if name == language]


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


def test_the_request_to_try_is_answered_as_shown(folder: Path) -> None:
    [script] = blocks("bash")
    [shown] = [block for block in blocks("") if block.startswith("action=")]
    [example] = tomli.loads((ROOT / "conf" / "example.toml").read_text(encoding="utf-8"))["limit"]
    daemon = Ratelimitd(folder, config(limit=[example]))
    daemon.start()
    try:
        assert f"/{PORT}\n" in script
        command = ["bash", "-c", script.replace(f"/{PORT}\n", f"/{daemon.port}\n")]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    finally:
        daemon.kill()
    assert (ran.returncode, ran.stderr) == (0, "")
    time = re.compile(r"resets at [0-9]{4}-[0-9]{2}-[0-9]{2} 00:00 [+-][0-9]{4}")
    assert time.sub("resets at T", ran.stdout) == time.sub("resets at T", shown)
    assert "resets at T" in time.sub("resets at T", shown)


@pytest.mark.real
def test_the_line_for_master_cf_is_asked_where_main_cf_says_nothing(
    folder: Path, postfix: Postfix, monkeypatch: pytest.MonkeyPatch
) -> None:
    [line] = [block for block in blocks("") if block.startswith("  -o ")]
    daemon = Ratelimitd(folder, config(limit=[{"quota": 2, "period": "monthly"}]))
    daemon.start()
    try:
        option = line.replace(f":{PORT},", f":{daemon.port},").replace("{", "{{").replace("}", "}}")
        monkeypatch.setattr(instance, "_MASTER_CF", instance._MASTER_CF.replace("- smtpd\n", f"- smtpd\n{option}", 1))
        postfix.start(xclient=True)
        with Smtp(postfix.port) as smtp:
            smtp.xclient(login="alice@example.com")
            replies = smtp.message("a@example.com", *[f"{n}@example.net" for n in range(3)])
        assert [reply.code for reply in replies] == [250, 250, 250, 450, 250]
    finally:
        daemon.kill()


@pytest.mark.parametrize("page", PAGES)
def test_every_example_of_a_configuration_is_right(folder: Path, page: str) -> None:
    found = blocks("toml", (ROOT / page).read_text(encoding="utf-8"))
    for block in found:
        example = tomli.loads(block)
        if "build-system" in example:  # a plugin's pyproject.toml
            continue
        example.setdefault("keys", {}).pop("customer", None)  # the options of a plugin are its own
        msgspec.convert({"limit": [{"quota": 1}], **example}, Settings)
    # A whole configuration, with listeners and files of its own, was read above; what is checked here gets ours.
    limits = [block for block in found if "[[limit]]" in block and "[keys." not in block and "[server]" not in block]
    if page == "README.md":
        assert len(found) > 1
        assert limits
    for block in limits:
        head = f'state_dir = "state"\n[server]\nlisten = ["127.0.0.1:{free_port()}"]\n[log]\nsyslog = ""\n'
        daemon = Ratelimitd(folder, head + block)
        assert daemon.spawn("--check").wait() == 0, daemon.output()


def test_the_wiring_is_the_one_that_is_recommended_and_the_trap_is_named() -> None:
    assert f"check_policy_service {{ inet:127.0.0.1:{PORT}, timeout=10s, default_action=DUNNO }}" in README
    assert "Do not set `smtpd_policy_service_try_limit=1`" in README


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= MAX_LINES


def test_the_chapters_come_in_the_order_in_which_they_are_needed() -> None:
    assert re.findall(r"^## (.+)$", README, flags=re.MULTILINE) == [
        "What it promises",
        "Run it",
        "Wire it to Postfix",
        "Check the wiring",
        "Configure it",
        "Operate it",
        "Go further",
    ]
