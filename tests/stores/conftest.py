"""Fixtures: every backend there is."""

import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from ratelimitd.ctl.migrate import perl
from ratelimitd.stores import Store
from tests.stores.backends import Backend, postgresql_backend, server_backend, sqlite_backend

_numbers = itertools.count(1)
real = pytest.mark.real


@pytest.fixture(params=["sqlite", *(pytest.param(name, marks=real) for name in ("mariadb", "mysql9", "postgresql"))])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    """A fresh database of each kind."""
    if request.param == "sqlite":
        yield sqlite_backend(tmp_path)
        return
    server: Any = request.getfixturevalue(request.param)
    database = f"stores{next(_numbers)}"
    server.sql(f"CREATE DATABASE {database}")
    if request.param == "postgresql":  # what the sessions must not depend on
        for setting in ("default_transaction_isolation = serializable", "client_encoding = LATIN1", "timezone = Japan"):
            server.sql(f"ALTER DATABASE {database} SET {setting}")
    yield (postgresql_backend if request.param == "postgresql" else server_backend)(server, database)
    server.sql(f"DROP DATABASE {database}")


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No Perl daemon is found, whatever runs on this machine."""
    monkeypatch.setattr(perl, "PROC", tmp_path / "no processes")
    monkeypatch.setattr(perl, "PID_FILES", ())
    monkeypatch.setattr(perl, "USUAL", ("127.0.0.1", 1))


@pytest.fixture
async def store(backend: Backend) -> AsyncIterator[Store]:
    """An open store on a fresh database."""
    made = backend.make()
    await made.open()
    yield made
    await made.close()
