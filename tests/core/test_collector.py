"""Accounts and transactions, of which there may be a million, are not the garbage collector's business."""

import gc
import sys
import weakref

from ratelimitd.core.counters import Counter, Meter
from ratelimitd.core.memo import Transaction
from ratelimitd.core.standing import apart
from tests.core.build import MIDNIGHT, NOON, charge, limit, policy, row, rules

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


def test_an_account_takes_one_counter_of_64_bytes_and_what_all_have_in_common_is_there_once() -> None:
    asked = policy(limit(50))
    (meter,) = asked.meters
    for name in ("alice", "bob"):
        end = int(str(MIDNIGHT))  # of a row that was read: another object
        charge(asked.pending, meter.accept(name, row(name, used=7, expiry=end), 0, NOON), 1)
    alice, bob = meter.counters.values()
    assert sys.getsizeof(alice) <= 64
    assert alice.expiry is bob.expiry is alice.valid_until
    assert alice.quota is bob.quota


def test_what_a_meter_knows_of_an_account_beside_its_counter_goes_with_it() -> None:
    asked = policy(limit(50, period="hourly", window="sliding"))
    asked.pending.begin(1, "node")
    (meter,) = asked.meters
    for name in ("alice", "bob", "carol"):
        counter = meter.accept(name, None, 0, NOON)
        charge(asked.pending, counter, 1)
        later = meter.find(name, NOON + 600)
        assert later is not None
        assert later.earlier == (counter,)
    meter.accept("dave", None, 0, NOON)
    asked.configure([limit(50, period="hourly")], rules(), NOON + 600)
    (fixed,) = asked.meters
    assert (len(fixed.earlier), fixed.new) == (3, {"alice", "bob", "carol", "dave"})
    asked.pending.close(2)
    asked.pending.stored(1)
    assert fixed.evict(2, asked.pending) == 2
    assert fixed.find("carol", NOON + 3 * 3600) is not None
    fixed.drop_ended(["carol", "dave"], NOON + 9 * 3600, asked.pending)
    assert (fixed.counters, fixed.earlier, fixed.new, meter.earlier, meter.new) == ({}, {}, set(), {}, set())
