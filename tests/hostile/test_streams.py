"""Random and mutated streams, ended in every way: nothing is left of them, and no reply goes to another."""

from pathlib import Path

import pytest

from tests.daemon.conftest import Start
from tests.daemon.process import Ratelimitd
from tests.hostile.figures import MIB, descriptors, rss, threads
from tests.hostile.streams import Storm
from tests.instances.ports import free_port
from tests.instances.waiting import wait_until

WARM_UP = 1000
SERVER = {"max_request_bytes": 2048, "max_accounts": 1000, "max_transactions": 1000, "max_remembered_recipients": 1000}


def storm(start: Start, folder: Path, streams: int) -> Ratelimitd:
    """Half of the streams by TCP, half by a unix socket; the daemon as it was before, and stopped."""
    listen = [f"127.0.0.1:{free_port()}", f"unix:{folder}/socket"]
    daemon = start(
        server={**SERVER, "listen": listen},
        store={"flush_interval_s": 0.2},
        limit=[{"quota": 1, "action": "450 4.7.1 no more from {key}"}],
    )
    pid = daemon.process.pid
    with daemon.client() as client:
        client.ask()
        before = descriptors(pid)
        storms = [Storm(address, seed) for seed, address in enumerate(daemon.addresses)]
        for sending in storms:
            sending.run(WARM_UP)
        warm, running = rss(pid), threads(pid)
        for sending in storms:
            sending.run(streams // 2)
        # A segment of the journal that was not laid out before has four: of a file, of memory, and of both their maps.
        wait_until(lambda: descriptors(pid) <= before + 4, "the end of their descriptors")
        print(f"RSS {warm / MIB:.1f} MiB after {2 * WARM_UP}, {rss(pid) / MIB:.1f} MiB after {streams} more streams")
        assert rss(pid) - warm < 4 * MIB
        assert threads(pid) <= max(running, 3)
        assert all(sending.replies > streams / 40 for sending in storms)
        assert client.ask() == "450 4.7.1 no more from alice@example.com"
    assert "Connections: 0" in daemon.dump()[-1][0]
    assert daemon.stop() == 0
    assert "Traceback" not in daemon.output()
    assert not [line for line in daemon.log() if "could not be decided" in line]
    return daemon


def test_3000_streams_leave_nothing_behind(start: Start, folder: Path) -> None:
    storm(start, folder, 3000)


@pytest.mark.long
def test_100000_streams_leave_nothing_behind(start: Start, folder: Path) -> None:
    storm(start, folder, 100_000)
