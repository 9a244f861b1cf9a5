"""Fixtures of real components. Each is started privately and gone when its test, or the run, ends."""

import contextlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import hypothesis
import pytest

from tests.instances import cache
from tests.instances.components import ComponentMissing, find
from tests.instances.dovecot import Dovecot
from tests.instances.galera import Galera
from tests.instances.mariadb import MariaDB
from tests.instances.mysql9 import MySQL9, debian
from tests.instances.postfix import Postfix
from tests.instances.postgresql import PostgreSQL

REQUIRE_COMPONENTS = "RATELIMITD_REQUIRE_COMPONENTS"

# A busy machine fails no test: no example has a deadline, and none is too slow to make.
hypothesis.settings.register_profile(
    "ratelimitd", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("ratelimitd")

_database_numbers = itertools.count(1)


def missing(reason: str) -> None:
    """Skip the test for want of a component; fail it where the environment says that all must be there."""
    if os.environ.get(REQUIRE_COMPONENTS, "") not in ("", "0"):
        pytest.fail(f"component missing: {reason}", pytrace=False)
    pytest.skip(f"component missing: {reason}")


def require(component: str) -> None:
    """Go on only where this component is: a name of tests.instances.components."""
    reason = ""
    try:
        find(component)
    except ComponentMissing as error:
        reason = str(error)
    if reason:
        missing(reason)


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that other users may pass through, with a path short enough for sockets."""
    path = Path(tempfile.mkdtemp(prefix="ratelimitd-", dir="/tmp"))
    try:
        path.chmod(0o755)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for one test, as open_folder() makes it."""
    with open_folder() as path:
        yield path


@pytest.fixture
def postfix() -> Iterator[Postfix]:
    """A Postfix that the test configures and starts: `postfix.start({...})`."""
    require("postfix")
    with open_folder() as path:
        server = Postfix(path)
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture
def dovecot() -> Iterator[Dovecot]:
    """A Dovecot that the test configures and starts, for a Postfix: `postfix.start(dovecot.main_cf)`."""
    require("dovecot")
    with open_folder() as path:
        server = Dovecot(path)
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    """The MariaDB that all tests share. To stop or kill one, take `make_mariadb`."""
    require("mariadb")
    with open_folder() as path:
        server = MariaDB(path)
        try:
            server.start()
            yield server
        finally:
            server.stop()


@pytest.fixture
def database(mariadb: MariaDB) -> Iterator[str]:
    """The name of a fresh database in the shared MariaDB."""
    name = f"test{next(_database_numbers)}"
    mariadb.sql(f"CREATE DATABASE {name}")
    try:
        yield name
    finally:
        mariadb.sql(f"DROP DATABASE {name}")


@pytest.fixture
def make_mariadb() -> Iterator[Callable[..., MariaDB]]:
    """MariaDB servers of the test's own: `make_mariadb(*arguments, tls=False)`, started."""
    require("mariadb")
    with open_folder() as path, contextlib.ExitStack() as stack:

        def make(*arguments: str, tls: bool = False) -> MariaDB:
            server_folder = Path(tempfile.mkdtemp(dir=path))
            server = MariaDB(server_folder, *arguments, tls=tls)
            stack.callback(server.stop)
            server.start()
            return server

        yield make


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """The PostgreSQL that all tests share. To stop or kill one, take `make_postgresql`."""
    require("postgresql")
    with open_folder() as path:
        server = PostgreSQL(path)
        try:
            server.start()
            yield server
        finally:
            server.stop()


@pytest.fixture
def make_postgresql() -> Iterator[Callable[..., PostgreSQL]]:
    """PostgreSQL servers of the test's own: `make_postgresql(*settings, tls=False, of=None)`, started."""
    require("postgresql")
    with open_folder() as path, contextlib.ExitStack() as stack:

        def make(*settings: str, tls: bool = False, of: PostgreSQL | None = None) -> PostgreSQL:
            server_folder = Path(tempfile.mkdtemp(dir=path))
            server_folder.chmod(0o755)
            server = PostgreSQL(server_folder, *settings, tls=tls, of=of)
            stack.callback(server.stop)
            server.start()
            return server

        yield make


@pytest.fixture
def galera() -> Iterator[Galera]:
    """A Galera cluster of the test's own, three nodes, synced."""
    require("galera")
    with open_folder() as path:
        cluster = Galera(path)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


@pytest.fixture(scope="session", autouse=True)
def mysql9_on_its_way(request: pytest.FixtureRequest) -> Iterator[Future[Path] | None]:
    """Fetching MySQL 9 takes a minute, once on a machine: the tests that do not need it run meanwhile."""

    def fetch() -> Path:
        find("mysql9")
        return debian(cache.folder())

    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(fetch) if any(map(_needs_mysql9, request.session.items)) else None


def _needs_mysql9(item: pytest.Item) -> bool:
    """Whether a test takes the fixture, itself or by the parameter of another one."""
    if not isinstance(item, pytest.Function):
        return False
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return "mysql9" in item.fixturenames or "mysql9" in parameters


@pytest.fixture(scope="session")
def mysql9(mysql9_on_its_way: Future[Path] | None) -> Iterator[MySQL9]:
    """The MySQL 9 that all tests share."""
    require("mysql9")
    with open_folder() as path:
        server = MySQL9(cache.folder(), path)
        try:
            try:
                if mysql9_on_its_way is not None:
                    mysql9_on_its_way.result()
                server.start()
            except ComponentMissing as error:
                missing(str(error))
            yield server
        finally:
            server.stop()
