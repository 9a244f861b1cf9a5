"""Where the time of a request goes: `python -m tests.bench.stages`.

The pump's stages one by one, in this process, over 20,000 requests as Postfix sends them, 50 at a time as with 50
connections; the collector is off, and of several repeats the least counts.
"""

import gc
import selectors
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import TypeVar

from ratelimitd.config import read as config
from ratelimitd.core.pending import Pending
from ratelimitd.core.policy import Policy
from ratelimitd.core.verdict import Verdict
from ratelimitd.core.watcher import Nobody
from ratelimitd.log.log import Log
from ratelimitd.log.quiet import QuietLog
from ratelimitd.log.sinks import FileSink
from ratelimitd.logins import AS_SENT
from ratelimitd.net.listeners import Listeners
from ratelimitd.request import Request, RequestReader
from ratelimitd.server.connections import Bounds, Connections
from ratelimitd.server.pump import Pump
from tests.core.build import journal_in, memo, rules

COUNT = 20_000
BATCH = 50
REPEATS = 7
ACCOUNTS = 1000
T = TypeVar("T")
REPLY = b"action=DUNNO\n\n"

_ATTRIBUTES = """request=smtpd_access_policy
protocol_state=RCPT
protocol_name=ESMTP
client_address=192.0.2.{octet}
client_name=host-{account}.customers.example.net
client_port=40022
reverse_client_name=host-{account}.customers.example.net
server_address=198.51.100.25
server_port=587
helo_name=[192.168.1.20]
sender=user{account}@d{domain}.example.com
recipient=recipient{number}@example.org
recipient_count=0
queue_id=
instance=4d2.{number:x}.0.0
size=12345
etrn_domain=
stress=
sasl_method=PLAIN
sasl_username=user{account}@d{domain}.example.com
sasl_sender=
ccert_subject=
ccert_issuer=
ccert_fingerprint=
ccert_pubkey_fingerprint=
encryption_protocol=TLSv1.3
encryption_cipher=TLS_AES_256_GCM_SHA384
encryption_keysize=256
policy_context=

"""
_CONFIG = """
state_dir = "."
[[limit]]
name = "account"
quota = 4_000_000_000
[[limit]]
name = "domain"
key = "domain"
quota = 4_000_000_000
"""


def wire() -> list[bytes]:
    """The requests as bytes."""
    made = []
    for number in range(COUNT):
        account = number % ACCOUNTS
        fields = {"number": number, "account": account, "domain": account % 97, "octet": account % 250 + 1}
        made.append(_ATTRIBUTES.format(**fields).encode())
    return made


def batches(items: list[T]) -> Iterator[list[T]]:
    """The items as the pump has them in one pass."""
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]


def least_us(work: Callable[[], dict[str, float]]) -> dict[str, float]:
    """CPU time per request; `work` does all of them, and says how long each part took."""
    found = [dict(work()) for _ in range(REPEATS)]
    return {name: min(each[name] for each in found) / COUNT * 1e6 for name in found[0]}


class Core:
    """The stages between the bytes and the log line."""

    def __init__(self, folder: Path) -> None:
        file = folder / "ratelimitd.toml"
        file.write_text(_CONFIG)
        self.log = Log([FileSink(folder / "mail.log", 1 << 22)], several_limits=True)
        self.journal = journal_in(folder, "ab")
        self.journal.begin(1)
        self.policy = Policy(config.read(file).limits, rules(), Pending(), memo(100_000), Nobody())
        self._now = int(time.time())
        self._wire = wire()
        self._batches = list(batches(self._wire))
        for batch in self._batches:
            for request in self.parse(batch):
                for meter in self.policy.meters:
                    key = meter.limit.key_of(request)
                    assert key is not None
                    meter.assume(key, self._now)

    def stages(self) -> dict[str, float]:
        """Seconds of CPU time that each stage takes, a batch after the other as in the pump: what is hot stays hot."""
        self.policy.memo = memo(100_000)
        spent = dict.fromkeys(("parse", "keys and decision", "journal (a write for 50)", "log (a write for 50)"), 0.0)
        for batch in self._batches:
            times = [time.thread_time()]
            requests = self.parse(batch)
            times.append(time.thread_time())
            verdicts = self.decide(requests)
            times.append(time.thread_time())
            self.journal.write([verdict.charge for verdict in verdicts if verdict.charge is not None])
            times.append(time.thread_time())
            self.log.decisions([verdict for verdict in verdicts if verdict.status])
            times.append(time.thread_time())
            for name, began, ended in zip(spent, times, times[1:], strict=False):
                spent[name] += ended - began
        return spent

    def parse(self, batch: list[bytes]) -> list[Request]:
        """RequestReader."""
        reader = RequestReader(65536)
        requests = []
        for data in batch:
            request = reader.receive(data)
            assert request is not None
            assert not reader.buffer
            requests.append(request)
        return requests

    def decide(self, requests: list[Request]) -> list[Verdict]:
        """Policy.decide, with a memo that knows none of the transactions."""
        decided = [self.policy.decide(request, self._now) for request in requests]
        verdicts = [verdict for verdict in decided if isinstance(verdict, Verdict)]
        assert len(verdicts) == len(requests)
        return verdicts


