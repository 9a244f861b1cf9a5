"""Key plugins that misbehave, each in a running daemon: its limit gets the failure action, nothing else is harmed."""

import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import tomli

from tests.conftest import open_folder
from tests.daemon.client import DUNNO
from tests.daemon.process import Ratelimitd, config
from tests.instances.ports import free_port
from tests.plugins.distributions import install

SOURCE = """\
import sys
import time

names = iter("NAMES".split())

def plugin(function):
    login = next(names) + "@example.com"  # that it misbehaves for
    return lambda options: lambda request: function(request) if request.login == login else "well"

def raising(error):
    raise error

class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError

async def coroutine():
    return "key"

def slow(request):
    time.sleep(0.05)
    return "slept"

raises = plugin(lambda request: raising(LookupError("no\\nsuch " + chr(27) + "[2J thing")))
unspeakable = plugin(lambda request: raising(Unspeakable()))
exits = plugin(lambda request: sys.exit(3))
interrupts = plugin(lambda request: raising(KeyboardInterrupt()))
generates = plugin(lambda request: raising(GeneratorExit()))
ends = plugin(lambda request: raising(BaseException("the end")))
recurses = plugin(lambda request: (lambda f: f(f))(lambda f: f(f)))
number = plugin(lambda request: 5)
raw = plugin(lambda request: b"key")
waits = plugin(lambda request: coroutine())
empty = plugin(lambda request: "")
blank = plugin(lambda request: " \\t ")
newline = plugin(lambda request: "key\\naction=OK\\n")
nul = plugin(lambda request: "key\\0")
megabyte = plugin(lambda request: "x" * 1_000_000)
surrogate = plugin(lambda request: "\\ud800")
sleeps = plugin(slow)
"""
MISBEHAVING = {
    "raises": r"raised LookupError: no such \x1b[2J thing",
    "unspeakable": "raised Unspeakable: an error without a text",
    "exits": "raised SystemExit: 3",
    "interrupts": "raised KeyboardInterrupt: ",
    "generates": "raised GeneratorExit: ",
    "ends": "raised BaseException: the end",
    "recurses": "raised RecursionError: ",
    "number": "gave no key but an object of type int",
    "raw": "gave no key but an object of type bytes",
    "waits": "gave no key but an object of type coroutine",
    "empty": "gave an empty key",
    "blank": "gave an empty key",
    "newline": "gave no key but a text with a newline or NUL",
    "nul": "gave no key but a text with a newline or NUL",
    "megabyte": "gave no key but 1000000 characters",
    "surrogate": "gave a key with a lone surrogate",
}
NAMES = [*MISBEHAVING, "sleeps"]
FAILS = "a key plugin fails, and its limit answers with server.failure_action"
SLOW = "a key plugin is slow, and all mail waits for it"
FAILURE = "450 4.3.0 the key is not known"
OVER = "450 4.7.1 over 3"
QUOTA = 3


@pytest.fixture(scope="module")
def daemon() -> Iterator[Ratelimitd]:
    """A daemon with a limit for each plugin, and one by login; each plugin has misbehaved four times."""
    with open_folder() as folder:
        source = SOURCE.replace("NAMES", " ".join(NAMES))
        install(folder / "site", "bad-keys", source, **{name: f"bad_keys:{name}" for name in NAMES})
        limits: list[dict[str, Any]] = [{"name": name, "key": name} for name in NAMES]
        limits.append({"name": "login", "quota": QUOTA, "action": "450 4.7.1 over {quota}"})
        metrics = {"listen": f"127.0.0.1:{free_port()}"}
        text = config(server={"failure_action": FAILURE}, metrics=metrics, limit=limits)
        made = Ratelimitd(folder, text, prefix=["/usr/bin/env", f"PYTHONPATH={folder / 'site'}"])
        try:
            made.start()
            yield made
        finally:
            made.kill()


@pytest.fixture(scope="module")
def replies(daemon: Ratelimitd) -> dict[str, list[str]]:
    """What a login for which this plugin misbehaves was answered, four times; all of it is in the log."""
    with daemon.client() as client:
        found = {name: [client.ask(f"{name}@example.com")] for name in NAMES}
        daemon.wait_for_log(FAILS, len(MISBEHAVING))
        daemon.wait_for_log(SLOW)
        for name in NAMES * QUOTA:
            found[name].append(client.ask(f"{name}@example.com"))
    return found


def used(daemon: Ratelimitd, limit: str, key: str) -> int:
    """What an account has used, by the cache dump."""
    return next((int(line[3]) for line in daemon.dump() if line[:2] == [key, limit]), 0)


@pytest.mark.parametrize("name", MISBEHAVING)
def test_its_own_limit_fails_and_the_others_decide_as_ever(
    daemon: Ratelimitd, replies: dict[str, list[str]], name: str
) -> None:
    assert replies[name] == [FAILURE] * QUOTA + [OVER]
    with daemon.client() as client:
        before = used(daemon, name, "well")
        assert client.ask(f"other.{name}@example.com") == DUNNO
        assert used(daemon, name, "well") == before + 1
    assert used(daemon, "login", f"{name}@example.com") == QUOTA + 1


@pytest.mark.parametrize("name", MISBEHAVING)
def test_it_is_told_of_once_a_minute(daemon: Ratelimitd, replies: dict[str, list[str]], name: str) -> None:
    (line,) = [line for line in daemon.log() if f"{FAILS}: limit={name}, " in line]
    assert line.partition("limit=")[2].startswith(f"{name}, key={name}, failures=1, reason=key plugin {name} ")
    assert MISBEHAVING[name] in line


def test_a_slow_one_is_warned_about_and_its_key_counts(daemon: Ratelimitd, replies: dict[str, list[str]]) -> None:
    assert replies["sleeps"] == [DUNNO] * QUOTA + [OVER]
    (line,) = [line for line in daemon.log() if f"{SLOW}: limit=sleeps, key=sleeps, calls=1, slowest=" in line]
    assert used(daemon, "sleeps", "slept") == QUOTA  # the last was refused by another limit, which alone is charged
    assert line.endswith(" ms")


def test_each_failure_and_slow_call_is_in_the_metrics(daemon: Ratelimitd, replies: dict[str, list[str]]) -> None:
    listen = tomli.loads(daemon.file.read_text())["metrics"]["listen"]
    with urllib.request.urlopen(f"http://{listen}/metrics", timeout=60) as answer:
        lines = answer.read().decode().split("\n")
    for name in MISBEHAVING:
        assert f'ratelimitd_key_failures_total{{limit="{name}"}} {QUOTA + 1}.0' in lines
    assert f'ratelimitd_key_slow_calls_total{{limit="sleeps"}} {QUOTA + 1}.0' in lines
    assert 'ratelimitd_key_failures_total{limit="login"} 0.0' in lines


def test_the_daemon_is_none_the_worse(daemon: Ratelimitd, replies: dict[str, list[str]]) -> None:
    assert "Traceback" not in daemon.output()
    assert daemon.stop() == 0
    assert daemon.used("login")["raises@example.com"] == QUOTA + 1
