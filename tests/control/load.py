"""Accounts that go on sending while something else is tried."""

import collections
import threading

from tests.daemon.client import PolicyClient
from tests.daemon.process import Ratelimitd
from tests.instances.waiting import wait_until

PAUSE_S = 0.002


class Load:
    """Connections that each send for the accounts `load0@example.com` to `load9@example.com`, one request at a time.

    Every request is answered, or `stop` raises; `answered` counts the requests of each account, `replies` the replies.
    """

    def __init__(self, daemon: Ratelimitd, connections: int = 2) -> None:
        self.answered: collections.Counter[str] = collections.Counter()
        self.replies: collections.Counter[str] = collections.Counter()
        self._daemon = daemon
        self._failures: list[Exception] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(connections)]

    def start(self) -> None:
        """Begin, and wait until some of it is answered."""
        for thread in self._threads:
            thread.start()
        self.go_on()

    def go_on(self, requests: int = 50) -> None:
        """Wait until so many requests more are answered."""
        wanted = self.answered.total() + requests
        wait_until(lambda: self.answered.total() >= wanted or bool(self._failures), "answers", 60)
        self._check()

    def stop(self) -> None:
        """End, and raise what went wrong on a connection."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._check()

    def _check(self) -> None:
        if self._failures:
            raise self._failures[0]

    def _send(self) -> None:
        try:
            with PolicyClient(self._daemon.addresses[0]) as client:
                number = 0
                while not self._stop.wait(PAUSE_S):
                    login = f"load{number % 10}@example.com"
                    reply = client.ask(login)
                    self.answered[login] += 1
                    self.replies[reply.split()[0]] += 1
                    number += 1
        except Exception as error:
            self._failures.append(error)
