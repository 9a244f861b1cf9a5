"""What an account under a sliding limit takes in memory: the core alone, in this process, with flushes as they are."""

import os
import random
from array import array
from pathlib import Path

from ratelimitd.core.counters import Meter
from ratelimitd.core.pending import Pending
from ratelimitd.core.standing import each_part
from tests.core.build import DAY_S, NOON, charge, limit, policy, row

BATCH = 10_000
MAILS = 10


def bytes_each(accounts: int) -> float:
    """Memory of each of so many accounts at the end of a day, in which each has sent MAILS at random times."""
    asked = policy(limit(1000, period="daily", window="sliding"))
    (meter,) = asked.meters
    sent = array("I", range(accounts)) * MAILS
    random.Random(0).shuffle(sent)
    before = _resident_bytes()
    for number, account in enumerate(sent):
        at = NOON + number * DAY_S // len(sent)
        key = f"user{account}@d{account % 97}.example.com"
        charge(asked.pending, meter.find(key, at) or meter.accept(key, None, 0, at), 1)
        if len(asked.pending.open.deltas) >= BATCH:
            _flush(asked.pending, meter, at)
    assert len(meter.counters) == accounts
    return (_resident_bytes() - before) / accounts


def _flush(pending: Pending, meter: Meter, now: int) -> None:
    """Store all, and read it back."""
    charged = {counter.key for counter in pending.open.deltas}
    number = pending.open.number
    pending.close(number + 1)
    pending.stored(number)
    for key in charged:
        counter = meter.counters[key]
        parts = tuple(each_part(counter))
        stored = row(key, used=counter.used, expiry=counter.ends, name=meter.limit.name)._replace(
            in_parts=counter.used, parts=parts
        )
        meter.accept(key, stored, 0, now)


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
