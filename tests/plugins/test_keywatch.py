"""What the administrator hears of a key plugin that fails or is slow."""

from collections.abc import Iterable
from datetime import UTC
from pathlib import Path

import trio
from trio.testing import MockClock

from ratelimitd.core.action import Template
from ratelimitd.core.calendars import Calendar
from ratelimitd.core.limits import KeyHealth, Limit
from ratelimitd.core.pending import Pending
from ratelimitd.core.policy import Policy
from ratelimitd.core.verdict import Waiting
from ratelimitd.core.watcher import Nobody
from ratelimitd.keys import KeyFunction
from ratelimitd.log.keywatch import KeyWatch
from ratelimitd.log.log import Log
from ratelimitd.log.sinks import Entry
from ratelimitd.plugins import normalised
from ratelimitd.testing import request
from tests.core.build import memo, rules
from tests.daemon.process import Ratelimitd, changed, config


class Lines:
    """A sink that keeps what it is given."""

    on_stderr = False
    scribe = None

    def __init__(self) -> None:
        self.dropped = 0
        self.entries: list[Entry] = []

    def write(self, entries: Iterable[Entry]) -> None:
        self.entries += entries

    async def drain(self) -> None: ...

    def reopen(self) -> None: ...

    def close(self) -> None: ...

    @property
    def texts(self) -> list[str]:
        return [text for _, text in self.entries]


class Clock:
    """A clock that a slow plugin moves."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def limit(name: str, function: KeyFunction, clock: Clock | None = None) -> Limit:
    health = KeyHealth()
    key_of = normalised(name, function, True, health, clock or Clock())
    return Limit(name, name, key_of, Calendar("daily", UTC, "sunday"), 2, Template("450 4.7.1 over"), {}, health)


def watched(*limits: Limit) -> tuple[Policy, KeyWatch, Lines]:
    lines = Lines()
    policy = Policy(limits, rules(), Pending(), memo(), Nobody())
    return policy, KeyWatch(policy, Log([lines])), lines


def raising(text: str) -> KeyFunction:
    def function(request: object) -> str | None:
        raise LookupError(text)

    return function


async def test_failures_are_told_within_a_second_and_then_once_a_minute(autojump_clock: MockClock) -> None:
    policy, watch, lines = watched(limit("tenants", raising("no map")))
    for _ in range(150):
        for _ in range(10):
            policy.decide(request(), 0)
        await trio.sleep(1)
        watch.look()
    what = "a key plugin fails, and its limit answers with server.failure_action: limit=tenants, key=tenants"
    reason = "reason=key plugin tenants raised LookupError: no map"
    assert [text.rpartition("failures=")[0] for text in lines.texts] == [what + ", "] * 3
    assert all(text.endswith(reason) for text in lines.texts)
    assert [level for level, _ in lines.entries] == ["error"] * 3
    assert watch.totals["tenants"].failures == 1500


async def test_each_limit_is_told_of_on_its_own() -> None:
    policy, watch, lines = watched(limit("a", raising("one")), limit("b", raising("two")), limit("c", lambda _: "key"))
    policy.decide(request(), 0)
    watch.look()
    assert [("limit=a" in text, "limit=b" in text) for text in lines.texts] == [(True, False), (False, True)]
    assert set(watch.totals) == {"a", "b"}


async def test_a_slow_call_is_warned_about_and_its_key_is_good() -> None:
    clock = Clock()

    def sleepy(_: object) -> str:
        clock.now_s += 0.0234
        return "key"

    policy, watch, lines = watched(limit("sleepy", sleepy, clock))
    waiting = policy.decide(request(), 0)
    assert isinstance(waiting, Waiting)
    assert [key for _, key in waiting.keys] == ["key"]
    watch.look()
    assert lines.texts == [
        "a key plugin is slow, and all mail waits for it: limit=sleepy, key=sleepy, calls=1, slowest=23 ms"
    ]
    assert lines.entries[0][0] == "warning"


async def test_a_call_that_is_slow_and_then_fails_is_both() -> None:
    clock = Clock()

    def broken(_: object) -> str:
        clock.now_s += 0.05
        raise SystemExit("no more")

    policy, watch, lines = watched(limit("broken", broken, clock))
    policy.decide(request(), 0)
    watch.look()
    assert len(lines.texts) == 2
    assert lines.texts[0].endswith("failures=1, reason=key plugin broken raised SystemExit: no more")


async def test_a_call_of_ten_milliseconds_is_not_slow() -> None:
    clock = Clock()

    def quick(_: object) -> str:
        clock.now_s += 0.0099
        return "key"

    policy, watch, lines = watched(limit("quick", quick, clock))
    policy.decide(request(), 0)
    watch.look()
    assert lines.texts == []


FAILING = """
from ratelimitd import plugins
plugins.BUILT_IN = {"email": lambda options: lambda request: {}[request.login]}
"""


def test_what_failed_in_the_last_second_is_told_at_the_end(folder: Path) -> None:
    daemon = Ratelimitd(folder, config(), prefix=changed(FAILING))
    try:
        daemon.start()
        with daemon.client() as client:
            client.ask()
        assert daemon.stop() == 0
    finally:
        daemon.kill()
    assert sum("a key plugin fails" in line for line in daemon.log()) == 1
