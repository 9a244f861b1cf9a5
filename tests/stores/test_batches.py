"""The order in which deltas are written, and that making it never takes long in one step."""

import gc
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimitd.core.rows import Delta
from ratelimitd.stores.batches import SLICE, batches

deltas = st.builds(
    Delta, st.sampled_from(["a", "b"]), st.text(max_size=3), st.integers(1, 3), st.just(1), st.just(9), st.just(9),
    st.integers(7, 8),
)  # fmt: skip


@given(st.lists(deltas, max_size=80), st.integers(1, 9))
def test_every_delta_comes_once_in_the_order_of_limit_and_key(made: list[Delta], size: int) -> None:
    found = [batch for batch in batches(made, size) if batch]
    assert sorted(delta for batch in found for delta in batch) == sorted(made)
    assert all(len(batch) <= size for batch in found)
    assert all(len({(delta.limit, delta.latest) for delta in batch}) == 1 for batch in found)
    order = [(batch[0].limit, batch[0].latest, delta.key) for batch in found for delta in batch]
    assert order == sorted(order)


def test_more_than_a_slice_is_in_order() -> None:
    count = 3 * SLICE + 7
    made = [Delta("daily", f"user{n * 7919 % count:05}", 1, 1, 9, 9) for n in range(count)]
    found = [delta.key for batch in batches(made, 250) for delta in batch]
    assert found == [f"user{n:05}" for n in range(count)]


@pytest.mark.alone
def test_others_have_their_turn_while_fifty_thousand_deltas_are_put_in_order(
    record_property: Callable[[str, object], None],
) -> None:
    """One sort of all holds the interpreter for 50 ms; the pauses between batches are where a loop goes on."""
    made = [Delta("daily", f"user{n * 7919 % 50_000:05}@example.com", 1, 1, 9, 9) for n in range(50_000)]
    longest = []
    for _ in range(3):
        steps = []
        gc.collect()
        last = time.thread_time()
        for _ in batches(iter(made), 250):
            now = time.thread_time()
            steps.append(now - last)
            last = time.thread_time()
        longest.append(max(steps))
    print(f"50,000 deltas: longest step {min(longest) * 1000:.1f} ms")
    record_property("longest_step_ms", min(longest) * 1000)
    assert min(longest) < 0.01
