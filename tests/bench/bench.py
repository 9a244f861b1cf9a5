"""Where the services run that the sections measure: one floor and one server of each kind for the whole bench."""

import contextlib
import itertools
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.bench.service import PASSWORD, Floor, Measured, Ours, Service, Setup, database_of
from tests.instances.mariadb import MariaDB
from tests.instances.postgresql import PostgreSQL


@dataclass
class Bench:
    """Where and how long is measured. `folder` is the bench's own."""

    folder: Path
    rounds: int
    seconds: float
    short: bool = False
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _floors: list[Floor] = field(default_factory=list)
    _mariadb: MariaDB | None = None
    _postgresql: PostgreSQL | None = None

    @property
    def floor(self) -> Floor:
        """The C floor, one for the whole run."""
        return self.floors(1)[0]

    def floors(self, count: int) -> list[Floor]:
        """As many of it, the same for the whole run."""
        while len(self._floors) < count:
            self._floors.append(Floor(self.folder))
            self._stack.callback(self._floors[-1].stop)
        return self._floors[:count]

    @property
    def mariadb(self) -> MariaDB:
        """A private MariaDB, one for the whole run. Raises ComponentMissing."""
        if self._mariadb is None:
            folder = self.folder / "mariadb"
            folder.mkdir()
            self._mariadb = MariaDB(folder, "--innodb-buffer-pool-size=512M")
            self._stack.callback(self._mariadb.stop)
            self._mariadb.start()
            self._mariadb.add_user("bench", PASSWORD)
        return self._mariadb

    @property
    def postgresql(self) -> PostgreSQL:
        """A private PostgreSQL, as safe against power cuts as it is by default. Raises ComponentMissing."""
        if self._postgresql is None:
            for path in (self.folder, self.folder / "postgresql"):
                path.mkdir(exist_ok=True)
                path.chmod(0o755)
            self._postgresql = PostgreSQL(
                self.folder / "postgresql", "shared_buffers=512MB", "fsync=on", "full_page_writes=on", "autovacuum=on"
            )
            self._stack.callback(self._postgresql.stop)
            self._postgresql.start()
            self._postgresql.add_user("bench", PASSWORD)
        return self._postgresql

    @contextlib.contextmanager
    def ours(self, setup: Setup | None = None, accounts: int = 1000, folder: Path | None = None) -> Iterator[Ours]:
        """A ratelimitd that knows all its accounts already; in a fresh folder unless one is given."""
        setup = setup or Setup()
        place = folder or self.fresh(setup)
        service = Ours(place, setup)
        try:
            if accounts:
                service.warm(accounts)
            yield service
        finally:
            service.stop()
            if folder is None:
                shutil.rmtree(place, ignore_errors=True)

    def fresh(self, setup: Setup) -> Path:
        """A folder for a ratelimitd, and its database."""
        folder = self.folder / f"ours{next(self._numbers)}"
        folder.mkdir()
        if setup.server is not None and not setup.database:
            owner = " OWNER bench" if isinstance(setup.server, PostgreSQL) else ""
            setup.server.sql(f"CREATE DATABASE {database_of(folder)}{owner}")
        return folder

    def load(self, service: Service, *options: str) -> Callable[[], Measured]:
        """One run of the load generator for the time of this bench."""
        return partial(service.measure, "-s", str(self.seconds), *options)

    def close(self) -> None:
        """Stop what was started."""
        self._stack.close()
