"""The control socket: where `ratelimitctl` asks the daemon. Nothing administrative is on the policy port.

Each connection sends one command (commands.py) and reads its answers. The socket's mode says who may connect; if
only its owner may, the peer must also be root or the daemon's own user.
"""

import os
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import trio

from ratelimitd.control.answers import Answer, Failure
from ratelimitd.control.commands import MAX_COMMAND_BYTES, NO, WRONG, AnyCommand, Refused, decode, encode_answer
from ratelimitd.log.log import Log
from ratelimitd.net.admission import peer_uid

MAX_CLIENTS = 32
COMMAND_TIMEOUT_S = 10.0
"""How long a client may take to send its command, and to read each answer."""
MODE_OF_ALL = 0o077
GONE = (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError)
"""What is raised when a client no longer reads its answers."""

Answers = Callable[[AnyCommand, int], AsyncGenerator[Answer, None]]
"""Gives the answers to a command of the user with this uid, one after the other; raises Refused."""


class Control:
    """Serves the control socket. An error in one client ends that client."""

    def __init__(self, answers: Answers, log: Log, mode: int) -> None:
        self._answers = answers
        self._log = log
        self._check_user = not mode & MODE_OF_ALL
        self._clients = 0

    async def run(self, listener: socket.socket) -> None:
        """Serve until cancelled."""
        served = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
        await trio.serve_listeners(self._serve, [served])

    async def _serve(self, stream: trio.SocketStream) -> None:
        self._clients += 1
        try:
            async with stream:
                await self._converse(stream)
        except GONE:
            pass  # the usual end of `top`
        except Exception as error:
            self._log.error("a command on the control socket failed", reason=repr(error))
        finally:
            self._clients -= 1

    async def _converse(self, stream: trio.SocketStream) -> None:
        try:
            line = b""
            with trio.move_on_after(COMMAND_TIMEOUT_S):
                line = await _read_line(stream)
            if line:
                self._admit(stream)  # after reading: a client that is refused while it still writes never reads why
                await self._answer(decode(line), stream)
        except Refused as error:
            await _send(stream, Failure(str(error), error.status))
        except GONE:
            raise
        except Exception as error:
            await _send(stream, Failure(f"an internal error of ratelimitd: {error!r}", NO))
            raise

    def _admit(self, stream: trio.SocketStream) -> None:
        if self._clients > MAX_CLIENTS:
            raise Refused(f"more than {MAX_CLIENTS} clients at the control socket", NO)
        if self._check_user and (uid := peer_uid(stream.socket)) not in (0, os.geteuid()):
            self._log.warning("refused a command on the control socket", uid=uid)
            raise Refused("only root and the daemon's own user may ask", WRONG)

    async def _answer(self, command: AnyCommand, stream: trio.SocketStream) -> None:
        async with aclosing(self._answers(command, peer_uid(stream.socket))) as answers:
            async for answer in answers:
                await _send(stream, answer)


async def _read_line(stream: trio.SocketStream) -> bytes:
    """The client's line; b"" if it hung up without one. Raises Refused if it is too long."""
    line = b""
    while not line.endswith(b"\n"):
        data = await stream.receive_some(MAX_COMMAND_BYTES)
        if not data:
            return b""
        line += data
        if len(line) > MAX_COMMAND_BYTES:
            raise Refused(f"a command of more than {MAX_COMMAND_BYTES} bytes")
    return line


async def _send(stream: trio.SocketStream, answer: Answer) -> None:
    with trio.fail_after(COMMAND_TIMEOUT_S):
        await stream.send_all(encode_answer(answer))
