"""Many clients that do nothing, or nearly nothing, and a daemon short of descriptors: the others are served."""

import resource
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import pytest

from tests.bench import load
from tests.daemon.client import PolicyClient, request
from tests.daemon.conftest import Start
from tests.daemon.process import Ratelimitd, config
from tests.hostile.figures import cpu_s, descriptors
from tests.instances.waiting import wait_until

NEW_SEGMENTS = 3


def served(program: Path, daemon: Ratelimitd, seconds: float, rounds: int, crowd: list[str]) -> float:
    """The rate of 100 clients in a crowd, as a share of their rate without it: the median of some rounds."""
    address = f"127.0.0.1:{daemon.port}"
    ratios: list[float] = []
    for _ in range(rounds):
        alone, among = (
            load.run(program, address, "-c", "100", "-s", str(seconds), *options) for options in ([], crowd)
        )
        ratios.append(among.per_second / alone.per_second)
        print(f"alone {alone.per_second:.0f}/s p99 {alone.p99_us:.0f} us, ", end="")
        print(f"in the crowd {among.per_second:.0f}/s p99 {among.p99_us:.0f} us")
    return median(ratios)


CROWDS = {"idle": ["-i", "900"], "half of it trickling": ["-i", "450", "-T", "450"]}


@pytest.mark.alone
@pytest.mark.parametrize("kind", CROWDS)
def test_among_900_that_do_nothing_100_are_served(start: Start, load_program: Path, kind: str) -> None:
    daemon = start(limit=[{"quota": "unlimited"}], log={"file": "/dev/null"})
    assert served(load_program, daemon, 0.5, 3, CROWDS[kind]) > 0.2  # the machine may be busy with other things
    assert daemon.stop() == 0


@pytest.mark.long
@pytest.mark.parametrize("kind", CROWDS)
def test_among_900_that_do_nothing_100_are_served_as_before(start: Start, load_program: Path, kind: str) -> None:
    daemon = start(limit=[{"quota": "unlimited"}], log={"file": "/dev/null"})
    assert served(load_program, daemon, 5, 5, CROWDS[kind]) > 0.7
    assert daemon.stop() == 0


def test_a_daemon_started_with_256_descriptors_serves_those_it_can_and_recovers(folder: Path) -> None:
    limited = ["bash", "-c", 'ulimit -n 256; exec "$0" "$@"']
    text = config(store={"flush_interval_s": 0.1}, limit=[{"quota": "unlimited"}])
    daemon = Ratelimitd(folder, text, prefix=limited)
    try:
        daemon.start()
        assert any("max_connections=4096, in_force=192" in line for line in daemon.log())
        pid = daemon.process.pid
        with ExitStack() as stack:
            clients = [stack.enter_context(daemon.client()) for _ in range(300)]
            for number, client in enumerate(clients):
                client.send(request(f"user{number}@example.com"))
            for client in clients[:192]:
                assert client.reply() == "DUNNO"
            daemon.wait_for_log("accepting no connections for now")
            assert descriptors(pid) < 256
            spent = cpu_s(pid)
            segments: set[str] = set()  # the journal goes on: the next segments get their descriptors
            while len(segments) < NEW_SEGMENTS:
                assert clients[0].ask() == "DUNNO"
                segments.update(file.name for file in (daemon.state / "journal").glob("*.segment"))
            assert cpu_s(pid) - spent < 5  # it does not spin
            for client in clients[:192]:
                client.socket.close()
            for client in clients[192:]:
                assert client.reply() == "DUNNO"
        assert daemon.stop() == 0
        assert not [line for line in daemon.log() if "journal" in line]
        assert daemon.used().keys() >= {f"user{number}@example.com" for number in range(300)}
    finally:
        daemon.kill()


def test_out_of_descriptors_those_who_are_there_are_served_and_others_later(start: Start) -> None:
    daemon = start(limit=[{"quota": "unlimited"}], store={"flush_interval_s": 3600})
    pid = daemon.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        first = stack.enter_context(daemon.client())
        assert first.ask() == "DUNNO"
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (descriptors(pid) + 5, before[1]))
        others = [stack.enter_context(daemon.client()) for _ in range(20)]
        for other in others:
            other.send(request())
        daemon.wait_for_log("accepting no connections for now: reason=no more file descriptors")
        spent = cpu_s(pid)
        daemon.wait_for_log("accepting no connections for now: reason=no more file descriptors", 3)
        for _ in range(100):
            assert first.ask() == "DUNNO"
        assert cpu_s(pid) - spent < 2
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        for other in others:
            assert other.reply() == "DUNNO"
    assert daemon.stop() == 0


def test_a_daemon_with_too_few_descriptors_to_be_of_use_says_so(folder: Path) -> None:
    limited = ["bash", "-c", 'ulimit -n 60; exec "$0" "$@"']
    daemon = Ratelimitd(folder, config(), prefix=limited)
    process = daemon.spawn()
    assert process.wait(60) == 2
    assert daemon.output() == (
        f"ratelimitd: {daemon.file}: the limit of open files (ulimit -n, LimitNOFILE) is 60; it must be at least 80\n"
    )


def test_requests_that_wait_for_their_account_are_no_more_than_the_connections(start: Start) -> None:
    """A connection whose request is parked is not read: what it sends meanwhile stays in the kernel."""
    daemon = start(server={"max_connections": 10}, limit=[{"quota": "unlimited"}])
    with ExitStack() as stack:
        clients: list[PolicyClient] = []
        wait_until(lambda: "Connections: 0" in daemon.dump()[-1][0], "the end of the probe")
        for number in range(10):
            client = stack.enter_context(daemon.client())
            client.send(b"".join(request(f"new{number}.{mail}@example.com") for mail in range(50)))
            clients.append(client)
        for client in clients:
            assert [client.reply() for _ in range(50)] == ["DUNNO"] * 50
    assert daemon.stop() == 0
    assert len(daemon.used()) == 500


def test_a_trickler_in_every_place_keeps_out_nobody_for_longer_than_the_time_out(start: Start) -> None:
    daemon = start(server={"max_connections": 20, "request_timeout_s": 0.5})
    with ExitStack() as stack:
        tricklers = [stack.enter_context(daemon.client()) for _ in range(20)]
        for trickler in tricklers:
            trickler.send(b"request=")
        with daemon.client() as client:
            assert client.ask() == "DUNNO"
        assert all(trickler.at_end() for trickler in tricklers)
    assert daemon.stop() == 0
    assert sum("closed a connection: peer=" in line for line in daemon.log()) == 10
    assert "closed a connection: more_of_these=10" in daemon.log()
