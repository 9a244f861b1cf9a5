"""The pump: one task that drives every connection, a batch per wake-up.

Postfix keeps a connection per smtpd process and sends one request at a time on it, so under load many connections
become readable together. They are watched by a selector of our own, whose one file descriptor trio watches; for all
that are ready, in one pass and without an await:

    recv -> split into requests -> key -> charge -> decide -> journal (ONE write) -> send replies -> log lines

A request whose account is not in memory is parked: its connection is left alone until the loader calls `resume`.
An error on one connection ends that connection. An idle connection is never closed: Postfix does that, and a service
that does costs it a second per request.
"""

import errno
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Protocol

import trio

from ratelimitd.errors import RequestTooLong
from ratelimitd.listeners import close_all
from ratelimitd.logs import Log
from ratelimitd.policy import Keys, Policy, Verdict
from ratelimitd.request import Request, RequestReader

RECV_BYTES = 16384
BATCH = 128
"""Connections per pass: a few milliseconds, then the other tasks have their turn."""
REQUESTS_PER_PASS = 16
"""Requests taken from one connection per pass, so that one that floods gets its share only."""
ACCEPTS_PER_PASS = 64
ACCEPT_PAUSE_S = 0.5
_NO_MORE_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class JournalWriter(Protocol):
    """Where charges go before their replies are sent."""

    def write(self, records: list[str]) -> None:
        """Keep the records of a batch; never raises."""
        ...


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one client, and all together, may take."""

    allow: tuple[IPv4Network | IPv6Network, ...] = ()
    max_connections: int = 4096
    max_request_bytes: int = 65536
    request_timeout_s: float = 30.0


class Connection:
    """One client: what it has sent of a request, what it has not taken of a reply."""

    __slots__ = ("closed", "more", "outbox", "parked", "peer", "reader", "sock")

    def __init__(self, sock: socket.socket, peer: str, reader: RequestReader) -> None:
        self.sock = sock
        self.peer = peer
        self.reader = reader
        self.outbox = b""
        self.parked = False
        self.more = False  # whole requests are left from the last pass: nothing is read before they are done
        self.closed = False


@dataclass(slots=True)
class Parked:
    """A request that waits for its accounts to be looked up, with its keys: a plugin is called once per request."""

    connection: Connection
    request: Request
    keys: Keys


class Pump:
    """All listeners and connections."""

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        policy: Policy,
        journal: JournalWriter,
        log: Log,
        bounds: Bounds,
        *,
        default_domain: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.policy = policy
        self.bounds = bounds
        self.default_domain = default_domain
        self.connections: set[Connection] = set()
        self.parked: list[Parked] = []
        self.parked_some = trio.Event()
        self.requests = self.refused_peers = self.timeouts = self.too_long = 0
        self._listeners = list(listeners)
        self._journal = journal
        self._log = log
        self._clock = clock
        self._selector = selectors.DefaultSelector()
        self._selector_fd: int = self._selector.fileno()
        self._more: deque[Connection] = deque()  # those that have whole requests left from the last pass
        self._deadlines: dict[Connection, float] = {}  # of requests begun and replies not taken
        self._accepting = False
        self._draining = False
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)

    # -- the loop ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until `shut_down` has answered what was in flight."""
        self._resume_accepting()
        while not (self._draining and not self.connections):
            if self._more:
                await trio.lowlevel.checkpoint()
            else:
                await trio.lowlevel.wait_readable(self._selector_fd)
            ready = self._selector.select(0)
            for start in range(0, len(ready), BATCH):
                if start:
                    await trio.lowlevel.checkpoint()
                self._pass(ready[start : start + BATCH])
            if self._more:
                self._pass_more()

    def _pass(self, ready: list[tuple[selectors.SelectorKey, int]]) -> None:
        batch: list[tuple[Connection, Verdict]] = []
        now = int(self._clock())
        for key, events in ready:
            connection = key.data
            if type(connection) is not Connection:
                self._accept(connection)
            elif connection.closed or connection.more:
                continue
            elif events & selectors.EVENT_WRITE:
                self._send(connection, b"")
            else:
                self._receive(connection, batch, now)
        self._finish(batch)

    def _pass_more(self) -> None:
        batch: list[tuple[Connection, Verdict]] = []
        now = int(self._clock())
        waiting, self._more = self._more, deque()
        for connection in waiting:
            connection.more = False
            if not connection.closed:
                self._requests(connection, batch, now)
        self._finish(batch)

    def _receive(self, connection: Connection, batch: list[tuple[Connection, Verdict]], now: int) -> None:
        try:
            data = connection.sock.recv(RECV_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._close(connection)
            return
        connection.reader.receive(data)
        self._requests(connection, batch, now)

    def _requests(self, connection: Connection, batch: list[tuple[Connection, Verdict]], now: int) -> None:
        """Decide the whole requests that have arrived, or park the first that cannot be decided yet."""
        reader, policy = connection.reader, self.policy
        try:
            for _ in range(REQUESTS_PER_PASS):
                request = reader.next()
                if request is None:
                    break
                self.requests += 1
                keys = policy.keys(request)
                verdict = policy.decide(request, keys, now)
                if verdict is None:
                    self._park(Parked(connection, request, keys))
                    return
                batch.append((connection, verdict))
            else:
                self._continue(connection)
                return
        except RequestTooLong as error:
            self.too_long += 1
            self._log.warning("closed a connection", peer=connection.peer, reason=error)
            self._close(connection)
            return
        if not reader.partial:
            if self._deadlines:
                self._deadlines.pop(connection, None)
        elif connection not in self._deadlines:
            self._deadlines[connection] = trio.current_time() + self.bounds.request_timeout_s

    def _continue(self, connection: Connection) -> None:
        """Take up the connection's requests in the next pass."""
        if not connection.more:
            connection.more = True
            self._more.append(connection)

    def _finish(self, batch: list[tuple[Connection, Verdict]]) -> None:
        """Journal, replies, log: in this order."""
        records = [verdict.record for _, verdict in batch if verdict.record]
        if records:
            self._journal.write(records)
        for connection, verdict in batch:
            self._send(connection, verdict.reply)
        log = self._log
        log.cork()
        for _, verdict in batch:
            if verdict.status:
                log.decision(verdict)
        log.uncork()

    def _send(self, connection: Connection, data: bytes) -> None:
        if connection.closed:
            return
        if connection.outbox:
            data = connection.outbox + data
        try:
            sent = connection.sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._close(connection)
            return
        if sent < len(data):
            if not connection.outbox:
                self._selector.modify(connection.sock, selectors.EVENT_WRITE, connection)
                self._deadlines[connection] = trio.current_time() + self.bounds.request_timeout_s
            connection.outbox = data[sent:]
            return
        if connection.outbox:
            connection.outbox = b""
            self._selector.modify(connection.sock, selectors.EVENT_READ, connection)
            self._deadlines.pop(connection, None)
        if self._draining:
            self._close_if_done(connection)

    # -- accounts that are looked up ----------------------------------------------------------------------------

    def _park(self, parked: Parked) -> None:
        parked.connection.parked = True
        self._deadlines.pop(parked.connection, None)
        self._selector.unregister(parked.connection.sock)
        self.parked.append(parked)
        self.parked_some.set()

    def take_parked(self) -> list[Parked]:
        """The requests that wait for their accounts; whoever takes them calls `resume`."""
        taken, self.parked = self.parked, []
        self.parked_some = trio.Event()
        return taken

    def resume(self, parked: Sequence[Parked]) -> None:
        """Decide parked requests; every account is known now, or assumed."""
        now = int(self._clock())
        batch: list[tuple[Connection, Verdict]] = []
        for waiting in parked:
            connection = waiting.connection
            for table, key in self.policy.missing(waiting.keys, now):
                table.assume(key, now)
            verdict = self.policy.decide(waiting.request, waiting.keys, now)
            assert verdict is not None
            batch.append((connection, verdict))
            if not connection.closed:
                connection.parked = False
                self._selector.register(connection.sock, selectors.EVENT_READ, connection)
                self._continue(connection)
        self._finish(batch)
        self._wake()

    def _wake(self) -> None:
        self._wake_write.send(b"\0")

    # -- connections come and go ----------------------------------------------------------------------------------

    def _accept(self, listener: socket.socket | None) -> None:
        if listener is None:
            self._wake_read.recv(4096)
            return
        for _ in range(ACCEPTS_PER_PASS):
            if len(self.connections) >= self.bounds.max_connections:
                self._pause_accepting(f"server.max_connections = {self.bounds.max_connections} is reached")
                return
            try:
                sock, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _NO_MORE_DESCRIPTORS:
                    raise
                self._pause_accepting(str(error.strerror))
                return
            self._admit(sock, address)

    def _admit(self, sock: socket.socket, address: tuple[str, int] | str) -> None:
        sock.setblocking(False)
        peer = "unix"
        if sock.family != socket.AF_UNIX:
            host = address[0]
            peer = f"{host}:{address[1]}"
            if not self._allowed(host):
                self.refused_peers += 1
                self._log.warning("refused a connection", peer=peer, reason="not in server.allow")
                sock.close()
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader = RequestReader(self.bounds.max_request_bytes, self.default_domain)
        connection = Connection(sock, peer, reader)
        self.connections.add(connection)
        self._selector.register(sock, selectors.EVENT_READ, connection)

    def _allowed(self, host: str) -> bool:
        peer = ip_address(host.partition("%")[0])
        mapped = getattr(peer, "ipv4_mapped", None)
        return any((mapped or peer) in network for network in self.bounds.allow)

    def _pause_accepting(self, reason: str) -> None:
        if self._accepting:
            self._accepting = False
            for listener in self._listeners:
                self._selector.unregister(listener)
            self._log.error("accepting no connections for now", reason=reason, connections=len(self.connections))

    def _resume_accepting(self) -> None:
        if not self._accepting and not self._draining and len(self.connections) < self.bounds.max_connections:
            self._accepting = True
            for listener in self._listeners:
                self._selector.register(listener, selectors.EVENT_READ, listener)

    def _close(self, connection: Connection) -> None:
        if connection.closed:
            return
        connection.closed = True
        if not connection.parked:
            self._selector.unregister(connection.sock)
        connection.sock.close()
        self.connections.discard(connection)
        self._deadlines.pop(connection, None)
        if self._draining:
            self._wake()

    async def watch_deadlines(self) -> None:
        """Close connections that trickle a request or take no reply; go on accepting after a pause."""
        while True:
            await trio.sleep(ACCEPT_PAUSE_S)
            now = trio.current_time()
            for connection in [c for c, deadline in self._deadlines.items() if deadline <= now]:
                self.timeouts += 1
                self._log.warning("closed a connection", peer=connection.peer, reason="server.request_timeout_s")
                self._close(connection)
            self._resume_accepting()

    # -- the end ----------------------------------------------------------------------------------------------------

    def shut_down(self) -> None:
        """Accept no more; answer what has arrived, then close; `run` returns when all are closed."""
        self._draining = True
        if self._accepting:
            self._accepting = False
            for listener in self._listeners:
                self._selector.unregister(listener)
        close_all(self._listeners)
        batch: list[tuple[Connection, Verdict]] = []
        for connection in list(self.connections):
            if not connection.parked and not connection.outbox:
                self._receive(connection, batch, int(self._clock()))
        self._finish(batch)
        for connection in list(self.connections):
            self._close_if_done(connection)
        self._wake()

    def _close_if_done(self, connection: Connection) -> None:
        waits = connection.parked or connection.outbox or connection.reader.partial
        if not waits:
            self._close(connection)

    def close(self) -> None:
        """Close every connection, answered or not."""
        for connection in list(self.connections):
            self._close(connection)
        self._selector.close()
        self._wake_read.close()
        self._wake_write.close()
