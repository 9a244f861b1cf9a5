"""Fixtures of real components. Each is started privately and gone when its test, or the run, ends."""

import contextlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import hypothesis
import pytest

from tests.instances import cache, chroot
from tests.instances.components import ComponentMissing, find
from tests.instances.dovecot import Dovecot
from tests.instances.galera import Galera
from tests.instances.mariadb import MariaDB
from tests.instances.mysql9 import MySQL9
from tests.instances.mysql9 import debian as fetch_mysql9
from tests.instances.postfix import Postfix
from tests.instances.postgresql import PostgreSQL

REQUIRE_COMPONENTS = "RATELIMITD_REQUIRE_COMPONENTS"

# A busy machine fails no test: no example has a deadline, and none is too slow to make.
hypothesis.settings.register_profile(
    "ratelimitd", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("ratelimitd")

_database_numbers = itertools.count(1)


def missing(reason: str) -> NoReturn:
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


@contextlib.contextmanager
def debian(suite: str, packages: Sequence[str] = ()) -> Iterator[chroot.Debian]:
    """A Debian of the test's own, with these packages besides Python; a skip where one cannot be made."""
    require("chroot")
    with open_folder() as path, contextlib.ExitStack() as stack:
        try:
            system = stack.enter_context(chroot.Debian(chroot.tree(cache.folder(), suite, packages), path))
        except ComponentMissing as error:
            missing(str(error))
        yield system


@pytest.fixture
def debian12() -> Iterator[chroot.Debian]:
    """A fresh Debian 12, with python3-venv: `debian12.run("command", ...)`."""
    with debian(chroot.BOOKWORM) as system:
        yield system


@pytest.fixture
def debian13() -> Iterator[chroot.Debian]:
    """A fresh Debian 13, with python3-venv."""
    with debian(chroot.TRIXIE) as system:
        yield system


@pytest.fixture(scope="session", autouse=True)
def on_their_way(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[Path]]]:
    """Fetching MySQL 9 and the Debians takes a minute each, once on a machine: the tests without them run meanwhile."""
    made: dict[str, Callable[[], Path]] = {
        "mysql9": lambda: fetch_mysql9(cache.folder()),
        "debian12": lambda: chroot.tree(cache.folder(), chroot.BOOKWORM),
        "debian13": lambda: chroot.tree(cache.folder(), chroot.TRIXIE),
    }

    def fetch(fixture: str) -> Path:
        find("mysql9" if fixture == "mysql9" else "chroot")
        return made[fixture]()

    with ThreadPoolExecutor(1) as pool:
        needed = [name for name in made if any(_needs(item, name) for item in request.session.items)]
        yield {name: pool.submit(fetch, name) for name in needed}


def _needs(item: pytest.Item, fixture: str) -> bool:
    """Whether a test takes the fixture, itself or by the parameter of another one."""
    if not isinstance(item, pytest.Function):
        return False
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return fixture in item.fixturenames or fixture in parameters


@pytest.fixture(scope="session")
def mysql9(on_their_way: dict[str, Future[Path]]) -> Iterator[MySQL9]:
    """The MySQL 9 that all tests share."""
    require("mysql9")
    with open_folder() as path:
        server = MySQL9(cache.folder(), path)
        try:
            try:
                if "mysql9" in on_their_way:
                    on_their_way["mysql9"].result()
                server.start()
            except ComponentMissing as error:
                missing(str(error))
            yield server
        finally:
            server.stop()
