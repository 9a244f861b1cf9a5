"""The daemon as PID 1: orphans of commands do not stay zombies."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ratelimitd.daemon.reaper import reap
from tests.conftest import missing
from tests.daemon.process import Ratelimitd, changed, config
from tests.instances.waiting import wait_until


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.real
def test_as_pid_1_the_daemon_reaps_what_its_commands_leave_behind(folder: Path) -> None:
    if os.geteuid() != 0 or not shutil.which("unshare"):
        missing("only root can make a namespace of processes")
    orphans = ["/bin/sh", "-c", "for n in 1 2 3; do (sleep 0.2) & done; exit 0"]
    text = config(limit=[{"quota": 1}], notify=[{"command": orphans, "at": [100]}])
    namespace = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if subprocess.run([*namespace, "true"], capture_output=True).returncode:
        missing("a namespace of processes, which there is not in a plain chroot")
    daemon = Ratelimitd(
        folder, text, prefix=[*namespace, *changed("from ratelimitd.daemon import reaper; reaper.PERIOD_S = 1.0")]
    )
    try:
        daemon.start()
        (inside,) = children(daemon.process.pid)
        with daemon.client() as client:
            client.ask()
        wait_until(lambda: len(children(inside)) == 3, "orphans")
        wait_until(lambda: not children(inside), "their end")
    finally:
        daemon.kill()


def test_a_child_that_has_just_ended_is_left_to_who_started_it() -> None:
    pid = os.fork()
    if not pid:
        os._exit(7)
    wait_until(lambda: pid in reap(set()), "a zombie")
    known = reap(set())
    assert reap(known - {pid}) & {pid}
    assert os.waitpid(pid, os.WNOHANG)[1] == 7 << 8
