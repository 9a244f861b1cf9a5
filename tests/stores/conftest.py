"""Fixtures: every backend there is."""

import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from ratelimitd.stores import Store
from tests.stores.backends import Backend, postgresql_backend, server_backend, sqlite_backend
from tests.stores.perl_table import Perl, no_perl_daemon

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
        isolation = "default_transaction_isolation = serializable"
        for setting in (isolation, "client_encoding = LATIN1", "timezone = 'Asia/Tokyo'"):
            server.sql(f"ALTER DATABASE {database} SET {setting}")
    yield (postgresql_backend if request.param == "postgresql" else server_backend)(server, database)
    server.sql(f"DROP DATABASE {database}")


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No Perl daemon is found, whatever runs on this machine."""
    no_perl_daemon(monkeypatch, tmp_path)


@pytest.fixture(params=["mariadb", "mysql9"])
def perl(request: pytest.FixtureRequest, tmp_path: Path, nowhere: None) -> Iterator[Perl]:
    """A fresh database, still empty."""
    server: Any = request.getfixturevalue(request.param)
    database = f"migrate{next(_numbers)}"
    server.sql(f"CREATE DATABASE {database}")
    yield Perl(server, database, tmp_path)
    server.sql(f"DROP DATABASE {database}")


@pytest.fixture
async def store(backend: Backend) -> AsyncIterator[Store]:
    """An open store on a fresh database."""
    made = backend.make()
    await made.open()
    yield made
    await made.close()
