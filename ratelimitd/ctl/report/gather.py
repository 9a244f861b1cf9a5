"""Reads the history of a store, a page after the other, and adds it up; with it the quotas that hold for its accounts.

Nothing is held but a page, and one account that goes on in the next one.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from ratelimitd.core.limits import Limit
from ratelimitd.core.quotas import Bases, Held, of_row
from ratelimitd.core.rows import Account
from ratelimitd.ctl.report.totals import Reading, Totals
from ratelimitd.stores import Store
from ratelimitd.stores.past import START, Place

MAX_OTHERS = 10
Tick = Callable[[int, str], None]


class Gathered(NamedTuple):
    """What was used under each limit, and the names of some `others` that have rows."""

    totals: list[Totals]
    others: list[str]


async def gather(
    store: Store, limits: Sequence[Limit], midnights: Sequence[int], now: int, tick: Tick = lambda _, __: None
) -> Gathered:
    """What was used on the days that begin at `midnights`. `tick` is told after each page how many rows were read, and
    as far as which key: they are in the order of keys. Raises StoreError."""
    totals = {limit.name: Totals(limit, midnights) for limit in limits}
    quotas = Quotas(store, {limit.name: limit for limit in limits}, now)
    place: Place | None = START
    at = Account("", "")  # whose rows are read
    reading: Reading | None = None
    others: dict[str, None] = {}
    rows = 0
    while place is not None:
        page = await store.past.page(place, midnights[0], now)
        held = await quotas.of([Account(limit, key) for limit, key in dict.fromkeys(row[:2] for row in page.rows)])
        for limit, key, end, used in page.rows:
            if (limit, key) != at:
                at = Account(limit, key)
                if reading is not None:
                    reading.finish()
                reading = totals[limit].begin(key, held[at]) if limit in totals else None
                if reading is None and len(others) < MAX_OTHERS:
                    others[limit] = None
            if reading is not None:
                reading.add(end, used)
        rows += len(page.rows)
        tick(rows, at.key)
        place = page.after
    if reading is not None:
        reading.finish()
    return Gathered(list(totals.values()), sorted(others))


class Quotas:
    """The quotas that hold now. What domains have is asked for once."""

    def __init__(self, store: Store, limits: Mapping[str, Limit], now: int) -> None:
        self._store = store
        self._limits = limits
        self._now = now
        self._bases = {name: Bases() for name in limits}
        self._asked: set[Account] = set()  # domains

    async def of(self, accounts: Iterable[Account]) -> dict[Account, Held]:
        """What holds for each of these, of the limits that there are. Raises StoreError."""
        known = [account for account in accounts if account.limit in self._limits]
        of_domains = [Account(limit, self._limits[limit].domain_of(key)) for limit, key in known]
        domains = [one for one in dict.fromkeys(of_domains) if one.key and one not in self._asked]
        self._asked.update(domains)
        found = await self._store.lookup([*known, *domains], self._now)
        rows = {Account(row.limit, row.key): row for row in found}
        for domain in domains:
            self._bases[domain.limit].apply(domain.key, rows.get(domain))
        held: dict[Account, Held] = {}
        for account in known:
            base = self._bases[account.limit].of(self._limits[account.limit], account.key)
            held[account] = of_row(rows.get(account), base, self._now, self._now)
        return held
