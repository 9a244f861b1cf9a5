"""A daemon in a process of its own, which is killed and started again on one state directory; and its clients."""

import contextlib
import random
import selectors
import signal
import socket
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.daemon.forked import start
from tests.instances.processes import Process
from tests.instances.waiting import wait_until

CONFIG = """
state_dir = "{folder}/state"
[server]
listen = ["unix:{folder}/policy.sock"]
[store]
flush_interval_s = {flush_interval_s}
[log]
syslog = ""
file = "{folder}/log"
level = "warning"
[[limit]]
name = "default"
quota = {quota}
[[limit]]
name = "domain"
key = "domain"
period = "monthly"
quota = 0
"""


class Daemon:
    """`start` and `kill` it at will; `stored` is what its SQLite file has."""

    def __init__(self, folder: Path, quota: int = 0, flush_interval_s: float = 0.1) -> None:
        self.folder = folder
        self.config = folder / "ratelimitd.toml"
        self.config.write_text(CONFIG.format(folder=folder, quota=quota, flush_interval_s=flush_interval_s))
        self.process: Process | None = None

    @property
    def socket(self) -> str:
        """Where it listens."""
        return str(self.folder / "policy.sock")

    def start(self) -> None:
        """Start it; it may not listen yet."""
        self.process = start(["-c", self.config], self.folder / "output")

    def answers(self) -> bool:
        """Whether it accepts connections."""
        assert self.process is not None
        self.process.check()
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(self.socket)
            except OSError:
                return False
            return True

    def wait(self) -> None:
        """Wait until it listens."""
        wait_until(self.answers, "the daemon listens", 60)

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()

    def stop(self) -> None:
        """SIGTERM, and its end."""
        assert self.process is not None
        self.process.stop(60)

    def terminate(self, meanwhile: Callable[[], None] | None = None) -> int:
        """SIGTERM, and its exit status; something is done again and again until it has ended."""
        assert self.process is not None
        self.process.signal(signal.SIGTERM)
        while meanwhile is not None and self.process.running():
            meanwhile()
        return self.process.wait(60)

    def stored(self, limit: str = "default") -> Counter[str]:
        """Recipients by account."""
        with contextlib.closing(sqlite3.connect(self.folder / "state" / "ratelimit.sqlite3")) as connection:
            rows = connection.execute("SELECT sender, used FROM ratelimit WHERE limit_name = ?", (limit,))
            return Counter(dict(rows))


class Clients:
    """Closed-loop clients, a connection each: a request, its reply, the next request.

    Where the connection breaks, `resend` says whether the same request is asked again on the next one, as Postfix
    does, or given up. `sent` and `answered` count requests by account; a request asked twice was sent once.
    """

    def __init__(self, path: str, connections: int, accounts: int, resend: bool, seed: int) -> None:
        self.sent: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.replies: Counter[bytes] = Counter()
        self.slowest_s = 0.0
        self._path = path
        self._connections = connections
        self._accounts = accounts
        self._resend = resend
        self._seed = seed
        self._random = random.Random(seed)
        self._asked = 0
        self._open: dict[int, tuple[str, bytes]] = {}  # by connection: the account and request not answered yet

    def run(self, seconds: float, drain: bool = False) -> None:
        """Ask for a while, or until the daemon is gone; with `drain`, until all that was asked is answered."""
        with selectors.DefaultSelector() as selector, contextlib.ExitStack() as sockets:
            for number in range(self._connections):
                connection = sockets.enter_context(socket.socket(socket.AF_UNIX))
                try:
                    connection.connect(self._path)
                except OSError:
                    return
                selector.register(connection, selectors.EVENT_READ, [number, 0.0, b""])
                self._ask(connection, selector.get_key(connection).data, first=True)
            end = time.monotonic() + seconds
            while selector.get_map() and time.monotonic() < end + (60 if drain else 0):
                for key, _ in selector.select(0.2):
                    connection = key.fileobj  # type: ignore[assignment]
                    if not self._receive(connection, key.data, asking=time.monotonic() < end):
                        selector.unregister(connection)

    def _ask(self, connection: socket.socket, state: list[object], first: bool = False) -> None:
        number = state[0]
        assert isinstance(number, int)
        if not (first and self._resend and number in self._open):
            self._open[number] = self._request()
            self.sent[self._open[number][0]] += 1
        state[1] = time.monotonic()
        with contextlib.suppress(OSError):
            connection.send(self._open[number][1])

    def _request(self) -> tuple[str, bytes]:
        self._asked += 1
        account = f"user{self._random.randrange(self._accounts)}@example.com"
        text = (
            f"request=smtpd_access_policy\nprotocol_state=RCPT\nsasl_username={account}\n"
            f"instance={self._asked:x}.{self._seed:x}\nrecipient=rcpt{self._asked}@example.net\nrecipient_count=0\n\n"
        )
        return account, text.encode()

    def _receive(self, connection: socket.socket, state: list[object], asking: bool) -> bool:
        """Take what arrived; whether more is expected."""
        try:
            data = connection.recv(4096)
        except OSError:
            data = b""
        if not data:
            return False
        number, began, before = state
        assert isinstance(number, int)
        assert isinstance(began, float)
        assert isinstance(before, bytes)
        state[2] = before + data
        if not (before + data).endswith(b"\n\n"):
            return True
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        self.replies[(before + data).split(b" ")[0].strip()] += 1
        state[2] = b""
        account, _ = self._open.pop(number)
        self.answered[account] += 1
        if asking:
            self._ask(connection, state)
        return asking
