"""The pump, pass by pass, with clients that pipeline, read late and wait for their accounts."""

import random
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio
import trio.testing

from ratelimitd.core.policy import Policy
from ratelimitd.log.log import Log
from ratelimitd.log.quiet import QuietLog
from ratelimitd.logins import AS_SENT
from ratelimitd.net.listeners import Listeners
from ratelimitd.server import pump
from ratelimitd.server.connections import QUEUED, Bounds, Connections
from ratelimitd.server.pump import BATCH, BRIEF_S, HURRIED_TURN, STORING_TURN, Parked, Pump
from tests.core.build import NOON, journal_in, limit, policy
from tests.daemon.client import request

CLIENTS = 3 * BATCH
SMALL_BYTES = 4608  # a dozen replies fill it
ASKED_AT_ONCE = 30
STAYS_S = 60
"""Longer than any machine takes for a turn that waits for nobody."""


class Client:
    """Asks for accounts of its own, each once: every request is refused, by a reply with the account in it."""

    def __init__(self, sock: socket.socket, name: str) -> None:
        self.sock = sock
        self.due: list[str] = []
        self._name = name
        self._asked = 0
        self._got = b""

    def ask(self, count: int) -> list[str]:
        """Send so many requests at once; their accounts."""
        keys = [f"{self._name}.{self._asked + number}@example.com" for number in range(count)]
        self.sock.send(b"".join(request(key, protocol_state="DATA", recipient_count=2) for key in keys))
        self._asked += count
        self.due += keys
        return keys

    def read(self) -> None:
        """Take what has arrived: replies to what was asked, in that order."""
        try:
            self._got += self.sock.recv(1 << 20)
        except BlockingIOError:
            return
        *replies, self._got = self._got.split(b"\n\n")
        wanted = [f"action=450 4.7.1 daily quota exceeded, 2/1 of {key}" for key in self.due[: len(replies)]]
        assert [reply.decode() for reply in replies] == wanted
        del self.due[: len(replies)]


class Waits:
    """An epoll that notes how long it was asked to wait, and does not."""

    def __init__(self, poll: select.epoll) -> None:
        self.longest_s: list[float] = []
        self._poll = poll

    def poll(self, timeout_s: float, most: int) -> list[tuple[int, int]]:
        self.longest_s.append(timeout_s and max(BRIEF_S, round(timeout_s)))
        return self._poll.poll(0, most)

    def __getattr__(self, name: str) -> object:
        return getattr(self._poll, name)


