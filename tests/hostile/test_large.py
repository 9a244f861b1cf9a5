"""Requests that are too long, endless, or no text: closed or answered as documented, and cheap."""

from contextlib import ExitStack

import pytest

from tests.daemon.client import PolicyClient, request
from tests.daemon.conftest import Start
from tests.hostile.figures import MIB, rss

CLIENTS = 40
LIMIT = 65_536

TOO_LONG = {
    "an endless line": b"sasl_username=" + b"x" * (2 * LIMIT),
    "a million attributes": b"".join(b"a%d=\n" % number for number in range(1_000_000)),
    "no terminator": request().removesuffix(b"\n") + b"a=b\n" * LIMIT,
    "64 KiB and a byte": b"a=" + b"x" * (LIMIT - 1),
    "NULs": b"helo_name=" + b"\0" * (2 * LIMIT),
}


@pytest.mark.parametrize("kind", TOO_LONG)
def test_what_is_too_long_is_closed_and_costs_less_than_a_mebibyte(start: Start, kind: str) -> None:
    daemon = start()
    with daemon.client() as other, ExitStack() as stack:
        other.ask()
        before = rss(daemon.process.pid)
        clients = [stack.enter_context(daemon.client()) for _ in range(CLIENTS)]
        for client in clients:  # as much of it as the daemon will hold
            client.send(TOO_LONG[kind][:LIMIT])
        for _ in range(20):
            assert other.ask() == "DUNNO"
        assert (rss(daemon.process.pid) - before) / CLIENTS < MIB
        for client in clients:
            try:
                client.send(TOO_LONG[kind][LIMIT:])
            except OSError:
                continue
            assert client.at_end()
        assert other.ask() == "DUNNO"
        assert rss(daemon.process.pid) - before < CLIENTS * MIB
    lines = [line for line in daemon.log() if "closed a connection" in line]
    assert lines[0].endswith(f"reason=a request of more than {LIMIT} bytes")
    assert len(lines) < CLIENTS  # the rest is one number
    assert daemon.stop() == 0
    assert any(line.startswith("closed a connection: more_of_these=") for line in daemon.log())


def test_what_is_just_not_too_long_is_answered(start: Start) -> None:
    daemon = start()
    with daemon.client() as client:
        for filling in (b"helo_name2=", b"a=\n" * 20_000 + b"z="):
            data = request().removesuffix(b"\n") + filling
            client.send(data + b"x" * (LIMIT - len(data)) + b"\n\n")
            assert client.reply() == "DUNNO"
        client.send(b"\n" * 3000)  # requests without attributes
        assert [client.reply() for _ in range(3000)] == ["DUNNO"] * 3000
    assert daemon.stop() == 0
    assert daemon.used() == {"alice@example.com": 2}


def test_an_idle_connection_keeps_nothing_of_the_large_requests_it_sent(start: Start) -> None:
    daemon = start()
    data = request().removesuffix(b"\n")
    data += b"helo_name2=" + b"x" * (LIMIT - 1000 - len(data)) + b"\n\n"
    with ExitStack() as stack:
        clients = [stack.enter_context(daemon.client()) for _ in range(200)]
        clients[0].send(data)
        clients[0].reply()
        before = rss(daemon.process.pid)
        for client in clients:
            client.send(data)
            assert client.reply() == "DUNNO"
        assert rss(daemon.process.pid) - before < 200 * LIMIT / 4
    assert daemon.stop() == 0


def test_bad_utf8_split_over_reads_is_one_key_and_one_line(start: Start) -> None:
    daemon = start()
    data = request(login="b\udcc3(d\udcff\udce2\udc80@example.com", instance="1.split")
    whole = request(login="k\u00e4se\u2028@example.com")
    with daemon.client() as client:
        for sent in (data, whole):
            for byte in range(len(sent)):
                client.send(sent[byte : byte + 1])
            assert client.reply() == "DUNNO"
        client.send(data)
        assert client.reply() == "DUNNO"
    assert daemon.stop() == 0
    assert daemon.used() == {"b\\xc3(d\\xff\\xe2\\x80@example.com": 1, "k\u00e4se\u2028@example.com": 1}
    assert len(daemon.decisions()) == 2


def test_a_client_that_takes_no_replies_is_decided_nothing_more(start: Start) -> None:
    daemon = start(server={"request_timeout_s": 600}, limit=[{"quota": "unlimited"}])
    one = request("greedy@example.com", instance="1.greedy")
    many = one * 20
    with PolicyClient(daemon.addresses[0]) as greedy, daemon.client() as other:
        other.ask()
        before = rss(daemon.process.pid)
        greedy.socket.setblocking(False)
        sent = refused = 0
        while refused < 200:
            try:
                sent += greedy.socket.send(many[sent % len(one) :])
            except BlockingIOError:
                refused += 1
                assert other.ask() == "DUNNO"
        assert rss(daemon.process.pid) - before < MIB
        greedy.socket.settimeout(60)
        assert [greedy.reply() for _ in range(sent // len(one))] == ["DUNNO"] * (sent // len(one))
    assert daemon.stop() == 0