class Wire:
    """BATCH connections over TCP, whose clients write and read outside of what is timed."""

    def __init__(self, stack: ExitStack) -> None:
        self.listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=BATCH))
        self.clients: list[socket.socket] = []
        self._wire = wire()
        for _ in range(BATCH):
            self.clients.append(stack.enter_context(socket.create_connection(self.listener.getsockname())))
        for client in self.clients:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.listener.setblocking(False)

    def timed(self, serve: Callable[[], None]) -> float:
        """The CPU time of `serve`, called whenever every client has asked."""
        total = 0.0
        for batch in batches(self._wire):
            for client, data in zip(self.clients, batch, strict=True):
                client.send(data)
            began = time.thread_time()
            serve()
            total += time.thread_time() - began
            for client in self.clients:
                client.recv(100)
        return total


def calls(stack: ExitStack) -> dict[str, float]:
    """What the system calls of a request cost: waiting, receiving, sending."""
    connected = Wire(stack)
    servers = [stack.enter_context(connected.listener.accept()[0]) for _ in range(BATCH)]
    selector = stack.enter_context(selectors.DefaultSelector())
    for server in servers:
        server.setblocking(False)
        selector.register(server, selectors.EVENT_READ, server)
    parts = ("wait (epoll, for 50)", "receive (recv)", "reply (send)")

    def serve() -> None:
        times = [time.thread_time()]
        ready = selector.select(0)
        times.append(time.thread_time())
        for key, _ in ready:
            key.data.recv(16384)
        times.append(time.thread_time())
        for server in servers:
            server.send(REPLY)
        times.append(time.thread_time())
        for i, name in enumerate(parts):
            spent[name] += times[i + 1] - times[i]

    def work() -> dict[str, float]:
        spent.update(dict.fromkeys(parts, 0.0))
        connected.timed(serve)
        return spent

    spent: dict[str, float] = {}
    return least_us(work)


def whole(core: Core, stack: ExitStack) -> float:
    """A pass of the pump: everything, but for trio's part."""
    connected = Wire(stack)
    listeners = Listeners("server.listen")
    listeners.inherit([connected.listener])
    bounds = Bounds((ip_network("127.0.0.0/8"),), 4096, 65536, 30.0, frozenset())
    connections = Connections(listeners, QuietLog(core.log), bounds, AS_SENT)
    pump = Pump(connections, core.policy, core.journal, core.log, lambda: None)
    stack.callback(pump.close)
    pump.connections.listen()
    ready = pump.connections.poll.poll
    while len(pump.connections.open) < BATCH:
        pump._pass(ready(1))

    def serve() -> None:
        pump._pass(ready(0))
        pump._write_lines()

    def work() -> dict[str, float]:
        core.policy.memo = memo(100_000)
        return {"in all": connected.timed(serve)}

    return least_us(work)["in all"]


@contextmanager
def collector_off() -> Iterator[None]:
    """Without Python's garbage collector."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def measure() -> dict[str, float]:
    """Microseconds of CPU time per request, by stage."""
    with tempfile.TemporaryDirectory(prefix="ratelimitd-bench-") as folder, ExitStack() as stack, collector_off():
        core = Core(Path(folder))
        stack.callback(core.log.close)
        stack.callback(core.journal.close)
        stages = calls(stack)
        reply = stages.popitem()
        of_core = list(least_us(core.stages).items())
        stages |= dict((*of_core[:-1], reply, of_core[-1]))
        total = whole(core, stack)
    stages["the pump itself"] = total - sum(stages.values())
    stages["in all"] = total
    return stages


def main() -> None:
    """Print the meter."""
    stages = measure()
    print("| stage                    | us   | share |")
    print("|--------------------------|------|-------|")
    for name, us in stages.items():
        print(f"| {name:24} | {us:4.1f} | {us / stages['in all']:5.0%} |")


if __name__ == "__main__":
    main()
