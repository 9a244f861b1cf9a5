"""ratelimitctl as a test runs it, and a load that goes on meanwhile."""

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from ratelimitd.ctl import main as ctl
from tests.conftest import open_folder
from tests.control.load import Load
from tests.daemon.conftest import Start, make, start
from tests.daemon.process import Ratelimitd, config

__all__ = ["Start", "make", "start"]


class Ran(NamedTuple):
    """What a run of ratelimitctl gave."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its one line of JSON."""
        return json.loads(self.out)

    def table(self) -> list[dict[str, str]]:
        """Its table: each row by the header's words."""
        lines = self.out.splitlines()
        header = lines[0]
        starts = [header.index(word) for word in ("LIMIT", "KEY")]
        return [
            {"LIMIT": line[starts[0] : starts[1]].strip(), "KEY": line[starts[1] :].split()[0]} for line in lines[1:]
        ]


Ctl = Callable[..., Ran]


@pytest.fixture(scope="module")
def untouched() -> Iterator[Ratelimitd]:
    """A daemon that the tests of a file share: none of them has it charge or change anything."""
    with open_folder() as folder:
        daemon = Ratelimitd(folder, config())
        try:
            daemon.start()
            yield daemon
        finally:
            daemon.kill()


@pytest.fixture
def ctl_of(capsys: pytest.CaptureFixture[str]) -> Ctl:
    """`ctl_of(daemon, "show", "alice")`: a run of ratelimitctl on a daemon's configuration."""

    def run(daemon: Ratelimitd, *arguments: str) -> Ran:
        capsys.readouterr()
        try:
            status = ctl.main(["-c", str(daemon.file), *arguments])
        except SystemExit as error:  # argparse's own
            status = int(str(error.code))
        printed = capsys.readouterr()
        return Ran(status, printed.out, printed.err)

    return run


@pytest.fixture
def under_load() -> Iterator[Callable[[Ratelimitd], Load]]:
    """`under_load(daemon)`: accounts send until the test ends, or stops it."""
    loads: list[Load] = []

    def begin(daemon: Ratelimitd) -> Load:
        loads.append(Load(daemon))
        loads[-1].start()
        return loads[-1]

    yield begin
    for load in loads:
        load.stop()
