"""What a daemon that was killed had answered but not stored: from the journal's segments back into memory."""

from collections.abc import Sequence
from dataclasses import replace

from ratelimitd.charges import Charges
from ratelimitd.counters import Counter, Knowledge, Pending, Segment, Table
from ratelimitd.journal import Recovered, Window
from ratelimitd.limits import UNLIMITED


def restore(
    segments: Sequence[Recovered],
    tables: Sequence[Table],
    pending: Pending,
    charges: Charges,
    max_transactions: int,
) -> int:
    """Put the segments back as closed ones, oldest first, and their latest transactions into the memo.

    Gives the number of records. Their accounts are looked up in the store before they are decided on.
    """
    by_name = {table.limit.name: table for table in tables}
    counters: dict[Window, Counter] = {}
    for segment in segments:
        deltas: dict[Counter, int] = {}
        for window, recipients in segment.totals().items():
            counter = counters.get(window)
            if counter is None:
                limit, expiry, key = window
                if limit not in by_name:  # configured no more: its counts are stored, and never asked for
                    by_name[limit] = Table(replace(tables[0].limit, name=limit, quota=UNLIMITED, quotas={}))
                counter = counters[window] = _counter(by_name[limit], key, expiry)
            counter.used += recipients
            deltas[counter] = deltas.get(counter, 0) + recipients
        pending.closed.append(Segment(segment.number, deltas))
    records = sum(len(segment.records) for segment in segments)
    skip = records - max_transactions
    for segment in segments:
        segment.remember(charges, skip)
        skip -= len(segment.records)
    return records


def _counter(table: Table, key: str, expiry: int) -> Counter:
    counter = Counter(table, key, expiry, table.limit.configured_quota(key))
    counter.knowledge = Knowledge.UNREAD
    current = table.counters.get(key)
    if current is None or current.expiry < expiry:
        table.counters[key] = counter
    return counter
