"""What a mail server feels: a real Postfix's own throughput, with ratelimitd, with the floor and with neither."""

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
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
    """One run: how often a service was to be asked, messages per second, and CPU time of the service per request."""

    requests: int
    per_second: float
    cpu_us: float


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
            yield compared(name + "throughput", "mails/s", _per_second(mine, floor), "floor", must)
            yield compared(name + "throughput", "mails/s", _per_second(mine, none), "no service")
            yield compared(name + "the floor's throughput", "mails/s", _per_second(floor, none), "no service")
            cpu = [(a.cpu_us, b.cpu_us) for a, b in zip(mine, floor, strict=True)]
            yield compared(name + "CPU per request", "us", cpu, "floor")
            asked += sum(sent.requests for sent in mine)
        wait_until(lambda: ours.decisions() >= asked, "a line in the log for each recipient")


def _per_second(ours: list[Sent], others: list[Sent]) -> list[tuple[float, float]]:
    return [(a.per_second, b.per_second) for a, b in zip(ours, others, strict=True)]


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
    before = service.cpu_s() if service else 0.0
    command: list[str | Path] = [build("mails"), str(server.port), str(SESSIONS), str(recipients), str(seconds)]
    began = time.monotonic()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=True)
    sent = int(done.stdout)
    wait_until(lambda: not _queued(server.queue), "an empty queue", timeout=120, poll=0.005)
    took_s = time.monotonic() - began
    cpu_s = service.cpu_s() - before if service else 0.0
    return Sent(sent * recipients, sent / took_s, cpu_s / (sent * recipients) * 1e6)


def _queued(queue: Path) -> bool:
    return any(any((queue / name).iterdir()) for name in ("incoming", "active"))
