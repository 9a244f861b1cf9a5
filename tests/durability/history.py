"""Two nodes on one database that keeps the history, their clocks apart; and what they were asked, by window."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from ratelimitd.core.rows import Account, Row
from tests.core.build import NOON, limit
from tests.durability.node import FaultyStore, Node

SKEW_S = 30
HISTORY_DAYS = 30
LIMITS = [
    limit(0, name="hourly", period="hourly"),
    limit(0, name="minutes", period="90s"),
    limit(0, name="sliding", period="10m", window="sliding"),
]
LOGINS = [f"user{n}@example.com" for n in range(6)]
FAULTS = ("", "", "", "before", "after", "away")

Windows = Counter[tuple[str, str, int]]
"""Recipients by limit, account and the end of the window."""


class Pair:
    """Two nodes, which `step` has do something at random; `charged` is what both were asked."""

    def __init__(self, folder: Path, make: Callable[[], FaultyStore], chance: random.Random) -> None:
        self.now = NOON
        self.charged: Windows = Counter()
        self._chance = chance
        self._folder = folder
        self._make = make
        self._nodes: list[Node] = []

    async def start(self) -> None:
        """Start both."""
        for number in range(2):
            self._nodes.append(await self._started(number))

    async def _started(self, number: int) -> Node:
        folder = self._folder / f"node{number}"
        folder.mkdir(exist_ok=True)
        node = Node(folder, LIMITS, lambda: self.now + number * SKEW_S, store=self._make(), history_days=HISTORY_DAYS)
        await node.start()
        return node

    async def step(self) -> None:
        """One of: time passes, mails, a flush that may fail, kill -9 and a start."""
        number = self._chance.randrange(2)
        node = self._nodes[number]
        what = self._chance.random()
        if what < 0.25:
            self.now += self._chance.choice([1, 5, 20, 60, 61, 600, 3600])
        elif what < 0.65:
            for _ in range(self._chance.randrange(1, 5)):
                await self._mail(node)
        elif what < 0.95:
            await node.flush(self._chance.choice(FAULTS))
        else:
            await node.crash()
            self._nodes[number] = await self._started(number)

    async def _mail(self, node: Node) -> None:
        login, recipients = self._chance.choice(LOGINS), self._chance.randrange(1, 9)
        await node.ask(login, recipients, instance=f"{self._chance.random()}")
        now = int(node.clock())
        for one in LIMITS:
            counter = node.policy.meters[LIMITS.index(one)].counters[login]
            self.charged[one.name, login, counter.expiry] += recipients
            assert counter.expiry > now

    async def stop(self) -> list[Row]:
        """End both as by SIGTERM; the rows of the sliding limit."""
        for node in self._nodes:
            await node.stop()
        store = self._make()
        await store.open()
        rows = await store.lookup([Account("sliding", login) for login in LOGINS], 0)
        await store.close()
        return rows


def history_of(rows: Sequence[Sequence[object]]) -> Windows:
    """What is stored, from the values of limit_name, sender, expiry and used."""
    return Counter({(str(name), str(key), int(str(end))): int(str(used)) for name, key, end, used in rows})
