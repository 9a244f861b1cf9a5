"""The bound on accounts in memory: what is stored may be forgotten, what is not stored never."""

from hypothesis import given
from hypothesis import strategies as st

from ratelimitd.core.counters import Pending, Table
from tests.core.build import NOON, charge, limit


def table_of(count: int) -> Table:
    table = Table(limit(10))
    for number in range(count):
        table.accept(f"user{number}@example.com", None, 0, NOON)
    return table


@given(st.integers(0, 20), st.integers(0, 25), st.sets(st.integers(0, 19)))
def test_what_is_not_stored_is_never_forgotten(count: int, at_most: int, charged: set[int]) -> None:
    table, pending = table_of(count), Pending()
    for number in charged & set(range(count)):
        charge(pending, table.counters[f"user{number}@example.com"], 1)
    evicted = table.evict(at_most, pending)
    assert evicted == min(at_most, count - len(charged & set(range(count))))
    assert len(table.counters) == count - evicted
    assert {f"user{number}@example.com" for number in charged & set(range(count))} <= set(table.counters)


def test_the_accounts_known_longest_go_first() -> None:
    table = table_of(3)
    table.evict(2, Pending())
    assert list(table.counters) == ["user2@example.com"]


def test_a_closed_segment_that_is_not_stored_yet_holds_its_accounts() -> None:
    table, pending = table_of(1), Pending()
    charge(pending, table.counters["user0@example.com"], 1)
    pending.close(2)
    assert table.evict(1, pending) == 0
    pending.stored(1)
    assert table.evict(1, pending) == 1
