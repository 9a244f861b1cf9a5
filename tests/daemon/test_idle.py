"""An idle daemon sleeps: its timers wake it twice a second, and no more."""

import time
from pathlib import Path

import msgspec

from tests.daemon.process import Ratelimitd, changed, config

WATCHED_S = 3.0
COUNTING = """
import atexit, json, time
import trio
from ratelimitd.daemon.daemon import Daemon

class Waits(trio.abc.Instrument):
    "When the loop went to sleep for a time."

    def __init__(self):
        self.at = []

    def before_io_wait(self, timeout):
        if timeout > 0:
            self.at.append(time.monotonic())

waits = Waits()
run = Daemon.run

async def watched(self):
    trio.lowlevel.add_instrument(waits)
    await run(self)

Daemon.run = watched
atexit.register(lambda: open({file!r}, "w").write(json.dumps(waits.at)))
"""


def test_an_idle_daemon_is_woken_twice_a_second(folder: Path) -> None:
    """On a busy machine it is less often. A connection that says nothing changes nothing."""
    waits = folder / "waits"
    text = config(store={"flush_interval_s": 3600})
    daemon = Ratelimitd(folder, text, prefix=changed(COUNTING.format(file=str(waits))))
    try:
        daemon.start()
        with daemon.client() as client:
            client.ask()
            time.sleep(0.5)  # the last of the start
            began = time.monotonic()
            time.sleep(WATCHED_S)
            ended = time.monotonic()
        assert daemon.stop() == 0
    finally:
        daemon.kill()
    at = msgspec.json.decode(waits.read_bytes(), type=list[float])
    assert 0 < sum(began < one < ended for one in at) <= 2 * (ended - began) + 1
