"""logrotate, run for real on our rule while the daemon logs: no line is lost."""

import gzip
import re
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from tests.conftest import require
from tests.daemon.process import Ratelimitd, config
from tests.instances.components import program

RULE = Path(__file__).parents[2] / "contrib" / "logrotate.d" / "ratelimitd"
ROTATIONS = 5


def rule(folder: Path, daemon: Ratelimitd) -> Path:
    """Our rule for this daemon: its folder, this user, its process id."""
    file = folder / "rule"
    text = RULE.read_text()
    for ours, test in (
        ("/var/log/ratelimitd/*.log", f"{folder}/*.log"),
        ("/run/ratelimitd.pid", f"{folder}/pid"),
        ("/run/systemd/system", f"{folder}/no-systemd"),
        ("create 0640 ratelimitd adm", f"create 0640 {folder.owner()} {folder.group()}"),
        ("su ratelimitd adm", f"su {folder.owner()} {folder.group()}"),
    ):
        assert ours in text
        text = text.replace(ours, test)
    file.write_text(text)
    file.chmod(0o644)
    return file


@pytest.mark.real
def test_no_line_is_lost_while_the_log_is_rotated(folder: Path) -> None:
    require("logrotate")
    # The program itself, for the rule knows it by its command line.
    settings = config(log={"file": "ratelimitd.log"}, pid_file="pid", limit=[{"quota": 0}])
    daemon = Ratelimitd(folder, settings, prefix=["env"])
    daemon.start()
    asked = 0
    ended = threading.Event()

    def load() -> None:
        nonlocal asked
        with daemon.client() as client:
            while not ended.is_set():
                client.ask(queue_id=f"Q{asked}")
                asked += 1

    try:
        file = rule(folder, daemon)
        thread = threading.Thread(target=load)
        thread.start()
        try:
            for n in range(1, ROTATIONS + 1):
                subprocess.run(
                    [program("logrotate"), "--force", "--state", folder / "logrotate.state", file],
                    check=True, capture_output=True, timeout=100,
                )  # fmt: skip
                daemon.wait_for_log("log files are reopened")
                assert (folder / f"ratelimitd.log.{n}{'.gz' if n > 1 else ''}").exists()
        finally:
            ended.set()
            thread.join()
        daemon.stop()
    finally:
        daemon.kill()
    text = "".join(file.read_text() for file in (daemon.log_file, folder / "ratelimitd.log.1"))
    text += "".join(gzip.decompress(file.read_bytes()).decode() for file in folder.glob("*.gz"))
    assert sorted(map(int, re.findall(r"Q([0-9]+): client=", text))) == list(range(asked))
    assert asked > 0


@pytest.mark.real
def test_a_pid_file_that_a_crash_has_left_names_nobody_else(folder: Path) -> None:
    require("logrotate")
    file = rule(folder, Ratelimitd(folder, config()))
    (folder / "ratelimitd.log").write_text("a line\n")
    with subprocess.Popen(["sleep", "600"]) as other:
        try:
            (folder / "pid").write_text(f"{other.pid}\n")
            subprocess.run(
                [program("logrotate"), "--force", "--state", folder / "logrotate.state", file],
                check=True, capture_output=True, timeout=100,
            )  # fmt: skip
            assert (folder / "ratelimitd.log.1").exists()
        finally:
            other.kill()
        assert other.wait() == -signal.SIGKILL  # no other signal was first
