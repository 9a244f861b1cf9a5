"""The cache dump, in the manner of the Perl daemon's printshm: what SIGUSR1 writes to `state_dir/cache.dump`, and what
`ratelimitctl dump -` prints."""

import time
from collections.abc import AsyncIterator
from heapq import nlargest
from operator import itemgetter
from pathlib import Path

import trio

from ratelimitd.control.answers import Cache, CachedAccount
from ratelimitd.control.views import NOW
from ratelimitd.core.counters import Counter
from ratelimitd.core.limits import UNLIMITED
from ratelimitd.core.pending import Pending
from ratelimitd.core.policy import Policy
from ratelimitd.core.standing import admits_again, used_at
from ratelimitd.errors import StartError
from ratelimitd.log.log import Log
from ratelimitd.server.pump import Pump
from ratelimitd.state.directory import StateDir
from ratelimitd.sync.walk import walk
from ratelimitd.text import spell

HEADER = "Key\t:\tLimit\t:\tQuota\t:\tUsed\t:\tReset\t:\tNot stored\n"


class CacheDump:
    """Writes the cache, on SIGUSR1 and for `ratelimitctl dump`, or tells it."""

    def __init__(self, state: StateDir, policy: Policy, pump: Pump, log: Log) -> None:
        self._state = state
        self._policy = policy
        self._pump = pump
        self._log = log

    async def write(self) -> Path:
        """Write the cache to `state_dir/cache.dump`, and log it; the file. Raises StartError."""
        text = [part async for part in lines(self._policy, int(time.time()))]
        text.append(last_line(self._totals()))
        try:
            path = await trio.to_thread.run_sync(self._state.replace, "cache.dump", "".join(text))
        except StartError as error:
            self._log.error("the cache cannot be dumped", reason=error)
            raise
        self._log.info("the cache is dumped", file=path)
        return path

    async def most(self, count: int) -> Cache:
        """The accounts that have used most, at most `count`, and the totals."""
        now, best, seen = int(time.time()), list[tuple[int, Counter]](), 0
        for meter in self._policy.meters:
            async for counters in walk(list(meter.counters.values())):
                seen += len(counters)
                using = [(used_at(counter, now), counter) for counter in counters]
                best = nlargest(count, [*best, *using], key=itemgetter(0))
        accounts = [_cached(counter, self._policy.pending, now) for _, counter in best]
        return Cache(accounts, seen - len(accounts), self._totals())

    def _totals(self) -> dict[str, int]:
        policy = self._policy
        return {
            "Accounts": sum(len(meter.counters) for meter in policy.meters),
            "Not stored": policy.pending.recipients,
            "Transactions": len(policy.memo),
            "Requests": self._pump.requests,
            "Connections": len(self._pump.connections.open),
            "Log lines dropped": self._log.dropped,
        }


async def lines(policy: Policy, now: int) -> AsyncIterator[str]:
    """The dump, a slice of accounts at a time, so that other tasks run in between."""
    yield HEADER
    for meter in policy.meters:
        async for counters in walk(list(meter.counters.values())):
            yield "".join([line(_cached(counter, policy.pending, now)) for counter in counters])


def _cached(counter: Counter, pending: Pending, now: int) -> CachedAccount:
    limit = counter.limit
    used, again = counter.used, counter.expiry
    if limit.sliding:
        used, again = used_at(counter, now), admits_again(counter)
    return CachedAccount(
        key=counter.key,
        limit=limit.name,
        quota=None if counter.quota == UNLIMITED else counter.quota,
        used=used,
        reset_at=NOW if limit.sliding and again <= now else limit.period.describe(again),
        not_stored=sum(pending.by_window(counter).values()),
    )


def line(account: CachedAccount) -> str:
    """A line of the dump. A quota of 0 is unlimited, as the Perl daemon has it."""
    fields = (
        spell(account.key),
        account.limit,
        account.quota or 0,
        account.used,
        account.reset_at,
        account.not_stored,
    )
    return "\t:\t".join(map(str, fields)) + "\n"


def last_line(totals: dict[str, int]) -> str:
    """The last line: how many accounts, recipients not stored, transactions and so on there are."""
    return ", ".join(f"{name}: {count}" for name, count in totals.items()) + "\n"
