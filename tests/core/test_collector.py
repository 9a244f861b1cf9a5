"""Accounts and transactions, of which there may be a million, are not the garbage collector's business."""

import gc
import sys
import weakref

from ratelimitd.core.counters import Counter, Meter
from ratelimitd.core.memo import Transaction
from ratelimitd.core.standing import apart
from tests.core.build import NOON, limit, policy, row, rules

DICTS_ARE_TRACKED = sys.version_info >= (3, 14)
"""From then on a dict is, whatever is in it. That of the accounts is frozen: tests/daemon/test_freeze.py."""


class Watched(Meter):
    """A meter whose end can be seen."""


def test_the_collector_walks_no_accounts() -> None:
    meter = Meter(limit(50))
    counter = meter.assume("alice", NOON)
    assert not gc.is_tracked(counter)
    assert not gc.is_tracked(meter.counters) or DICTS_ARE_TRACKED


def test_the_collector_walks_no_transactions() -> None:
    transaction = Transaction()
    for recipient in ("bob@example.org", "carol@example.org"):
        transaction.admit_recipient(recipient)
    assert not gc.is_tracked(transaction)
    assert not gc.is_tracked(transaction.earlier) or DICTS_ARE_TRACKED


def test_counters_are_told_apart_by_identity() -> None:
    meter = Meter(limit(50))
    assert len({Counter(meter, "alice", NOON, 50), Counter(meter, "alice", NOON, 50)}) == 2


def test_a_counter_that_is_kept_nowhere_leaves_nothing_behind() -> None:
    meter = Watched(limit(50))
    for stored in (None, row("alice", used=7)):
        counter = apart(meter, "alice", stored, NOON)
        assert counter.used == (7 if stored else 0)
    assert meter.counters == {}
    end = weakref.ref(meter)
    gc.disable()
    try:
        del meter, counter
        assert end() is None
    finally:
        gc.enable()


def test_a_limit_that_is_removed_leaves_no_accounts_behind() -> None:
    asked = policy(limit(50), limit(9, name="removed"))
    kept, removed = asked.meters
    for meter in (kept, removed):
        meter.assume("alice", NOON)
    asked.configure([kept.limit], rules(), NOON)
    assert list(kept.counters) == ["alice"]
    asked.forget_removed()
    assert removed.counters == {}
