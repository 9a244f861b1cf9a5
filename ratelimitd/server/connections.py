"""Who is connected: accepting, how many, and for how long a request may trickle.

An idle connection is never closed: Postfix does that itself, and a service that does costs it a second per request.
"""

import errno
import math
import select
import socket
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Final

import trio

from ratelimitd.log.quiet import QuietLog
from ratelimitd.logins import LoginRules
from ratelimitd.net.admission import recognise
from ratelimitd.net.listeners import Listeners
from ratelimitd.request import RequestReader

ACCEPTS_PER_PASS = 64
NEVER = math.inf
_NO_MORE_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one client, and all together, may take."""

    allow: tuple[IPv4Network | IPv6Network, ...]
    max_connections: int
    max_request_bytes: int
    request_timeout_s: float
    unix_uids: frozenset[int]  # who may use unix sockets; none named: whom their mode admits


class State:
    """Where a connection is; it is in one place at a time. `events` is what it is watched for there.

    Not an Enum: the states are compared for each request, and an Enum's hooks are not compiled.
    """

    __slots__ = ("events", "meaning")

    def __init__(self, meaning: str, events: int) -> None:
        self.meaning = meaning
        self.events = events

    def __repr__(self) -> str:
        return f"<{self.meaning}>"


READING: Final = State("more bytes are needed, once a reply that is decided in this pass has gone out", select.EPOLLIN)
QUEUED: Final = State("bytes that have arrived wait for a later pass, before more are read", select.EPOLLIN)
TAKEN: Final = State("it was queued, and has its turn in this pass", select.EPOLLIN)
PARKED: Final = State("its request waits for an account", select.EPOLLONESHOT)
SENDING: Final = State("it has not taken all of its reply; nothing else is decided for it", select.EPOLLOUT)
CLOSED: Final = State("not opened yet, or closed", 0)


class Connection:
    """One client: what it has sent of a request, what it has not taken of a reply. Its state is for others to read."""

    __slots__ = ("deadline", "outbox", "peer", "reader", "sock", "state")

    def __init__(self, sock: socket.socket, peer: str, reader: RequestReader) -> None:
        self.sock = sock
        self.peer = peer
        self.reader = reader
        self.outbox = b""  # SENDING: what is left of the reply
        self.deadline = NEVER  # in trio's time: the request or reply that has begun must end by then
        self.state = CLOSED  # Connections.enter is its only writer

    @property
    def idle(self) -> bool:
        """Whether nothing is in flight: no part of a request, no reply that is due or not taken."""
        return self.state is READING and not self.reader.buffer


class Connections:
    """The listeners and every connection, watched by one epoll; `watched` has those that are open, by file descriptor.

    A file descriptor that is ready but not in `watched` belongs to a listener, or to a client that has left: `accept`.
    Each connection has one state; `enter` alone writes it, and keeps queue and epoll in step.
    """

    def __init__(self, listeners: Listeners, quiet: QuietLog, bounds: Bounds, rules: LoginRules) -> None:
        self.bounds = bounds
        self.rules = rules
        self.poll = select.epoll()
        self.watched: dict[int, Connection] = {}
        self.open: set[Connection] = set()
        self.queue: deque[Connection] = deque()  # those that are QUEUED, each once, and some that were closed since
        self.refused_peers = self.failed_accepts = self.timeouts = self.pauses = 0
        self.listeners = listeners
        self.quiet = quiet
        self._accepting = False
        self._ended = False
        # A byte sent here by another task ends the wait of the pump.
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self.poll.register(self._wake_read, select.EPOLLIN)

    def wake(self) -> None:
        """Make `poll` ready."""
        with suppress(BlockingIOError):  # full: `poll` is ready already
            self._wake_write.send(b"\0")

    # -- coming ----------------------------------------------------------------------------------------------------

    def accept(self, fd: int) -> None:
        """Accept the clients that wait at a listener."""
        if fd == self._wake_read.fileno():
            self._wake_read.recv(4096)
            return
        listener = next((listener for listener in self.listeners if listener.fileno() == fd), None)
        if listener is None:  # closed by a reload since it was ready
            return
        for _ in range(ACCEPTS_PER_PASS):
            if len(self.open) >= self.bounds.max_connections:
                self._pause(f"server.max_connections = {self.bounds.max_connections} is reached")
                return
            try:
                sock, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # Whatever it is, waiting helps and spinning does not; usually there are no more descriptors.
                self._pause("no more file descriptors" if error.errno in _NO_MORE_DESCRIPTORS else str(error))
                return
            try:
                self._admit(sock, address)
            except OSError:  # the client has left already, or the kernel watches no more sockets for us
                self.failed_accepts += 1
                sock.close()

    def _admit(self, sock: socket.socket, address: tuple[str, int] | str) -> None:
        sock.setblocking(False)
        peer, refusal = recognise(sock, address, self.bounds.allow, self.bounds.unix_uids)
        if refusal:
            self.refused_peers += 1
            self.quiet.warning("refused a connection", peer=peer, reason=refusal)
            sock.close()
            return
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(sock, peer, RequestReader(self.bounds.max_request_bytes, self.rules))
        self.enter(connection, READING)
        self.open.add(connection)

    def _pause(self, reason: str) -> None:
        if self._accepting:
            self.pauses += 1
            self._unlisten()
            self.quiet.error("accepting no connections for now", reason=reason, connections=len(self.open))

    def _unlisten(self) -> None:
        if self._accepting:
            self._accepting = False
            for listener in self.listeners:
                self.poll.unregister(listener)

    def listen(self) -> None:
        """Accept, or go on accepting after a pause."""
        if not self._accepting and not self._ended and len(self.open) < self.bounds.max_connections:
            self._accepting = True
            for listener in self.listeners:
                self.poll.register(listener, select.EPOLLIN)

    def listen_at(self, addresses: Sequence[str], opened: Mapping[str, socket.socket]) -> None:
        """Accept at these addresses from now on; `opened` are the sockets that are new (Listeners.prepare)."""
        accepting = self._accepting
        self._unlisten()
        self.listeners.adopt(addresses, opened)
        if accepting:
            self.listen()

    def configure(self, bounds: Bounds, rules: LoginRules) -> None:
        """Set what clients may take, connected ones too; those stay connected, whoever they are."""
        self.bounds, self.rules = bounds, rules
        for connection in self.open:
            reader = connection.reader
            reader.max_bytes, reader.rules = bounds.max_request_bytes, rules

    def end_listening(self) -> None:
        """Accept no more; the listeners are closed."""
        self._unlisten()
        self._ended = True
        self.listeners.close()

    # -- staying ---------------------------------------------------------------------------------------------------

    def enter(self, connection: Connection, state: State) -> None:
        """Change the state of a connection: the only place that does."""
        before = connection.state
        if state.events != before.events:
            if not before.events:
                self.poll.register(connection.sock, state.events)
                self.watched[connection.sock.fileno()] = connection
            elif state.events:
                self.poll.modify(connection.sock, state.events)
            else:
                self.poll.unregister(connection.sock)
                del self.watched[connection.sock.fileno()]
        if state is QUEUED and before is not QUEUED:
            self.queue.append(connection)
        connection.state = state

    def take_queued(self, count: int) -> list[Connection]:
        """Those whose turn has come, at most so many; whoever takes them lets each enter another state."""
        if not self.queue:
            return []
        popped = [self.queue.popleft() for _ in range(min(count, len(self.queue)))]
        taken = [connection for connection in popped if connection.state is QUEUED]
        for connection in taken:
            self.enter(connection, TAKEN)
        return taken

    def send(self, connection: Connection, data: bytes) -> None:
        """Send a reply, or what is left of it. Once it is sent, what the client has sent meanwhile has its turn."""
        if connection.state is CLOSED:
            return
        try:
            sent = connection.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close(connection)
            return
        if sent == len(data):
            connection.outbox = b""
            connection.deadline = NEVER
            following = QUEUED if connection.reader.buffer else READING
            if following is not connection.state:
                self.enter(connection, following)
            return
        if connection.state is not SENDING:
            connection.deadline = NEVER  # that of the request
            self.expect(connection)
            self.enter(connection, SENDING)
        connection.outbox = data[sent:]

    def park(self, connection: Connection) -> None:
        """Leave the connection alone while its request waits."""
        connection.deadline = NEVER
        self.enter(connection, PARKED)

    def read_on(self, connection: Connection) -> None:
        """What has arrived is not a whole request: the rest must follow."""
        self.expect(connection)
        self.enter(connection, READING)

    def expect(self, connection: Connection) -> None:
        """Something has begun, a request or the sending of a reply, and must end within request_timeout_s."""
        if connection.deadline == NEVER:
            connection.deadline = trio.current_time() + self.bounds.request_timeout_s

    def close_overdue(self) -> None:
        """Close the connections that trickle a request or take no reply."""
        now = trio.current_time()
        for connection in [c for c in self.open if c.deadline <= now]:
            self.timeouts += 1
            self.quiet.warning("closed a connection", peer=connection.peer, reason="server.request_timeout_s")
            self.close(connection)

    # -- going -----------------------------------------------------------------------------------------------------

    def close(self, connection: Connection) -> None:
        """Close a connection; may be called again."""
        if connection.state is CLOSED:
            return
        self.enter(connection, CLOSED)
        connection.sock.close()
        self.open.discard(connection)

    def close_idle(self) -> None:
        """Close the connections that nothing is in flight on."""
        for connection in [c for c in self.open if c.idle]:
            self.close(connection)

    def close_all(self) -> None:
        """Close every connection, and what watches them."""
        for connection in list(self.open):
            self.close(connection)
        self.poll.close()
        self._wake_read.close()
        self._wake_write.close()
