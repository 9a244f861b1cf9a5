"""Daemons that a test starts."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bench.build import build
from tests.conftest import require
from tests.daemon.process import Ratelimitd, config

Start = Callable[..., Ratelimitd]


@pytest.fixture
def make(folder: Path) -> Iterator[Start]:
    """`make(**tables)`: a daemon in the test's folder, not started; killed at the test's end."""
    with contextlib.ExitStack() as stack:

        def made(**tables: Any) -> Ratelimitd:
            daemon = Ratelimitd(folder, config(**tables))
            stack.callback(daemon.kill)
            return daemon

        yield made


@pytest.fixture
def start(make: Start) -> Start:
    """`start(**tables)`: a daemon that runs; see tests.daemon.process.config."""

    def started(**tables: Any) -> Ratelimitd:
        daemon = make(**tables)
        daemon.start()
        return daemon

    return started


@pytest.fixture(scope="session")
def load_program() -> Path:
    """The load generator, tests/bench/load.c, compiled."""
    require("gcc")
    return build("load")
