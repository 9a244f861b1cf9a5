"""A database as the Perl daemon leaves it, and the way to ours and back."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ratelimitd.config import read as config
from ratelimitd.ctl.migrate import perl
from ratelimitd.ctl.migrate.migrate import migrate
from ratelimitd.stores import Store
from tests.stores.backends import Sql, server_backend

LATER = int(time.time()) + 86400
EARLIER = int(time.time()) - 86400

SEED = """
CREATE TABLE `ratelimit` (
  `id` int(11) NOT NULL AUTO_INCREMENT,
  `sender` varchar(255) COLLATE utf8mb3_bin NOT NULL,
  `persist` tinyint(1) NOT NULL DEFAULT '0',
  `quota` int(10) unsigned NOT NULL DEFAULT '0',
  `used` int(10) unsigned NOT NULL DEFAULT '0',
  `updated` timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP,
  `expiry` int(10) unsigned NOT NULL DEFAULT '0',
  PRIMARY KEY (`id`),
  UNIQUE KEY `sender` (`sender`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3 COLLATE=utf8mb3_bin;
CREATE VIEW `view_ratelimit` AS SELECT *, FROM_UNIXTIME(`expiry`) AS `expirytime` FROM `ratelimit`;
"""
LIMIT = '[[limit]]\nname = "daily"\nquota = 1000\n'


def no_perl_daemon(monkeypatch: pytest.MonkeyPatch, empty: Path) -> None:
    """Have none be found, whatever runs on this machine."""
    monkeypatch.setattr(perl, "PROC", empty / "no processes")
    monkeypatch.setattr(perl, "PID_FILES", ())
    monkeypatch.setattr(perl, "USUAL", ("127.0.0.1", 1))


class Perl:
    """A database as the Perl daemon leaves it, and the configuration of ours."""

    def __init__(self, server: Any, database: str, folder: Path) -> None:
        self.database = database
        self.backend = server_backend(server, database)
        self.sql: Sql = self.backend.sql
        self.make: Callable[..., Store] = self.backend.make
        self.file = folder / "ratelimitd.toml"
        self._store = f'unix_socket = "{server.socket}"\nuser = "root"\ndatabase = "{database}"\n'
        self.configure()

    def configure(self, more: str = "", store: str = "", limits: str = LIMIT) -> None:
        text = f'state_dir = "state"\n{more}\n[store]\nbackend = "mysql"\n{self._store}{store}\n{limits}'
        self.file.write_text(text, encoding="utf-8")

    def seed(self, *rows: tuple[str, int, int, int, int]) -> None:
        """Its table with rows of (sender, persist, quota, used, expiry)."""
        values = ", ".join(f"('{s}', {p}, {q}, {u}, '2026-01-02 03:04:05', {e})" for s, p, q, u, e in rows)
        insert = f"INSERT INTO ratelimit (sender, persist, quota, used, updated, expiry) VALUES {values}"
        self.sql(SEED + (insert if rows else ""))

    def migrate(
        self, dry_run: bool = False, *, back: bool = False, perl_stopped: bool = False, said: list[str] | None = None
    ) -> list[str]:
        """What was done, without the line at the end, which says what to do now. `said` has it also if it fails."""
        said = [] if said is None else said
        migrate(config.read(self.file), said.append, dry_run=dry_run, back=back, perl_stopped=perl_stopped)
        assert said.pop().startswith("nothing was changed" if dry_run else "now start ")
        return said

    def rows(self) -> list[tuple[str, ...]]:
        return self.sql("SELECT id, sender, persist, quota, used, expiry FROM ratelimit ORDER BY id")
