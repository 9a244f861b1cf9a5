"""What a mail server feels: a real Postfix's own throughput, with ratelimitd, with the floor and with neither."""

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.bench.bench import Bench
from tests.bench.build import build
from tests.bench.rows import Must, Row, compared, in_turn
from tests.bench.service import Service
from tests.instances.components import find
from tests.instances.postfix import Postfix
from tests.instances.waiting import wait_until

SESSIONS = 10
MEMORY = Path("/dev/shm")
MUSTS = {1: Must(at_least=0.97), 3: Must(at_least=0.91)}
"""Of ours against the floor, by recipients of a message."""


@dataclass
class Sent:
    """One run: messages, what a service was to be asked about them, time, and CPU time of Postfix and the service."""

    messages: int
    requests: int
    seconds: float
    postfix_s: float
    service_s: float


def postfix(bench: Bench) -> Iterator[Row]:
    """10 sessions, each with a login, whose messages are discarded; the service is asked about each recipient."""
    find("postfix")
    with bench.ours(accounts=0) as ours, contextlib.ExitStack() as stack:
        services = (ours, bench.floor, None)
        servers = [(stack.enter_context(_running(service)), service) for service in services]
        asked = 0
        for recipients, must in MUSTS.items():
            runs = [partial(_send, server, service, recipients, bench.seconds) for server, service in servers]
            mine, floor, none = in_turn(bench.rounds * 2, *runs)
            name = f"Postfix, {recipients} recipient{'s'[: recipients > 1]}: "
            yield compared(name + "throughput", "mails/s", _both(mine, floor, _per_second), "floor", must)
            yield compared(name + "throughput", "mails/s", _both(mine, none, _per_second), "no service")
            yield compared(name + "the floor's throughput", "mails/s", _both(floor, none, _per_second), "no service")
            yield compared(name + "CPU per message, in all", "us", _both(mine, floor, _message_us), "floor")
            yield compared(name + "CPU per message, in all", "us", _both(mine, none, _message_us), "no service")
            yield compared(name + "CPU per request", "us", _both(mine, floor, _request_us), "floor")
            asked += sum(sent.requests for sent in mine)
        wait_until(lambda: ours.decisions() >= asked, "a line in the log for each recipient")


def _both(ours: list[Sent], others: list[Sent], pick: Callable[[Sent], float]) -> list[tuple[float, float]]:
    return [(pick(a), pick(b)) for a, b in zip(ours, others, strict=True)]


def _per_second(sent: Sent) -> float:
    return sent.messages / sent.seconds


def _message_us(sent: Sent) -> float:
    return (sent.postfix_s + sent.service_s) / sent.messages * 1e6


def _request_us(sent: Sent) -> float:
    return sent.service_s / sent.requests * 1e6


@contextlib.contextmanager
def _running(service: Service | None) -> Iterator[Postfix]:
    """A Postfix that asks this service. Its queue is in memory where that can be: on a disk it would wait for that."""
    asked = ["reject_unlisted_recipient"]
    if service is not None:
        asked.append(f"check_policy_service {{ inet:{service.address}, timeout=10s, default_action=DUNNO }}")
    memory = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="ratelimitd-bench-", dir=memory) as folder:
        server = Postfix(Path(folder))
        server.start({"smtpd_sender_restrictions": ", ".join(asked)}, xclient=True)
        try:
            yield server
        finally:
            server.stop()


def _send(server: Postfix, service: Service | None, recipients: int, seconds: float) -> Sent:
    """Send, and wait until the last message is discarded: what is accepted but waits has not been worked for yet."""
    before = server.cpu_s(), service.cpu_s() if service else 0.0
    command: list[str | Path] = [build("mails"), str(server.port), str(SESSIONS), str(recipients), str(seconds)]
    began = time.monotonic()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=True)
    wait_until(lambda: not _queued(server.queue), "an empty queue", timeout=120, poll=0.005)
    took_s = time.monotonic() - began
    after = server.cpu_s(), service.cpu_s() if service else 0.0
    messages = int(done.stdout)
    return Sent(messages, messages * recipients, took_s, after[0] - before[0], after[1] - before[1])


def _queued(queue: Path) -> bool:
    return any(any((queue / name).iterdir()) for name in ("incoming", "active"))
