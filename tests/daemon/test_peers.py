"""Who may connect, how many, and what happens to those that are slow, silent or gone."""

import os
import socket
import stat
import struct
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.daemon.client import PolicyClient, request
from tests.daemon.conftest import Start
from tests.daemon.process import Ratelimitd
from tests.instances.ports import free_port
from tests.instances.waiting import wait_until

RESET = struct.pack("ii", 1, 0)


def connections(daemon: Ratelimitd) -> int:
    """How many connections the daemon has, by its dump."""
    return int(daemon.dump()[-1][0].partition("Connections: ")[2].partition(",")[0])


def descriptors(daemon: Ratelimitd) -> int:
    return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))


def begin(client: PolicyClient, daemon: Ratelimitd) -> None:
    """Send the half of a request, and wait until it has been read."""
    client.send(request()[:50])
    with daemon.client() as other:
        other.ask("other@example.com")


def test_a_stranger_is_refused_and_named(start: Start) -> None:
    daemon = start(server={"allow": ["192.0.2.0/24", "127.0.0.2"]})
    with daemon.client() as client:
        assert client.at_end()
    host, port = "127.0.0.2", daemon.port
    with closing(socket.socket()) as own:
        own.bind((host, 0))
        own.connect(("127.0.0.1", port))
        own.settimeout(60)
        own.sendall(request())
        assert own.recv(100) == b"action=DUNNO\n\n"
    daemon.wait_for_log("refused a connection: peer=127.0.0.1:")
    assert daemon.stop() == 0
    assert daemon.used() == {"alice@example.com": 1}


def test_tcp_on_v6_and_v4_and_a_unix_socket_are_served_at_once(start: Start, folder: Path) -> None:
    if not Path("/proc/net/if_inet6").exists():
        missing("IPv6")
    path = folder / "socket"
    server = {"listen": [f"[::1]:{free_port()}", f"127.0.0.1:{free_port()}", f"unix:{path}"], "unix_mode": "0606"}
    daemon = start(server=server)
    for address in daemon.addresses:
        with PolicyClient(address) as client:
            assert client.ask() == "DUNNO"
    assert stat.S_IMODE(path.stat().st_mode) == 0o606
    assert f"listen={' '.join(daemon.listen)}" in "".join(daemon.log())
    assert daemon.stop() == 0
    assert not path.exists()
    assert daemon.used() == {"alice@example.com": 3}