class Served:
    """A pump and its clients."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(folder / "socket"))
        listener.listen(CLIENTS)
        listener.setblocking(False)
        listeners = Listeners("server.listen")
        listeners.inherit([listener])
        journal = journal_in(folder)
        journal.begin(1)
        stack.callback(journal.close)
        log = Log([])
        bounds = Bounds((), 1000, 65536, 30.0, frozenset())
        connections = Connections(listeners, QuietLog(log), bounds, AS_SENT)
        self.policy: Policy = policy(limit(1))
        self.storing = False
        self.pump = Pump(
            connections, self.policy, journal, log, lambda: None, lambda: NOON, storing=lambda: self.storing
        )
        stack.callback(self.pump.close)
        connections.listen()
        self.clients: list[Client] = []
        for number in range(CLIENTS):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(str(folder / "socket"))
            sock.setblocking(False)
            self.clients.append(Client(sock, f"client{number}"))
        while len(connections.open) < CLIENTS:
            self.turn()
        for connection in connections.open:
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BYTES)

    def turn(self) -> None:
        """A pass; everybody stands in the queue once."""
        connections = self.pump.connections
        self.pump._pass(connections.poll.poll(0, BATCH))
        assert sum(c.state is QUEUED for c in connections.open) == len(connections.queue)
        assert len(set(connections.queue)) == len(connections.queue)

    def waits_of_a_turn(self) -> list[float]:
        """How long a whole turn waited for others, at most, each time that it looked."""
        waits = Waits(self.pump.connections.poll)
        self.pump.connections.poll = waits  # type: ignore[assignment]
        self.pump._turn()
        self.pump.connections.poll = waits._poll
        return waits.longest_s

    def know(self, key: str) -> None:
        self.policy.meters[0].assume(key, NOON)


@pytest.fixture
def served(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(pump, "STAY_S", STAYS_S)
    monkeypatch.setattr(pump, "QUIET_S", 0)
    with ExitStack() as stack:
        yield Served(folder, stack)


async def test_a_client_that_drains_its_replies_while_it_is_queued_is_taken_up_once(served: Served) -> None:
    """Its account is looked up then: a second turn would park it again, or answer what it has asked later."""
    slow, *others = served.clients
    for client in served.clients:
        for key in client.ask(ASKED_AT_ONCE):
            served.know(key)
    while not any(connection.outbox for connection in served.pump.connections.open):
        served.turn()
        for other in others:
            other.read()
    served.policy.meters[0].counters.clear()
    slow.read()
    for _ in range(3 * CLIENTS // BATCH):
        served.turn()
    while served.pump.parked:
        served.pump.resume(served.pump.take_parked())
        for client in served.clients:
            client.read()
        for _ in range(2 * CLIENTS // BATCH):
            served.turn()
    assert not any(client.due for client in served.clients)
    assert served.pump.requests == CLIENTS * ASKED_AT_ONCE


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_clients_send_and_read_each_request_has_its_reply(served: Served, seed: int) -> None:
    chosen = random.Random(seed)
    parked: list[Parked] = []
    for step in range(200):
        for client in chosen.sample(served.clients, 40):
            if not client.due:
                for key in client.ask(chosen.randint(1, 2 * ASKED_AT_ONCE)):
                    if chosen.random() < 0.95:
                        served.know(key)
            elif chosen.random() < 0.3:
                client.read()
        served.turn()
        parked += served.pump.take_parked()
        if step % 50 == seed % 50:
            served.pump.resume(parked)
            parked = []
    while any(client.due for client in served.clients):
        served.turn()
        parked += served.pump.take_parked()
        served.pump.resume(parked)
        parked = []
        for client in served.clients:
            client.read()
    assert all(connection.idle for connection in served.pump.connections.open)


async def test_a_stop_answers_all_that_has_arrived_in_order(served: Served) -> None:
    """Those that are queued, parked, or have not taken their replies; then each is closed."""
    asking = served.clients[: CLIENTS // 2]
    for number, client in enumerate(asking):
        for key in client.ask(ASKED_AT_ONCE):
            if number % 3:
                served.know(key)
    for _ in range(3):
        served.turn()
    served.pump.shut_down()
    while served.pump.connections.open:
        served.turn()
        served.pump.resume(served.pump.take_parked())
        for client in asking:
            client.read()
    for client in asking:
        client.read()
        assert not client.due
        assert client.sock.recv(1) == b""


async def test_a_line_is_written_at_once_and_those_that_follow_shortly_in_one_write(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump, "LINES_S", STAYS_S)
    log = served.pump._log
    written: list[tuple[int, list[float]]] = []
    waits = Waits(served.pump.connections.poll)
    served.pump.connections.poll = waits  # type: ignore[assignment]
    log.decisions = lambda verdicts: written.append((len(verdicts), [*waits.longest_s]))  # type: ignore[method-assign]
    first, second, third = served.clients[:3]
    served.know(first.ask(1)[0])
    served.pump._turn()
    assert written == [(1, [0])]  # before it waits
    for client in (second, third):
        served.know(client.ask(1)[0])
    served.pump._turn()
    assert written[1:] == [(2, [0, STAYS_S] * 2)]
    for client in (first, second, third):
        client.read()
        assert not client.due


async def test_nobody_waits_for_others_while_an_account_is_to_be_looked_up(served: Served) -> None:
    """The task that does it has its turn at once, also where it has taken the request already."""
    stranger, known = served.clients[:2]
    stranger.ask(1)
    assert served.waits_of_a_turn() == [0, 0]
    parked = served.pump.take_parked()
    served.know(known.ask(1)[0])
    assert served.waits_of_a_turn() == [0, 0]
    served.pump.resume(parked)
    served.know(known.ask(1)[0])
    assert served.waits_of_a_turn() == [0, STAYS_S]
    for client in (stranger, known):
        client.read()
        assert not client.due


async def test_a_turn_is_short_while_somebody_waits_for_an_account(served: Served) -> None:
    """Each step of the task that looks it up waits for a turn to end, and one client alone may fill it."""
    flooding, stranger = served.clients[:2]
    stranger.ask(1)
    served.waits_of_a_turn()
    for key in flooding.ask(HURRIED_TURN + 2):
        served.know(key)
    assert served.waits_of_a_turn() == [0] * HURRIED_TURN
    assert served.pump.requests == HURRIED_TURN + 1
    served.pump.resume(served.pump.take_parked())
    assert served.waits_of_a_turn()[-1] == STAYS_S
    for client in (flooding, stranger):
        client.read()
        assert not client.due


async def test_a_turn_is_shorter_and_waits_for_nobody_while_something_is_stored(served: Served) -> None:
    served.storing = True
    for client in served.clients:
        served.know(client.ask(1)[0])
    assert served.waits_of_a_turn() == [0] * (STORING_TURN // BATCH)
    assert served.pump.requests == STORING_TURN
    served.storing = False
    assert served.waits_of_a_turn()[-1] == STAYS_S
    assert served.pump.requests == CLIENTS
    for client in served.clients:
        client.read()
        assert not client.due


async def test_a_stop_waits_for_no_further_request(served: Served) -> None:
    served.pump.shut_down()
    assert not any(served.waits_of_a_turn())


async def test_a_turn_is_as_short_as_may_be_where_another_task_has_something_to_do(served: Served) -> None:
    """It had before the turn, or a request has given it something."""
    client, others = served.clients[0], served.pump._others
    others.begin()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.lowlevel.checkpoint)
            for waits in ([0, BRIEF_S], [0, STAYS_S]):
                served.know(client.ask(1)[0])
                assert served.waits_of_a_turn() == waits
            hurried = trio.Event()
            nursery.start_soon(hurried.wait)
            await trio.testing.wait_all_tasks_blocked()
            others.take_active()
            served.pump._hurry = hurried.set
            served.policy.urgent = True
            served.know(client.ask(1)[0])
            assert served.waits_of_a_turn() == [0, 0]
    finally:
        others.end()


async def test_a_task_that_waits_for_something_between_its_steps_finds_no_turn_that_stays(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several turns may pass before its next step, and none would notice it."""
    monkeypatch.setattr(pump, "QUIET_S", STAYS_S)
    client = served.clients[0]
    served.pump._others.active = True
    for _ in range(3):
        served.know(client.ask(1)[0])
        assert served.waits_of_a_turn() == [0, BRIEF_S]
    served.pump._quiet_at = 0
    served.know(client.ask(1)[0])
    assert served.waits_of_a_turn() == [0, STAYS_S]
