"""The cache dump: what SIGUSR1 writes to `state_dir/cache.dump`, in the manner of the Perl daemon's printshm."""

from collections.abc import AsyncIterator

from ratelimitd.core.counters import Counter
from ratelimitd.core.pending import Pending
from ratelimitd.core.policy import Policy
from ratelimitd.sync.walk import walk
from ratelimitd.text import escape

HEADER = "Key\t:\tLimit\t:\tQuota\t:\tUsed\t:\tReset\t:\tNot stored\n"


async def lines(policy: Policy) -> AsyncIterator[str]:
    """The dump, a slice of accounts at a time, so that other tasks run in between."""
    yield HEADER
    for meter in policy.meters:
        async for counters in walk(list(meter.counters.values())):
            yield "".join([_line(counter, policy.pending) for counter in counters])


def _line(counter: Counter, pending: Pending) -> str:
    limit = counter.limit
    reset = limit.period.describe(counter.expiry)
    fields = (escape(counter.key), limit.name, counter.quota, counter.used, reset, pending.of(counter))
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