def test_a_unix_socket_belongs_to_its_group(start: Start, folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    daemon = start(server={"listen": [f"unix:{folder}/socket"], "unix_group": "mail"})
    found = (folder / "socket").stat()
    assert (stat.S_IMODE(found.st_mode), (folder / "socket").group()) == (0o660, "mail")
    assert daemon.stop() == 0


def test_beyond_max_connections_the_next_waits_until_one_goes(start: Start) -> None:
    daemon = start(server={"max_connections": 2})
    wait_until(lambda: connections(daemon) == 0, "the end of the probe")
    with ExitStack() as stack:
        first, second = (stack.enter_context(daemon.client()) for _ in range(2))
        assert [first.ask(), second.ask()] == ["DUNNO", "DUNNO"]
        third = stack.enter_context(daemon.client())
        third.send(request())
        daemon.wait_for_log("accepting no connections for now: reason=server.max_connections = 2 is reached")
        assert [first.ask(), second.ask()] == ["DUNNO", "DUNNO"]
        first.socket.close()
        assert third.reply() == "DUNNO"
    assert daemon.stop() == 0


def test_a_request_that_trickles_is_closed_and_an_idle_connection_is_kept(start: Start) -> None:
    daemon = start(server={"request_timeout_s": 0.3})
    with daemon.client() as idle, daemon.client() as slow:
        assert idle.ask() == "DUNNO"
        begin(slow, daemon)
        assert slow.at_end()
        daemon.wait_for_log("closed a connection: peer=127.0.0.1:")
        assert idle.ask() == "DUNNO"
    assert daemon.stop() == 0
    assert next(line for line in daemon.log() if "closed a connection" in line).endswith("=server.request_timeout_s")


def test_a_request_that_is_too_long_is_closed(start: Start) -> None:
    daemon = start(server={"max_request_bytes": 4096})
    with daemon.client() as client:
        client.send(request(helo_name="x" * 5000))
        assert client.at_end()
    with daemon.client() as client:
        assert client.ask(helo_name="x" * 3000) == "DUNNO"
    assert daemon.stop() == 0
    assert any("a request of more than 4096 bytes" in line for line in daemon.log())
    assert daemon.used() == {"alice@example.com": 1}


def test_a_client_that_takes_no_replies_is_closed_and_keeps_nobody_waiting(start: Start, folder: Path) -> None:
    listen = [f"unix:{folder}/socket", f"127.0.0.1:{free_port()}"]  # TCP has room for 300,000 replies
    daemon = start(server={"request_timeout_s": 0.5, "listen": listen}, limit=[{"quota": "unlimited"}])
    data = b"".join(request("greedy@example.com") for _ in range(50))
    with daemon.client() as greedy, PolicyClient(daemon.port) as other:
        greedy.socket.setblocking(False)
        refused = 0
        while not any("closed a connection" in line for line in daemon.log()):
            try:
                greedy.socket.send(data)
            except BlockingIOError:
                refused += 1
                assert other.ask() == "DUNNO"
            except OSError:
                break
        assert refused
        assert other.ask() == "DUNNO"
    daemon.wait_for_log("reason=server.request_timeout_s")
    assert daemon.stop() == 0


def test_peers_that_vanish_leave_nothing_behind(start: Start) -> None:
    daemon = start()
    with daemon.client() as client:
        client.ask()
        wait_until(lambda: connections(daemon) == 1, "the end of the probe")
        before = descriptors(daemon)
        for number in range(60):
            peer = daemon.client()
            data = request(f"{number}@example.com")
            peer.send(data[:30] if number % 3 == 0 else data)
            if number % 3 == 1:
                peer.reply()
            if number % 2:
                peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            peer.socket.close()
        wait_until(lambda: connections(daemon) == 1, "their end")
        wait_until(lambda: descriptors(daemon) == before, "the end of their descriptors")
        assert client.ask() == "DUNNO"
    assert daemon.stop() == 0


def test_a_half_closed_client_has_its_reply(start: Start) -> None:
    daemon = start()
    with daemon.client() as client:
        client.send(request())
        client.socket.shutdown(socket.SHUT_WR)
        assert client.reply() == "DUNNO"
        assert client.at_end()
    assert daemon.stop() == 0


@pytest.mark.parametrize("times", [2, 300])  # more than are read at once, too
def test_a_client_that_half_closes_behind_several_requests_has_all_replies(start: Start, times: int) -> None:
    daemon = start(limit=[{"quota": "unlimited"}])
    for second in ("alice@example.com", "bob@example.com"):  # bob is looked up while the client has half-closed
        with daemon.client() as client:
            client.send(request() * (times - 1) + request(second))  # but for the last, one request again and again
            client.socket.shutdown(socket.SHUT_WR)
            assert [client.reply() for _ in range(times)] == ["DUNNO"] * times
            assert client.at_end()
    assert daemon.stop() == 0
    assert daemon.used() == {"alice@example.com": 3, "bob@example.com": 1}


def test_one_that_floods_gets_its_share_only(start: Start) -> None:
    daemon = start(limit=[{"quota": "unlimited"}])
    with daemon.client() as flood, daemon.client() as other:
        flood.send(b"".join(request("flood@example.com") for _ in range(400)))
        for _ in range(10):
            assert other.ask("other@example.com") == "DUNNO"
        for _ in range(400):
            assert flood.reply() == "DUNNO"
    assert daemon.stop() == 0
    assert daemon.used() == {"flood@example.com": 400, "other@example.com": 10}
