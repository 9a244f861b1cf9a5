"""A fault of the daemon's own at run time: one line that says where, what was answered is stored, exit status 1."""

from pathlib import Path

import pytest

from tests.daemon.client import PolicyClient
from tests.daemon.process import Ratelimitd, changed, config
from tests.instances.waiting import wait_until

FAULTY = """
from ratelimitd.control.status import DaemonStatus

def sample(self):
    if self._pump.requests > 1:
        raise KeyError("what nobody\\nhas thought of")

DaemonStatus.sample = sample
"""


def is_answered(client: PolicyClient) -> bool:
    """Ask what makes the daemon fail: its end may come before the reply."""
    try:
        client.ask()
    except (EOFError, ConnectionError):
        return False
    return True


@pytest.mark.parametrize("level", ["info", "debug"])
def test_a_fault_at_run_time_is_one_line_and_the_counts_are_stored(folder: Path, level: str) -> None:
    text = config(store={"flush_interval_s": 3600}, log={"level": level})
    daemon = Ratelimitd(folder, text, prefix=changed(FAULTY))
    try:
        daemon.start()
        with daemon.client() as client:
            client.ask()
            answered = 1 + is_answered(client)
        wait_until(lambda: not daemon.process.running(), "its end")
    finally:
        daemon.kill()
    assert daemon.process.wait() == 1
    (line,) = daemon.output().splitlines()
    assert "KeyError" in line
    assert line.startswith("ratelimitd: an internal error has ended the daemon; please report it: ")
    (logged,) = [line for line in daemon.log() if "an internal error" in line]
    assert "at=<string>:6" in logged
    assert sum("Traceback" in line for line in daemon.log()) == (level == "debug")
    (used,) = daemon.used().values()
    assert answered <= used <= 2
