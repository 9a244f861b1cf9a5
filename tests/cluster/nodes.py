"""Daemons on one database as processes, and Postfix's side of them: threads that ask and keep count."""

import contextlib
import itertools
import random
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.daemon.forked import start
from tests.instances.ports import free_port
from tests.instances.processes import Process
from tests.instances.waiting import wait_until

PATIENT_S = 60.0

_instances = itertools.count(1)


class Node:
    """A ratelimitd under `folder`; `store` and `more` are TOML, the limit is `quota` a day by login.

    `prefix` is put before the command.
    """

    def __init__(
        self, folder: Path, store: str, *, quota: int = 1_000_000, more: str = "", prefix: Sequence[str] = ()
    ) -> None:
        folder.mkdir(exist_ok=True)
        backend = "" if "backend = " in store else 'backend = "mysql"\n'
        self.folder = folder
        self.port = free_port()
        self.file = folder / "ratelimitd.toml"
        self.file.write_text(
            f'state_dir = "state"\n{more}\n[server]\nlisten = ["127.0.0.1:{self.port}"]\n'
            f'[log]\nsyslog = ""\nfile = "log"\n[store]\n{backend}{store}\n'
            f'[[limit]]\nname = "daily"\nquota = {quota}\n',
            encoding="utf-8",
        )
        self._prefix = prefix
        self._process: Process | None = None

    def start(self) -> None:
        """Start it and wait until it listens."""
        self._process = process = start(["-c", self.file], self.folder / "output", prefix=self._prefix)
        wait_until(lambda: self._listens(process), "the daemon's start", PATIENT_S)

    def _listens(self, process: Process) -> bool:
        process.check()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), PATIENT_S):
            return True
        return False

    def stop(self) -> None:
        """SIGTERM; it has stored everything then."""
        process, self._process = self._process, None
        if process is not None:
            process.signal(signal.SIGTERM)
            wait_until(lambda: not process.running(), "the daemon's end", PATIENT_S)
            process.kill()

    def kill(self) -> None:
        """SIGKILL."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.signal(number)

    def log(self) -> str:
        """Its log so far."""
        file = self.folder / "log"
        return file.read_text(encoding="utf-8") if file.exists() else ""

    def said(self, text: str) -> int:
        """How many lines of the log have a text in them."""
        return sum(text in line for line in self.log().splitlines())

    def wait_for(self, text: str, times: int = 1) -> None:
        """Wait until the log has so many lines with a text in them."""
        wait_until(lambda: self.said(text) >= times, f"{text!r} in the log", PATIENT_S)


def ask(link: socket.socket, login: str, **attributes: str) -> str:
    """One request at RCPT, one recipient never seen before; the action. Raises OSError, EOFError."""
    number = next(_instances)
    values = {
        "request": "smtpd_access_policy",
        "protocol_state": "RCPT",
        "instance": f"cluster.{number:x}",
        "recipient": f"r{number}@example.org",
        "sasl_username": login,
        **attributes,
    }
    link.sendall("".join(f"{name}={value}\n" for name, value in values.items()).encode() + b"\n")
    reply = b""
    while not reply.endswith(b"\n\n"):
        data = link.recv(4096)
        if not data:
            raise EOFError
        reply += data
    return reply[len(b"action=") : -2].decode()


class Load:
    """Connections that ask for random accounts until told to stop; a connection that is lost is made again."""

    def __init__(self, nodes: Sequence[Node], logins: Sequence[str], *, connections: int, pause_s: float = 0.002):
        self.sent: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.admitted: Counter[str] = Counter()
        self.lost = 0
        self.slowest_s = 0.0
        self._logins = logins
        self._pause_s = pause_s
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(node, number), daemon=True)
            for number, node in enumerate(node for node in nodes for _ in range(connections))
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def run_for(self, seconds: float) -> None:
        """Let it run."""
        self._ending.wait(seconds)

    def _run(self, node: Node, seed: int) -> None:
        choice = random.Random(seed)
        while not self._ending.is_set():
            try:
                with socket.create_connection(("127.0.0.1", node.port), PATIENT_S) as link:
                    while not self._ending.is_set():
                        self._one(link, choice.choice(self._logins))
                        self._ending.wait(choice.uniform(0, 2 * self._pause_s))
            except (OSError, EOFError):
                self._ending.wait(0.05)

    def _one(self, link: socket.socket, login: str) -> None:
        with self._lock:
            self.sent[login] += 1
        began = time.monotonic()
        try:
            action = ask(link, login)
        except (OSError, EOFError):
            with self._lock:
                self.lost += 1
            raise
        with self._lock:
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            self.answered[login] += 1
            self.admitted[login] += action == "DUNNO"

    def check(self, stored: dict[str, int]) -> None:
        """What was answered is stored, and nothing that was not sent: exact, but for requests that died unanswered."""
        wrong = {
            login: (self.answered[login], stored.get(login, 0), sent)
            for login, sent in self.sent.items()
            if not self.answered[login] <= stored.get(login, 0) <= sent
        }
        assert not wrong, f"answered, stored, sent: {wrong}"
        assert set(stored) <= set(self.sent)
        assert self.sent.total() - self.answered.total() == self.lost
