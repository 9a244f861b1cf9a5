"""The pump: one task that drives every connection, a batch per wake-up.

Postfix keeps a connection per smtpd process and sends one request at a time on it, so under load many connections
become readable together. They are watched by an epoll of our own, whose one file descriptor trio watches; for all
that are ready, in one pass and without an await:

    recv -> split into requests -> key -> charge -> decide -> journal (ONE write) -> send replies

A way through trio costs as much as two requests, and five where other processes have taken the caches meanwhile. So
the pump waits for the next request by itself, for some milliseconds, unless another task has something to do. The log
lines follow the replies, where there were some just before in ONE write for several passes, at the latest when the
pump waits no more. A request whose account is not in memory is parked: its connection is left alone until the loader
calls `resume`.
An error on one connection ends that connection and nothing else.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import trio

from ratelimitd.core.pending import ACCOUNTS
from ratelimitd.core.policy import Policy
from ratelimitd.core.verdict import Charge, Verdict, Waiting
from ratelimitd.errors import NotPostfix, RequestTooLong
from ratelimitd.log.log import Log
from ratelimitd.request import Request
from ratelimitd.server.connections import CLOSED, READING, SENDING, Connection, Connections
from ratelimitd.server.latency import Histogram
from ratelimitd.server.others import Others

RECV_BYTES = 16384
BATCH = 32
"""Connections per pass, half a millisecond: no reply is sent before the last of them is decided."""
TURN = 128
"""Connections served before other tasks have their turn."""
HURRIED_TURN, STORING_TURN = 8, 64
"""The same, while somebody waits for another task, or one stores: each of its steps waits for a turn to end."""
BRIEF_S, STAY_S = 0.001, 0.01
"""How long a turn goes on; and where no other task has had anything to do lately: log lines are late by that at most.
A timer for them, which is what a wait for less than a tick of the kernel's clock is, costs a seventh of a request."""
QUIET_S = 0.01
"""For so long another task that had something to do may be waiting for the next thing, which a turn that stays would
not notice: each of its steps would take as long."""
LINES_S = 0.002
"""The shortest time from one write of log lines to the next within a turn: those of several passes share one."""

Batch = list[tuple[Connection, Verdict]]


class JournalWriter(Protocol):
    """Where charges go before their replies are sent."""

    def write(self, charges: Sequence[Charge]) -> None:
        """Keep the charges of a batch; never raises."""
        ...


@dataclass(slots=True)
class Parked:
    """A request that waits for its accounts to be looked up."""

    connection: Connection
    waiting: Waiting
    since: float


