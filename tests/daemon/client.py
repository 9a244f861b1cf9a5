"""A policy client as Postfix's: blocking, one request at a time, exact to the byte."""

import itertools
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

TIMEOUT_S = 60.0
DUNNO = "DUNNO"

_instances = itertools.count(1)


def new_instance() -> str:
    """An instance that no other request of this test run has."""
    return f"e2e.{next(_instances):x}.0"


def request(login: str = "alice@example.com", **attributes: str | int) -> bytes:
    """A request as Postfix sends it at RCPT, the attributes given in place of its own; `instance` is a new one."""
    values: dict[str, str | int] = {
        "request": "smtpd_access_policy",
        "protocol_state": "RCPT",
        "protocol_name": "ESMTP",
        "client_address": "192.0.2.1",
        "client_name": "client.example.net",
        "helo_name": "laptop.example.net",
        "sender": login,
        "recipient": "someone@example.org",
        "recipient_count": 0,
        "queue_id": "",
        "instance": "",
        "size": 0,
        "sasl_method": "PLAIN",
        "sasl_username": login,
    }
    values |= attributes
    values["instance"] = values["instance"] or new_instance()
    lines = [f"{name}={value}".encode("utf-8", "surrogateescape") for name, value in values.items()]
    return b"\n".join([*lines, b"", b""])


class PolicyClient:
    """One connection. `address` is a port of 127.0.0.1, a (host, port) or the path of a unix socket."""

    def __init__(self, address: int | tuple[str, int] | Path) -> None:
        if isinstance(address, Path):
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.socket.settimeout(TIMEOUT_S)
            try:
                self.socket.connect(str(address))
            except OSError:
                self.socket.close()
                raise
        else:
            target = ("127.0.0.1", address) if isinstance(address, int) else address
            self.socket = socket.create_connection(target, TIMEOUT_S)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send these bytes and read nothing."""
        self.socket.sendall(data)

    def reply(self) -> str:
        """Read one reply: its action. Raises EOFError where the service hung up."""
        while b"\n\n" not in self._received:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError(f"hung up after {self._received!r}")
            self._received += data
        reply, self._received = self._received.split(b"\n\n", 1)
        name, _, action = reply.decode("ascii").partition("=")
        if name != "action" or "\n" in action or not action:
            raise ValueError(f"malformed reply: {reply!r}")
        return action

    def ask(self, login: str = "alice@example.com", **attributes: str | int) -> str:
        """Send one request (see `request`) and read its reply."""
        self.send(request(login, **attributes))
        return self.reply()

    def at_end(self) -> bool:
        """Wait until the service says something or hangs up; whether it hung up without a word."""
        try:
            return not self._received and self.socket.recv(1) == b""
        except ConnectionResetError:
            return True
