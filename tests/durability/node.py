"""A daemon without its sockets: policy, journal, recovery, flush and a store, in one process, with a clock to set."""

import contextlib
import itertools
import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from zoneinfo import ZoneInfo

import trio

from ratelimitd.core.action import Template
from ratelimitd.core.calendars import Calendar
from ratelimitd.core.limits import Limit
from ratelimitd.core.pending import Pending
from ratelimitd.core.policy import Policy
from ratelimitd.core.rows import Account, Delta, Row
from ratelimitd.core.verdict import Verdict, Waiting
from ratelimitd.core.watcher import Nobody
from ratelimitd.core.windows import PeriodName, Sliding
from ratelimitd.errors import StoreError
from ratelimitd.keys import domain, email
from ratelimitd.log.log import Log
from ratelimitd.log.sinks import Entry
from ratelimitd.request import Request
from ratelimitd.settings import JournalSync, LogSettings, StoreSettings
from ratelimitd.state.backlog import Backlog
from ratelimitd.state.directory import StateDir
from ratelimitd.state.journal import Journal
from ratelimitd.stores import Changes, Cursor, Flushed
from ratelimitd.stores.doubts import Doubts
from ratelimitd.stores.sqlite import SQLiteStore
from ratelimitd.stores.sqlite_writing import Writer
from ratelimitd.sync.recovery import recover
from tests.core.build import memo, rules, synced

_runs = itertools.count(1)
ZONE = ZoneInfo("Europe/Zurich")
KEYS = {"email": email({}), "domain": domain({})}


def make_limit(
    name: str = "default", key: str = "email", period: PeriodName = "daily", quota: int = 100, **quotas: int
) -> Limit:
    """A limit as the configuration makes it."""
    template = Template("450 4.7.1 {used}/{quota}")
    return Limit(name, key, KEYS[key], Calendar(period, ZONE, "sunday"), quota, template, quotas)


def make_sliding(seconds: int, quota: int, *, name: str = "default", count_rejected: bool = True) -> Limit:
    """A sliding limit as the configuration makes it."""
    plain = make_limit(name, quota=quota)
    return replace(plain, period=Sliding(seconds, ZONE), count_rejected=count_rejected)


class ListSink:
    """Keeps the log's lines."""

    dropped = 0
    on_stderr = False
    scribe = None

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, entries: Iterable[Entry]) -> None:
        self.lines += [f"{level}: {text}" for level, text in entries]

    async def drain(self) -> None:
        await trio.sleep_forever()

    def reopen(self) -> None:
        pass

    def close(self) -> None:
        pass


class FaultyStore(SQLiteStore):
    """SQLite that fails at the step named by `fault`: "away", and of a flush "before", "between" or "after" COMMIT."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.file = path
        self.fault = ""

    def _check(self, step: str) -> None:
        if self.fault == step:
            raise StoreError(f"made to fail: {step}")

    async def open(self) -> None:
        self._check("away")
        await super().open()

    async def lookup(self, accounts: Sequence[Account], now: int) -> list[Row]:
        self._check("away")
        return await super().lookup(accounts, now)

    async def recorded(self, node: str) -> int:
        self._check("away")
        return await super().recorded(node)

    async def changes(self, cursor: Cursor | None, now: int) -> Changes:
        self._check("away")
        return await super().changes(cursor, now)

    async def flush(self, node: str, segment: int, merge: Callable[[int], Iterable[Delta]]) -> Flushed:
        self._check("away")
        self._check("before")
        flushed = await super().flush(node, segment, merge)
        self._check("after")
        return flushed

    def _store(
        self, connection: Writer, chunk: Sequence[Delta], doubts: Doubts[Delta] | None = None
    ) -> list[tuple[Delta, str]]:
        rejected = super()._store(connection, chunk, doubts)
        if self.fault == "between":
            raise sqlite3.OperationalError("made to fail: between")
        return rejected


class Node:
    """One run of a daemon. `start`, then requests; `crash` is what SIGKILL leaves, `stop` a clean end."""

    def __init__(
        self,
        folder: Path,
        limits: Sequence[Limit],
        clock: Callable[[], float],
        sync: JournalSync = "flush",
        *,
        store: FaultyStore | None = None,
        history_days: int = 0,
    ) -> None:
        self.folder = folder
        self.clock = clock
        self.sink = ListSink()
        self.state = StateDir(folder)
        self.store = store or FaultyStore(folder / "ratelimit.sqlite3")
        self.policy = Policy(limits, rules(), Pending(), memo(10_000), Nobody())
        (folder / "journal").mkdir(exist_ok=True)
        self.journal = Journal(folder / "journal", f"{next(_runs):032x}", sync)
        self.log = Log([self.sink], LogSettings(level="debug"))
        self.backlog = Backlog(self.policy.pending, self.journal, clock)
        settings = StoreSettings(history_days=history_days)
        self.sync = synced(self.store, self.policy, self.backlog, self.state, self.log, settings, clock)

    async def start(self) -> None:
        """Recover, as the daemon does before it listens."""
        await recover(self.backlog, self.sync, self.policy, self.log)

    async def ask(self, login: str, recipients: int = 0, *, instance: str = "", recipient: str = "r@x") -> Verdict:
        """One request, walked as the pump walks it: at RCPT, or at DATA where recipients are given."""
        state = "DATA" if recipients else "RCPT"
        request = Request.of(
            f"request=smtpd_access_policy\nprotocol_state={state}\nsasl_username={login}\nrecipient={recipient}\n"
            f"recipient_count={recipients}\ninstance={instance}"
        )
        now = int(self.clock())
        verdict = self.policy.decide(request, now)
        if isinstance(verdict, Waiting):
            if self.sync.link.up:
                missing = verdict.missing(now)
                await self.sync.loader.look_up(sorted({Account(meter.limit.name, key) for meter, key in missing}))
            verdict = self.policy.decide_waiting(verdict, now)
        if verdict.charge is not None:
            self.journal.write([verdict.charge])
        return verdict

    async def flush(self, fault: str = "") -> bool:
        """A flush in which the store fails at a step."""
        self.store.fault = fault
        try:
            return await self.sync.flush()
        finally:
            self.store.fault = ""

    def divide(self) -> None:
        """Close the open segment where it has `backlog.ACCOUNTS`, as when many accounts come in."""
        if (lay_out := self.journal.plan()) is not None:
            self.journal.take(lay_out())
        self.backlog.divide()

    async def crash(self) -> None:
        """End as by SIGKILL: what the kernel has of the files is all that is left."""
        if self.journal.writable:
            assert self.journal._open is not None
            os.close(self.journal._open.fd)
            self.journal._open = None
        await self.store.close()

    async def stop(self) -> None:
        """End as by SIGTERM."""
        await self.sync.finish(10)

    async def rows(self) -> dict[tuple[str, str], Row]:
        """What is stored, by limit and key."""
        everything = await SQLiteStore.changes(self.store, Cursor("0"), int(self.clock()))
        return {(row.limit, row.key): row for row in everything.rows}

    def edit(self, statement: str, *values: object) -> None:
        """What an administrator does with sqlite3."""
        with contextlib.closing(sqlite3.connect(self.store.file)) as connection, connection:
            connection.execute(statement, values)

    def maintain(self, statement: str) -> None:
        """The same, with a statement that no transaction may have around it."""
        with contextlib.closing(sqlite3.connect(self.store.file, isolation_level=None)) as connection:
            connection.execute(statement).fetchall()

    def said(self, text: str) -> list[str]:
        """The log's lines with a text in them."""
        return [line for line in self.sink.lines if text in line]