class Pump:
    """Serves all connections of all listeners."""

    def __init__(
        self,
        connections: Connections,
        policy: Policy,
        journal: JournalWriter,
        log: Log,
        hurry: Callable[[], None],
        clock: Callable[[], float] = time.time,
        storing: Callable[[], bool] = lambda: False,
    ) -> None:
        """`hurry` asks for a flush; `storing` says whether there is one, or another task else works with the store."""
        self.policy = policy
        self.connections = connections
        self.requests = self.too_long = self.not_postfix = self.errors = 0
        self.parked: list[Parked] = []
        self.parked_some = trio.Event()
        self._journal = journal
        self._log = log
        self._hurry = hurry
        self._storing = storing
        self._clock = clock
        self.latency = Histogram()
        self._draining = False
        self._waiting = 0  # requests that are parked, and whose accounts another task is to look up
        self._to_log: list[Verdict] = []  # decided since the last write to the log; empty whenever another task runs
        self._lines_due = 0.0  # when lines are written at once
        self._others = Others()
        self._quiet_at = 0.0  # when other tasks have had nothing to do for a while

    # -- the loop --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until `shut_down` was called and what was in flight is answered."""
        self.connections.listen()
        poll, queue = self.connections.poll, self.connections.queue
        self._others.begin()
        try:
            while not (self._draining and not self.connections.open):
                if queue:
                    await trio.lowlevel.checkpoint()
                else:
                    await trio.lowlevel.wait_readable(poll.fileno())
                self._turn()
        finally:
            self._others.end()

    def _turn(self) -> None:
        """Serve those who are ready, and who comes shortly after them."""
        poll, queue = self.connections.poll, self.connections.queue
        ready, served = poll.poll(0, BATCH), 0
        now = time.perf_counter()
        if self._others.take_active():
            self._quiet_at = now + QUIET_S
        until = now + (STAY_S if now > self._quiet_at else BRIEF_S)
        storing = self._storing()
        most = STORING_TURN if storing else TURN
        while ready or queue:
            served += self._pass(ready)
            if served >= (HURRIED_TURN if self._waiting else most):
                break
            if (now := time.perf_counter()) >= self._lines_due:
                self._write_lines()
            hurried = self._waiting or storing or queue or self._draining or self._others.active
            ready = poll.poll(0 if hurried or now >= until else until - now, BATCH)
        self._write_lines()

    def _pass(self, ready: Sequence[tuple[int, int]]) -> int:
        """Serve some of those whose next request has arrived already, and those who are ready; how many they were.

        Each has one request decided at most, and none before its last reply is sent: replies keep their order.
        """
        began = time.perf_counter()
        batch: Batch = []
        now = int(self._clock())
        queued = self.connections.take_queued(BATCH) if self.connections.queue else ()
        for connection in queued:
            self._request(connection, b"", batch, now)
        watched = self.connections.watched
        for fd, _ in ready:
            found = watched.get(fd)
            if found is None:
                self.connections.accept(fd)
            elif found.state is READING:
                self._receive(found, batch, now)
            elif found.state is SENDING:
                self.connections.send(found, found.outbox)
        self._finish(batch)
        if batch:
            self.latency.observe(time.perf_counter() - began, len(batch))
        return len(ready) + len(queued)

    def _receive(self, connection: Connection, batch: Batch, now: int) -> None:
        try:
            data = connection.sock.recv(RECV_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._request(connection, data, batch, now)
        else:
            self.connections.close(connection)

    def _request(self, connection: Connection, data: bytes, batch: Batch, now: int) -> None:
        """Decide the next request that has arrived whole: one per connection and pass, also of one that floods."""
        reader = connection.reader
        try:
            request = reader.receive(data) if data else reader.next()
        except (RequestTooLong, NotPostfix) as error:
            if isinstance(error, NotPostfix):
                self.not_postfix += 1
            else:
                self.too_long += 1
            self.connections.quiet.warning("closed a connection", peer=connection.peer, reason=error)
            self.connections.close(connection)
            return
        if request is None:
            self.connections.read_on(connection)
            return
        self.requests += 1
        try:
            verdict = self.policy.decide(request, now)
        except Exception as error:
            verdict = self._failed(request, error)
        if type(verdict) is Waiting:
            self._park(Parked(connection, verdict, time.perf_counter()))
            return
        batch.append((connection, verdict))

    def _write_lines(self) -> None:
        """Write the log lines of all that was decided since the last call: several passes share one write."""
        if self._to_log:
            lines, self._to_log = self._to_log, []
            self._log.decisions(lines)
            self._lines_due = time.perf_counter() + LINES_S

    def _failed(self, request: Request, error: Exception) -> Verdict:
        """The answer where deciding failed: a bug of ours must not stop the mail of others."""
        self.errors += 1
        self.connections.quiet.error("a request could not be decided", reason=repr(error), request=repr(request))
        return Verdict(self.policy.failure_reply, request)

    def _finish(self, batch: Batch) -> None:
        """Journal, then replies; the log lines follow (`_write_lines`)."""
        charges = [verdict.charge for _, verdict in batch if verdict.charge is not None]
        if charges:
            self._journal.write(charges)
        send, to_log = self.connections.send, self._to_log
        for connection, verdict in batch:
            send(connection, verdict.reply)
            if verdict.status:
                to_log.append(verdict)
        if self.policy.take_urgent() or len(self.policy.pending.open.deltas) >= ACCOUNTS:
            self._hurry()
        if self._draining:
            self.connections.close_idle()

    # -- accounts that are looked up -------------------------------------------------------------------------------

    def _park(self, parked: Parked) -> None:
        self.connections.park(parked.connection)
        self._waiting += 1
        self.parked.append(parked)
        self.parked_some.set()

    def take_parked(self) -> list[Parked]:
        """The requests that wait for their accounts; whoever takes them calls `resume`."""
        taken, self.parked = self.parked, []
        self.parked_some = trio.Event()
        return taken

    def resume(self, parked: Sequence[Parked]) -> None:
        """Decide parked requests: every account is known now, or is assumed."""
        now = int(self._clock())
        batch: Batch = []
        self._waiting -= len(parked)
        for each in parked:
            if each.connection.state is CLOSED:
                continue
            try:
                verdict = self.policy.decide_waiting(each.waiting, now)
            except Exception as error:
                verdict = self._failed(each.waiting.request, error)
            batch.append((each.connection, verdict))
        self._finish(batch)
        self._write_lines()
        answered = time.perf_counter()
        for each in parked:
            self.latency.observe(answered - each.since)
        self.connections.wake()

    def tick(self) -> None:
        """Close connections that are overdue; go on accepting after a pause. To be called every half second or so."""
        self.connections.close_overdue()
        self.connections.quiet.tick()
        self.connections.listen()
        if self._draining:
            self.connections.wake()

    # -- the end ---------------------------------------------------------------------------------------------------

    def shut_down(self) -> None:
        """Accept no more, answer what has arrived, close; `run` returns when all are closed. May be called again."""
        if self._draining:
            return
        self._draining = True
        self.connections.end_listening()
        batch: Batch = []
        for connection in list(self.connections.open):
            if connection.state is READING:
                self._receive(connection, batch, int(self._clock()))
        self._finish(batch)
        self._write_lines()
        self.connections.wake()

    def abort(self) -> None:
        """Close every connection, answered or not; `run` returns."""
        self._draining = True
        for connection in list(self.connections.open):
            self.connections.close(connection)
        self.connections.wake()

    def close(self) -> None:
        """Release everything; after `run`."""
        self.connections.end_listening()
        self.connections.close_all()
        self.connections.quiet.close()
