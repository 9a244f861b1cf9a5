"""Whose quota holds and what the history has, over crashes, lost COMMITs and edits of rows, against a plain model.

Two nodes on one database, their clocks apart; limits by the calendar, of a length, and sliding. `test_model.py` has the
counts of fixed windows and transactions that last, `test_sliding.py` what a sliding limit admits.
"""

import contextlib
import random
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from ratelimitd.core.rows import Account
from tests.core.build import limit
from tests.durability.history import SKEW_S, Windows, history_of
from tests.durability.node import FaultyStore, Node

START = 1_900_000_000  # the edits' times are the machine's: what is after now is after them too
QUOTA = 20
LIMITS = [
    limit(QUOTA, name="hourly", period="hourly"),
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
    """Two nodes that `step` has do something at random, and what must be true of them, said without their means."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.now = START
        self.charged: Windows = Counter()
        self.domains: dict[Account, int] = {}
        self.grants: dict[Account, tuple[int, int]] = {}  # quota and end
        self._folder = folder
        self._file = folder / "shared.sqlite3"
        self._chance = chance
        self._asked = 0
        self._refreshed = [True, True]  # of each node: since the store was last unavailable
        self._nodes: list[Node] = []

    def _clock(self, number: int) -> int:
        return self.now + number * SKEW_S

    async def _started(self, number: int) -> Node:
        folder = self._folder / f"node{number}"
        folder.mkdir(exist_ok=True)
        node = Node(folder, LIMITS, lambda: self._clock(number), store=FaultyStore(self._file), history_days=30)
        await node.start()
        return node

    async def start(self) -> None:
        """Start both, and be sure that the table is there."""
        for number in range(2):
            self._nodes.append(await self._started(number))
            assert await self._nodes[number].flush()

    def quota(self, name: str, login: str, now: int) -> int:
        """Whose quota holds: the account's grant, its domain's row, the limit's."""
        granted, until = self.grants.get(Account(name, login), (0, 0))
        if now < until:
            return granted
        return self.domains.get(Account(name, "@" + login.partition("@")[2]), QUOTA)

    async def step(self) -> None:
        """One of: time passes, mails, a flush that may fail, an edit of a row, kill -9, a restart."""
        number = self._chance.randrange(2)
        node, what = self._nodes[number], self._chance.random()
        if what < 0.2:
            self.now += self._chance.choice([1, 5, 20, 60, 90, 600, 3600])
        elif what < 0.6:
            await self._mail(number)
        elif what < 0.8:
            await node.flush(self._chance.choice(FAULTS))
            await self._refresh(number)
        elif what < 0.92:
            await self._edit()
        else:
            await (node.crash if what < 0.97 else node.stop)()
            self._nodes[number] = await self._started(number)

    async def _refresh(self, number: int) -> None:
        """As the periodic task does."""
        sync = self._nodes[number].sync
        await sync.refresh()
        self._refreshed[number] = sync.link.up

    async def _mail(self, number: int) -> None:
        login, recipients = self._chance.choice(LOGINS), self._chance.randrange(1, 9)
        self._asked += 1
        verdict = await self._nodes[number].ask(login, recipients, instance=f"{self._asked:x}.a")
        assert verdict.charge is not None
        over = False
        for counter, amount in zip(verdict.charge.counters, verdict.charge.amounts, strict=True):
            name = counter.limit.name
            assert counter.key == login
            if self._refreshed[number]:  # else a run that had not seen the domain's row may have begun it in an outage
                assert counter.quota == self.quota(name, login, self._clock(number)), (number, name, login)
            over = over or counter.used > counter.quota
            if amount:
                self.charged[name, login, counter.expiry] += amount
        assert verdict.refused == over

    async def _edit(self) -> None:
        """An administrator's SQL, and the next refresh: what it says holds from then on, at both nodes."""
        name = self._chance.choice(NAMES)
        for node in self._nodes:
            if not await node.flush():
                return
        if self._chance.random() < 0.5:
            domain, quota, persist = self._chance.choice(DOMAINS), self._chance.randrange(1, 60), self._chance.random()
            self._nodes[0].edit(DOMAIN_ROW, domain, name, quota, persist < 0.7)
            if persist < 0.7:
                self.domains[Account(name, domain)] = quota
            else:
                self.domains.pop(Account(name, domain), None)
        else:
            login, quota = self._chance.choice(LOGINS), self._chance.randrange(1, 60)
            until = self.now + self._chance.choice([1, 30, 100, 700, 5000])
            self._nodes[0].edit(TIMED_GRANT, login, name, quota, until)
            self.grants[Account(name, login)] = quota, until
        for number in range(2):
            await self._refresh(number)

    async def stop(self) -> Windows:
        """End both as by SIGTERM; the history that is stored then."""
        for node in self._nodes:
            await node.stop()
        with contextlib.closing(sqlite3.connect(self._file)) as connection:
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
