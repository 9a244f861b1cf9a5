"""Streams as nobody should send them: pieces of requests, changed and cut, ended in every way a connection can end."""

import random
import socket
import struct
from pathlib import Path

from ratelimitd.net.listeners import Address
from tests.daemon.client import request
from tests.fuzz.targets import corpus

RESET = struct.pack("ii", 1, 0)
TIMEOUT_S = 60.0
AT_ONCE = 20
LOGINS = 400
"""Logins come again, so that memory has an end; two connections that are open at once never have the same."""


class Storm:
    """Sends streams to a daemon whose limit refuses everything, with the key in its text: whose reply it is shows."""

    def __init__(self, address: Address, seed: int) -> None:
        self.replies = 0
        self.sent = 0
        self._address = address
        self._chosen = random.Random(seed)
        self._junk = [data[1:] for data in corpus("request")]

    def run(self, streams: int) -> None:
        """Send so many, AT_ONCE open at a time. Raises AssertionError for a reply that is somebody else's."""
        for _ in range(0, streams, AT_ONCE):
            opened: list[tuple[socket.socket, str]] = []
            for _ in range(AT_ONCE):
                login = f"storm{self.sent % LOGINS}@example.com"
                self.sent += 1
                opened.append((self._open(), login))
                self._send(*opened[-1])
            self._chosen.shuffle(opened)
            for sock, login in opened:
                self._end(sock, login)

    def _open(self) -> socket.socket:
        if isinstance(self._address, Path):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.settimeout(TIMEOUT_S)
            sock.connect(str(self._address))
            return sock
        return socket.create_connection(self._address, TIMEOUT_S)

    def _send(self, sock: socket.socket, login: str) -> None:
        """Whole requests of this login, then what is not one."""
        chosen = self._chosen
        whole = request(login, protocol_state="DATA", recipient_count=chosen.randint(2, 9))
        data = whole * chosen.randint(0, 3) + self._mutated(chosen.choice([*self._junk, whole]))
        cut = chosen.randint(0, len(data))
        try:
            sock.sendall(data[:cut])
            sock.sendall(data[cut:])
        except OSError:
            pass  # it is closed, as documented, after a request that is too long

    def _mutated(self, data: bytes) -> bytes:
        chosen = self._chosen
        for _ in range(chosen.randint(0, 3)):
            start = chosen.randint(0, len(data))
            match chosen.randrange(5):
                case 0:
                    data = data[:start] + bytes([chosen.randrange(256)]) + data[start + 1 :]
                case 1:
                    data = data[:start]
                case 2:
                    data = data[:start] + chosen.randbytes(chosen.randint(0, 40)) + data[start:]
                case 3:
                    data = data[start:] + data[:start]
                case _:
                    data = data[:start] + b"x" * chosen.choice((100, 3000)) + data[start:]
        return data.replace(b"sasl_username=", b"sasl_user_name=")  # nobody but us has an account

    def _end(self, sock: socket.socket, login: str) -> None:
        """Close, reset, half-close and read, or read a little and reset."""
        end = self._chosen.randrange(4)
        try:
            if end == 0:
                return
            if end == 1:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                return
            if end == 2:
                sock.shutdown(socket.SHUT_WR)
                self._check(self._read(sock), login)
            else:
                sock.settimeout(0.001)
                sock.recv(self._chosen.randint(1, 30))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        except OSError:
            pass  # closed by the daemon, with something of ours not read
        finally:
            sock.close()

    def _read(self, sock: socket.socket) -> bytes:
        data = b""
        while more := sock.recv(65536):
            data += more
        return data

    def _check(self, data: bytes, login: str) -> None:
        replies = data.split(b"\n\n")
        assert replies.pop() == b""
        for reply in replies:
            assert reply in (b"action=DUNNO", b"action=450 4.7.1 no more from " + login.encode()), (reply, login)
            self.replies += reply != b"action=DUNNO"
