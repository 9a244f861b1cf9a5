"""Whose quota holds and what the history has, over crashes, lost COMMITs and edits of rows, against a plain model.

One node; a limit of a length, and a sliding one. `test_model.py` has the counts of fixed windows, `test_history.py` two
nodes whose clocks differ, `test_sliding.py` what a sliding limit admits.
"""

import contextlib
import random
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from ratelimitd.core.rows import Account
from tests.core.build import limit
from tests.durability.history import Windows, history_of
from tests.durability.node import Node

START = 1_900_000_000  # the edits' times are the machine's: what is after now is after them too
QUOTA = 20
LIMITS = [
    limit(QUOTA, name="minutes", period="90s"),
    limit(QUOTA, name="sliding", period="10m", window="sliding"),
]
NAMES = [one.name for one in LIMITS]
DOMAINS = ("@a.example", "@b.example")
LOGINS = [f"user{n}{domain}" for n in range(2) for domain in DOMAINS]
FAULTS = ("", "", "", "before", "between", "after", "away")
SELECT = "SELECT limit_name, sender, expiry, used FROM ratelimit_history"
DOMAIN_ROW = (
    "INSERT INTO ratelimit (sender, limit_name, quota, persist) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (sender, limit_name) DO UPDATE SET quota = excluded.quota, persist = excluded.persist"
)
TIMED_GRANT = (
    "INSERT INTO ratelimit (sender, limit_name, quota, until) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (sender, limit_name) DO UPDATE SET quota = excluded.quota, until = excluded.until"
)


class Walk:
    """A node that `step` has do something at random, and what must be true of it, said without its means."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.folder = folder
        self.now = START
        self.charged: Windows = Counter()
        self.domains: dict[Account, int] = {}
        self.grants: dict[Account, tuple[int, int]] = {}  # quota and end
        self._chance = chance
        self._asked = 0
        self._refreshed = True  # since the store was last unavailable
        self._node = self._made()

    def _made(self) -> Node:
        return Node(self.folder, LIMITS, lambda: self.now, history_days=30)

    async def start(self) -> None:
        """Start, and be sure that the table is there."""
        await self._node.start()
        assert await self._node.flush()

    def quota(self, name: str, login: str) -> int:
        """Whose quota holds: the account's grant, its domain's row, the limit's."""
        granted, until = self.grants.get(Account(name, login), (0, 0))
        if self.now < until:
            return granted
        return self.domains.get(Account(name, "@" + login.partition("@")[2]), QUOTA)

    async def step(self) -> None:
        """One of: time passes, mails, a flush that may fail, an edit of a row, kill -9, a restart."""
        what = self._chance.random()
        if what < 0.2:
            self.now += self._chance.choice([1, 5, 20, 60, 90, 600])
        elif what < 0.6:
            await self._mail()
        elif what < 0.8:
            await self._node.flush(self._chance.choice(FAULTS))
            await self._node.sync.refresh()  # as the periodic task does
            self._refreshed = self._node.sync.link.up
        elif what < 0.92:
            await self._edit()
        else:
            await (self._node.crash if what < 0.97 else self._node.stop)()
            self._node = self._made()
            await self._node.start()

    async def _mail(self) -> None:
        login, recipients = self._chance.choice(LOGINS), self._chance.randrange(1, 9)
        self._asked += 1
        verdict = await self._node.ask(login, recipients, instance=f"{self._asked:x}.a")
        assert verdict.charge is not None
        over = False
        for counter, amount in zip(verdict.charge.counters, verdict.charge.amounts, strict=True):
            name = counter.limit.name
            assert counter.key == login
            if self._refreshed:  # else it may have been begun in an outage, by a run that had not seen the domain's row
                assert counter.quota == self.quota(name, login), (name, login)
            over = over or counter.used > counter.quota
            if amount:
                self.charged[name, login, counter.expiry] += amount
        assert verdict.refused == over

    async def _edit(self) -> None:
        """An administrator's SQL, and the next refresh: what it says holds from then on."""
        name = self._chance.choice(NAMES)
        if not await self._node.flush():
            return
        self._refreshed = True
        if self._chance.random() < 0.5:
            domain, quota, persist = self._chance.choice(DOMAINS), self._chance.randrange(1, 60), self._chance.random()
            self._node.edit(DOMAIN_ROW, domain, name, quota, persist < 0.7)
            if persist < 0.7:
                self.domains[Account(name, domain)] = quota
            else:
                self.domains.pop(Account(name, domain), None)
        else:
            login, quota = self._chance.choice(LOGINS), self._chance.randrange(1, 60)
            until = self.now + self._chance.choice([1, 30, 100, 700, 5000])
            self._node.edit(TIMED_GRANT, login, name, quota, until)
            self.grants[Account(name, login)] = quota, until
        await self._node.sync.refresh()

    async def stop(self) -> Windows:
        """End as by SIGTERM; the history that is stored then."""
        await self._node.stop()
        with contextlib.closing(sqlite3.connect(self.folder / "ratelimit.sqlite3")) as connection:
            return history_of(connection.execute(SELECT).fetchall())


async def _walk(folder: Path, seed: int, steps: int) -> None:
    walk = Walk(folder, random.Random(seed))
    await walk.start()
    for _ in range(steps):
        await walk.step()
    assert await walk.stop() == walk.charged


@pytest.mark.parametrize("seed", range(8))
async def test_quotas_of_domains_and_with_an_end_hold_and_the_history_is_what_was_charged(
    tmp_path: Path, seed: int
) -> None:
    await _walk(tmp_path, seed, 200)


@pytest.mark.long
async def test_quotas_hold_and_the_history_adds_up_in_many_random_walks(tmp_path: Path) -> None:
    for number in range(200):
        seed = random.randrange(1 << 32)
        print("seed", seed)
        (folder := tmp_path / str(number)).mkdir()
        await _walk(folder, seed, 400)
