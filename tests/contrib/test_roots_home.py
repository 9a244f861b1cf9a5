"""Started as root, with `user` set, from a configuration in root's home, which that user may not enter.

What of it cannot work is said before the daemon gives up root. That the program itself may lie there is held by
test_install_debian.py.
"""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.client import PolicyClient
from tests.daemon.process import Ratelimitd, config

USER = "daemon"
CANNOT = "the daemon's user may not read the configuration, so a reload will be refused; a restart applies changes"

pytestmark = [pytest.mark.real, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def home(folder: Path) -> Path:
    """root's home."""
    path = folder / "home"
    path.mkdir(mode=0o700)
    return path


def in_(home: Path, **tables: Any) -> Ratelimitd:
    return Ratelimitd(home, config(user=USER, **tables))


@pytest.mark.parametrize("arguments", [[], ["--check"]])
@pytest.mark.parametrize(
    ("setting", "tables"),
    [
        ("state_dir", {"state_dir": ".state"}),
        ("log.file", {"state_dir": "FOLDER/ratelimitd", "log": {"file": "log"}}),
    ],
)
def test_a_folder_in_it_is_refused_and_the_line_names_the_one_that_is_closed(
    folder: Path, home: Path, setting: str, tables: dict[str, Any], arguments: list[str]
) -> None:
    tables = {**tables, "state_dir": tables["state_dir"].replace("FOLDER", str(folder))}
    daemon = in_(home, **tables)
    assert daemon.spawn(*arguments).wait() == 2
    (line,) = daemon.output().splitlines()
    assert f": {setting}: {home}/" in line
    assert line.endswith(f": {USER} may not enter {home}")


def test_a_configuration_in_it_works_and_that_it_cannot_be_reloaded_is_said_at_once(folder: Path, home: Path) -> None:
    log = {"file": str(folder / "ratelimitd.log")}
    daemon = in_(home, state_dir=str(folder / "ratelimitd"), log=log)
    assert daemon.spawn("--check").wait() == 0
    said = f"{CANNOT}: file={daemon.file}"
    assert f"ratelimitd: warning: {daemon.file}: {said}\n" in daemon.output()
    daemon.start()
    try:
        assert said in daemon.log()
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_log(f"nothing is changed: reason={daemon.file}: cannot be read: found Permission denied")
        with PolicyClient(daemon.port) as client:
            assert client.ask() == "DUNNO"
    finally:
        assert daemon.stop() == 0
