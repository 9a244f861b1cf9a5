"""The cache dump: what SIGUSR1 writes to `state_dir/cache.dump`, in the manner of the Perl daemon's printshm."""

from collections.abc import AsyncIterator

import trio

from ratelimitd.core.counters import Counter, Pending
from ratelimitd.core.policy import Policy
from ratelimitd.log.log import escape

HEADER = "Key\t:\tLimit\t:\tQuota\t:\tUsed\t:\tReset\t:\tNot stored\n"
SLICE = 500


async def lines(policy: Policy) -> AsyncIterator[str]:
    """The dump, a slice of accounts at a time: other tasks have their turn in between."""
    yield HEADER
    for table in policy.tables:
        counters = list(table.counters.values())
        for start in range(0, len(counters), SLICE):
            yield "".join([_line(counter, policy.pending) for counter in counters[start : start + SLICE]])
            await trio.lowlevel.checkpoint()


def _line(counter: Counter, pending: Pending) -> str:
    limit = counter.table.limit
    reset = limit.period.describe(counter.expiry)
    fields = (escape(counter.key), limit.name, counter.quota, counter.used, reset, pending.of(counter))
    return "\t:\t".join(map(str, fields)) + "\n"


def totals(policy: Policy, **numbers: int) -> str:
    """The last line: how many accounts, how much that is not stored, and the numbers given."""
    accounts = sum(len(table.counters) for table in policy.tables)
    counts = {
        "Accounts": accounts,
        "Not stored": policy.pending.recipients,
        "Transactions": len(policy.charges),
        **numbers,
    }
    return ", ".join(f"{name}: {count}" for name, count in counts.items()) + "\n"
