"""Asks a running daemon over its control socket."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

from ratelimitd.control.commands import NO, NO_DAEMON, WRONG, A, Command, Refused, decode_answer, encode
from ratelimitd.folders import opened

TIMEOUT_S = 90.0
"""Longer than a daemon ever waits for its store."""
MAX_ANSWER_BYTES = 16 << 20
"""More than a daemon ever says: whoever answers in its place must not fill our memory."""
_NOBODY = (FileNotFoundError, ConnectionRefusedError, NotADirectoryError)


class NoDaemon(Refused):
    """No daemon answers at the control socket."""

    def __init__(self, path: Path, reason: str = "") -> None:
        super().__init__(f"no ratelimitd answers at {path}{reason and ': '}{reason}", NO_DAEMON)


def ask(path: Path, command: Command[A]) -> A:
    """The one answer to a command. Raises Refused; NoDaemon."""
    for answer in answers(path, command):
        return answer
    raise NoDaemon(path, "it hung up")


def answers(path: Path, command: Command[A]) -> Iterator[A]:
    """The answers to a command, as they come. Raises Refused; NoDaemon."""
    with _connect(path) as connection:
        try:
            connection.sendall(encode(command))
            with connection.makefile("rb") as lines:
                while line := lines.readline(MAX_ANSWER_BYTES):
                    if len(line) == MAX_ANSWER_BYTES:
                        raise Refused(f"the answer is not understood: it has {MAX_ANSWER_BYTES:,} bytes or more", NO)
                    yield decode_answer(line, command)
        except OSError as error:
            raise NoDaemon(path, error.strerror or str(error)) from error


def _connect_to(connection: socket.socket, path: Path) -> None:
    """Connect; as root to a socket of that name alone, never through a link that the daemon's user has made of it."""
    if os.geteuid() != 0:
        connection.connect(str(path))
        return
    with opened(path.parent) as folder:
        found = os.open(path.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        connection.connect(f"/proc/self/fd/{found}")
    finally:
        os.close(found)


def _connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(TIMEOUT_S)
    try:
        _connect_to(connection, path)
    except _NOBODY as error:
        connection.close()
        raise NoDaemon(path) from error
    except PermissionError as error:
        connection.close()
        raise Refused(f"{path}: permission denied; ask as root or as the daemon's own user", WRONG) from error
    except OSError as error:
        connection.close()
        raise NoDaemon(path, error.strerror or str(error)) from error
    return connection
