"""The cache dump: what SIGUSR1 writes to `state_dir/cache.dump`, in the manner of the Perl daemon's printshm."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import trio

from ratelimitd.control.views import NOW
from ratelimitd.core.counters import Counter
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
    """Writes the cache, on SIGUSR1 and for `ratelimitctl dump`."""

    def __init__(self, state: StateDir, policy: Policy, pump: Pump, log: Log) -> None:
        self._state = state
        self._policy = policy
        self._pump = pump
        self._log = log

    async def write(self) -> Path:
        """Write the cache to `state_dir/cache.dump`, and log it; the file. Raises StartError."""
        text = [part async for part in lines(self._policy, int(time.time()))]
        numbers = {"Requests": self._pump.requests, "Connections": len(self._pump.connections.open)}
        text.append(totals(self._policy, **numbers, **{"Log lines dropped": self._log.dropped}))
        try:
            path = await trio.to_thread.run_sync(self._state.replace, "cache.dump", "".join(text))
        except StartError as error:
            self._log.error("the cache cannot be dumped", reason=error)
            raise
        self._log.info("the cache is dumped", file=path)
        return path


async def lines(policy: Policy, now: int) -> AsyncIterator[str]:
    """The dump, a slice of accounts at a time, so that other tasks run in between."""
    yield HEADER
    for meter in policy.meters:
        async for counters in walk(list(meter.counters.values())):
            yield "".join([_line(counter, policy.pending, now) for counter in counters])


def _line(counter: Counter, pending: Pending, now: int) -> str:
    limit = counter.limit
    used, again = counter.used, counter.expiry
    if limit.sliding:
        used, again = used_at(counter, now), admits_again(counter)
    reset = NOW if limit.sliding and again <= now else limit.period.describe(again)
    unstored = sum(pending.by_window(counter).values())
    fields = (spell(counter.key), limit.name, counter.quota, used, reset, unstored)
    return "\t:\t".join(map(str, fields)) + "\n"


def totals(policy: Policy, **numbers: int) -> str:
    """The last line: how many accounts, recipients not stored and transactions there are, then `numbers`."""
    accounts = sum(len(meter.counters) for meter in policy.meters)
    counts = {
        "Accounts": accounts,
        "Not stored": policy.pending.recipients,
        "Transactions": len(policy.memo),
        **numbers,
    }
    return ", ".join(f"{name}: {count}" for name, count in counts.items()) + "\n"
