"""A trivial policy server in a thread, which records what it is asked."""

import socketserver
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

Request = dict[str, str]


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    policy: "PolicyServer"


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, _Server)
        policy = self.server.policy
        attributes: Request = {}
        for line in self.rfile:
            if line != b"\n":
                name, _, value = line.rstrip(b"\n").decode("utf-8", "surrogateescape").partition("=")
                attributes.setdefault(name, value)
                continue
            policy.requests.append(attributes)
            self.wfile.write(f"action={policy.answer(attributes)}\n\n".encode())
            attributes = {}


class PolicyServer:
    """Answers each request with what `answer` says of it; the requests are in `requests`."""

    def __init__(self, answer: Callable[[Request], str] = lambda request: "DUNNO") -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.policy = self
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def restriction(self) -> str:
        """How Postfix is told to ask it."""
        return f"check_policy_service {{ inet:127.0.0.1:{self.port}, timeout=10s, default_action=DUNNO }}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
