"""A daemon that is forked is as one that is started."""

import os
import signal
from pathlib import Path

import pytest

from tests.daemon.forked import start
from tests.daemon.process import Ratelimitd, config
from tests.instances.waiting import wait_until

FORKED: tuple[str, ...] = ()
STARTED = ("env",)
WAYS = pytest.mark.parametrize("prefix", [FORKED, STARTED], ids=["forked", "started"])


def seen(daemon: Ratelimitd) -> dict[str, object]:
    """What the kernel says of a daemon, and what two of them have in common."""
    process = Path(f"/proc/{daemon.process.pid}")
    status = dict(line.split(":\t") for line in (process / "status").read_text().splitlines() if ":\t" in line)
    return {
        "session": os.getsid(daemon.process.pid) == daemon.process.pid,
        "folder": os.readlink(process / "cwd"),
        "descriptors": sorted(_kind(os.readlink(path)) for path in (process / "fd").iterdir() if not _library(path)),
        **{name: status[name] for name in ("SigBlk", "SigIgn", "SigCgt", "Groups")},
    }


def _kind(target: str) -> str:
    """What a descriptor is, and not which: `socket`, `output`."""
    return target.rpartition("/")[2].partition(":[")[0]


def _library(descriptor: Path) -> bool:
    """libffi, once it is loaded, has its own file open."""
    return ".so." in os.readlink(descriptor)


def test_it_has_the_same_descriptors_signals_and_session(tmp_path: Path) -> None:
    daemons: list[Ratelimitd] = []
    for prefix in (FORKED, STARTED):
        folder = tmp_path / str(len(daemons))
        folder.mkdir()
        daemons.append(Ratelimitd(folder, config(), prefix=prefix))
    forked, started = daemons
    try:
        forked.start()
        started.start()
        wait_until(lambda: seen(forked) == seen(started), "two daemons that are alike", 10)
    finally:
        forked.kill()
        started.kill()


@WAYS
def test_its_exit_status_and_its_words_are_known(tmp_path: Path, prefix: tuple[str, ...]) -> None:
    for argument, status, words in (("--version", 0, "ratelimitd "), ("--nonsense", 2, "usage: ratelimitd ")):
        output = tmp_path / argument
        process = start([argument], output, prefix=prefix)
        assert process.wait() == status
        assert process.tail().startswith(words)


@WAYS
def test_its_end_by_a_signal_is_known(tmp_path: Path, prefix: tuple[str, ...]) -> None:
    daemon = Ratelimitd(tmp_path, config(), prefix=prefix)
    daemon.start()
    assert daemon.process.running()
    assert daemon.stop(signal.SIGKILL) == -signal.SIGKILL
    assert not daemon.process.running()


def test_it_has_the_environment_of_its_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", ":/etc/nowhere")
    daemon = Ratelimitd(tmp_path, config(timezone="local"))
    assert daemon.spawn("--check").wait() == 2
    assert '"/etc/nowhere"' in daemon.output()
