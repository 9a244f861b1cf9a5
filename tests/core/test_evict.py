"""The bound on accounts in memory: what is stored may be forgotten, what is not stored never."""

from hypothesis import given
from hypothesis import strategies as st

from ratelimitd.core.counters import Meter
from ratelimitd.core.pending import Pending
from tests.core.build import NOON, charge, limit


def meter_of(count: int) -> Meter:
    meter = Meter(limit(10))
    for number in range(count):
        meter.accept(f"user{number}@example.com", None, 0, NOON)
    return meter


@given(st.integers(0, 20), st.integers(0, 25), st.sets(st.integers(0, 19)))
def test_what_is_not_stored_is_never_forgotten(count: int, at_most: int, charged: set[int]) -> None:
    meter, pending = meter_of(count), Pending()
    for number in charged & set(range(count)):
        charge(pending, meter.counters[f"user{number}@example.com"], 1)
    evicted = meter.evict(at_most, pending)
    assert evicted == min(at_most, count - len(charged & set(range(count))))
    assert len(meter.counters) == count - evicted
    assert {f"user{number}@example.com" for number in charged & set(range(count))} <= set(meter.counters)


def test_the_accounts_known_longest_go_first() -> None:
    meter = meter_of(3)
    meter.evict(2, Pending())
    assert list(meter.counters) == ["user2@example.com"]


def test_a_closed_segment_that_is_not_stored_yet_holds_its_accounts() -> None:
    meter, pending = meter_of(1), Pending()
    charge(pending, meter.counters["user0@example.com"], 1)
    pending.close(2)
    assert meter.evict(1, pending) == 0
    pending.stored(1)
    assert meter.evict(1, pending) == 1
