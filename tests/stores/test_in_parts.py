"""What a row under a sliding limit says of its use: the sum of its parts, or a number that somebody has set."""

import pytest

from ratelimitd.core.rows import Account, Delta, Grant, Known
from ratelimitd.stores import Store
from ratelimitd.stores.history import Kept, settling
from ratelimitd.stores.survey import Rename
from tests.core.build import row as build_row
from tests.stores.backends import Backend, flush, row
from tests.stores.test_history import HOUR, KEPT, NOW, PART, other_node, part, parts, written

DAY = 86_400


def window(used: int, end: int, *, now: int = NOW, apart_s: int = HOUR // 2) -> Delta:
    """Recipients of a fixed window that ends so many seconds from NOW: the limit slides no more."""
    return Delta("hourly", "alice", NOW + end, used, 10, 10, NOW + 2 * DAY, apart_s, HOUR, now)


@pytest.fixture
def sliding(store: Store) -> Store:
    store.configure(10, KEPT)
    return store


async def test_a_row_of_parts_says_so_and_one_of_a_fixed_window_does_not(sliding: Store) -> None:
    (one,) = (await flush(sliding, [part("alice", 3, HOUR)])).rows
    assert (one.used, one.in_parts, one.counts_in_parts) == (3, 3, True)
    (other,) = (await flush(sliding, [window(2, HOUR)])).rows
    assert (other.in_parts, other.counts_in_parts, other.parts) == (None, False, ())


@pytest.mark.parametrize("end", [PART, HOUR, HOUR + 40 * PART])
async def test_a_window_that_is_fixed_from_now_on_has_what_the_parts_had(
    backend: Backend, sliding: Store, end: int
) -> None:
    await flush(sliding, [part("alice", 1, PART), part("alice", 3, HOUR)])
    (after,) = (await flush(sliding, [window(2, end)])).rows
    assert (after.used, after.expiry, after.in_parts) == (6, NOW + end, None)
    (again,) = (await flush(sliding, [part("alice", 1, HOUR - PART)])).rows
    assert (again.used, again.parts) == (7, tuple(sorted(parts((HOUR - PART, 1), (end, 6)))))
    assert sorted(written(backend, "used")) == [("1",), ("6",)]


async def test_a_window_that_begins_once_all_parts_have_left_has_nothing_of_them(sliding: Store) -> None:
    await flush(sliding, [part("alice", 3, PART)])
    (after,) = (await flush(sliding, [window(2, HOUR, now=NOW + PART)])).rows
    assert (after.used, after.expiry) == (2, NOW + HOUR)


async def test_what_is_late_of_a_fixed_window_is_not_added_to_parts_that_run(sliding: Store) -> None:
    await flush(sliding, [part("alice", 3, HOUR)])
    (after,) = (await flush(sliding, [window(2, -PART)])).rows
    assert (after.used, after.expiry) == (3, NOW + HOUR)


async def test_a_use_that_somebody_sets_counts_until_the_row_ends_and_the_parts_no_more(
    backend: Backend, sliding: Store
) -> None:
    await flush(sliding, [part("alice", 3, PART), part("alice", 4, HOUR)])
    backend.sql("UPDATE ratelimit SET used = 5")
    found = await row(sliding, "alice", "hourly", NOW)
    assert (found.used, found.counts_in_parts, found.parts) == (5, False, ())
    (after,) = (await flush(sliding, [part("alice", 1, HOUR + PART)])).rows
    assert (after.used, after.in_parts, after.parts) == (6, 6, parts((HOUR, 5), (HOUR + PART, 1)))
    assert sorted(written(backend, "used")) == [("1",), ("5",)]


async def test_the_clock_of_the_node_that_asks_says_what_has_left(backend: Backend, sliding: Store) -> None:
    """Another's is ahead; and so is the end of the row that it writes."""
    other = await other_node(backend)
    await flush(sliding, [part("alice", 3, 10), part("alice", 2, HOUR)])
    (ahead,) = (await flush(other, [part("alice", 1, HOUR + PART + 30, now=NOW + 30)], node="other")).rows
    assert ahead.parts == parts((HOUR, 2), (HOUR + PART + 30, 1))
    found = await row(sliding, "alice", "hourly", NOW)
    assert found.parts == parts((10, 3), (HOUR, 2), (HOUR + PART + 30, 1))
    (after,) = (await flush(sliding, [part("alice", 1, HOUR)])).rows
    assert after.used == 7
    await other.close()


async def test_where_all_has_left_by_one_clock_what_counts_by_another_still_does(
    backend: Backend, sliding: Store
) -> None:
    await flush(sliding, [part("alice", 3, 10)])
    other = await other_node(backend)
    (ahead,) = (await flush(other, [part("alice", 2, 20, now=NOW + 30)], node="other")).rows
    assert (ahead.used, ahead.in_parts) == (0, 0)
    assert (await row(sliding, "alice", "hourly", NOW)).parts == parts((10, 3), (20, 2))
    await other.close()


async def test_parts_that_leave_after_the_next_window_do_not_count_here_but_may_elsewhere(
    backend: Backend, sliding: Store
) -> None:
    """The period was longer, or is for a node that was not reloaded yet; or a clock was ahead."""
    await flush(sliding, [part("alice", 3, HOUR), part("alice", 4, 3 * HOUR)._replace(latest=NOW + DAY)])
    (after,) = (await flush(sliding, [part("alice", 1, HOUR)])).rows
    assert (after.used, after.expiry, after.parts) == (4, NOW + 3 * HOUR, parts((HOUR, 4)))
    (longer,) = (await flush(sliding, [part("alice", 1, HOUR)._replace(latest=NOW + DAY)])).rows
    assert (longer.used, longer.parts) == (9, parts((HOUR, 5), (3 * HOUR, 4)))
    assert sorted(written(backend, "used")) == [("4",), ("5",)]


async def test_after_a_reset_no_part_is_left_however_late_it_was_to_leave(backend: Backend, sliding: Store) -> None:
    await flush(sliding, [part("alice", 3, HOUR), part("alice", 4, 3 * HOUR)._replace(latest=NOW + DAY)])
    await sliding.reset([Account("hourly", "alice")], NOW)
    for used in (1, 2, 3):
        (after,) = (await flush(sliding, [part("alice", 1, PART)])).rows
        assert (after.used, after.parts) == (used, parts((PART, used)))
    assert written(backend, "used") == [("3",)]


@pytest.mark.parametrize("nonsense", ["'some'", "'-5'"])
async def test_nonsense_in_the_column_is_replaced_at_the_next_charge_of_a_fixed_limit(
    backend: Backend, store: Store, nonsense: str
) -> None:
    await flush(store, [window(3, HOUR)])
    if backend.name != "sqlite":
        backend.alter(in_parts="VARCHAR(20)")
    backend.sql(f"UPDATE ratelimit SET in_parts = {nonsense}")
    (after,) = (await flush(store, [window(1, HOUR)])).rows
    assert (after.used, after.in_parts) == (4, None)


async def test_nonsense_in_the_column_is_replaced_at_the_next_charge(backend: Backend, sliding: Store) -> None:
    await flush(sliding, [part("alice", 3, HOUR)])
    if backend.name != "sqlite":
        backend.alter(in_parts="VARCHAR(20)")
    backend.sql("UPDATE ratelimit SET in_parts = 'some'")
    assert await sliding.lookup([Account("hourly", "alice")], NOW) == []
    (after,) = (await flush(sliding, [part("alice", 1, HOUR)])).rows
    assert (after.used, after.in_parts, after.parts) == (4, 4, parts((HOUR, 4)))


@pytest.mark.parametrize("whose", ["both slid", "one was fixed", "one was set"])
async def test_rows_that_become_one_count_all_that_either_did(backend: Backend, sliding: Store, whose: str) -> None:
    mine = window(2, HOUR) if whose == "one was fixed" else part("alice", 2, HOUR)
    await flush(sliding, [part("Alice", 3, PART), mine])
    if whose == "one was set":
        backend.sql("UPDATE ratelimit SET used = 5 WHERE sender = 'Alice'")
    other = 5 if whose == "one was set" else 3
    (found,) = await sliding.adopt([Rename("hourly", "Alice", "alice", 10, 1, NOW + 3 * HOUR)], NOW)
    assert (found.used, found.counts_in_parts) == (2 + other, whose == "both slid")
    (after,) = (await flush(sliding, [part("alice", 1, HOUR)])).rows
    assert after.used == 3 + other


async def test_a_quota_that_is_given_leaves_what_counts_also_where_its_end_is_too_far(sliding: Store) -> None:
    """The period is shorter now."""
    await flush(sliding, [part("alice", 3, HOUR), part("alice", 4, 3 * HOUR)._replace(latest=NOW + DAY)])
    grant = Grant("hourly", "alice", 50, 10, True, NOW + HOUR, NOW + 2 * HOUR)
    (granted,) = await sliding.grant(grant, NOW)
    assert (granted.quota, granted.used, granted.parts) == (50, 7, parts((HOUR, 3), (3 * HOUR, 4)))
    (after,) = (await flush(sliding, [part("alice", 1, HOUR)])).rows
    assert (after.quota, after.used) == (50, 4)


async def test_a_quota_that_is_given_when_all_has_left_begins_at_0(sliding: Store) -> None:
    await flush(sliding, [part("alice", 3, PART)])
    grant = Grant("hourly", "alice", 50, 10, False, NOW + HOUR + PART, NOW + 3 * HOUR)
    (granted,) = await sliding.grant(grant, NOW + PART)
    assert (granted.quota, granted.used, granted.in_parts, granted.expiry) == (50, 0, None, NOW + HOUR + PART)


async def test_parts_are_read_of_a_row_that_counts_in_them_whatever_the_limit_is_now(
    backend: Backend, sliding: Store
) -> None:
    await flush(sliding, [part("alice", 3, PART), part("alice", 4, HOUR)])
    fixed = await other_node(backend, Kept())
    found = await row(fixed, "alice", "hourly", NOW + PART)
    assert (found.used, found.parts) == (7, parts((HOUR, 4)))
    await fixed.close()


@pytest.mark.parametrize(
    "edit",
    ["used = 9", f"expiry = {NOW + 200}", f"used = 7, expiry = {NOW + 7200}"],
    ids=["used", "expiry", "both"],
)
async def test_what_somebody_sets_counts_until_the_row_ends(backend: Backend, sliding: Store, edit: str) -> None:
    await flush(sliding, [part("alice", 3, PART), part("alice", 4, HOUR)])
    backend.sql(f"UPDATE ratelimit SET {edit}")
    found = await row(sliding, "alice", "hourly", NOW)
    assert (found.counts_in_parts, found.parts) == (False, ())


@pytest.mark.parametrize("days", [0, 30])
async def test_the_history_adds_up_where_a_limit_slides_no_more_and_again(
    backend: Backend, store: Store, days: int
) -> None:
    store.configure(10, Kept(days, {"hourly"}))
    await flush(store, [part("alice", 1, -PART), part("alice", 2, PART), part("alice", 3, HOUR)])
    store.configure(10, Kept(days))
    await flush(store, [window(4, HOUR)])
    (joined,) = (await flush(store, [window(5, HOUR)])).rows
    assert (joined.used, joined.expiry) == (14, NOW + HOUR)
    store.configure(10, Kept(days, {"hourly"}))
    (again,) = (await flush(store, [part("alice", 6, HOUR + PART)])).rows
    assert (again.used, again.parts) == (20, parts((HOUR, 14), (HOUR + PART, 6)))
    assert sum(int(used) for (used,) in written(backend, "used")) == 21


async def test_rows_are_settled_for_good_in_the_present_window_of_a_limit_that_slides_no_more(sliding: Store) -> None:
    await flush(sliding, [part("alice", 1, PART), part("alice", 3, HOUR), part("bob", 2, HOUR)])
    sliding.configure(10, Kept())
    present = window(0, 20 * PART, now=NOW + PART)._replace(key="")
    last = await sliding.settle(present, 0)
    assert last
    assert await sliding.settle(present, last) == 0
    for key, used in (("alice", 3), ("bob", 2)):
        found = await row(sliding, key, "hourly", NOW + 30 * PART)
        assert (found.used, found.expiry, found.in_parts) == (used, NOW + 20 * PART, None)


@pytest.mark.parametrize("days", [0, 30])
async def test_what_leaves_too_late_never_counts_once_it_is_settled(backend: Backend, store: Store, days: int) -> None:
    store.configure(10, Kept(days, {"hourly"}))
    await flush(store, [part("alice", 3, HOUR), part("alice", 4, 3 * HOUR), part("bob", 2, 3 * HOUR)])
    present = part("", 0, 0)._replace(expiry=0, latest=NOW + 2 * HOUR, now=NOW)
    assert await store.settle(present, await store.settle(present, 0)) == 0
    found = await row(store, "alice", "hourly", NOW)
    assert (found.used, found.in_parts, found.parts) == (3, 3, parts((HOUR, 3)))
    late = [part(key, 1, 3 * HOUR + PART)._replace(now=NOW + HOUR, latest=NOW + DAY) for key in ("alice", "bob")]
    assert [row.used for row in (await flush(store, late)).rows] == [1, 1]
    assert sum(int(used) for (used,) in written(backend, "used")) == (11 if days else 2 + 3)


async def test_the_history_of_what_is_settled_stays(backend: Backend, store: Store) -> None:
    """A part leaves at that very second, another later; of another account a fixed window ends too late."""
    store.configure(10, Kept(30, {"hourly"}))
    await flush(store, [part("alice", 3, PART), part("alice", 4, 3 * HOUR)])
    store.configure(10, Kept(30))
    await flush(store, [window(7, 20 * HOUR)._replace(key="bob")])
    store.configure(10, Kept(30, {"hourly"}))
    await store.settle(part("", 0, 0)._replace(expiry=0, latest=NOW + 2 * HOUR, now=NOW + PART), 0)
    for key, used in (("alice", 0), ("bob", 0)):
        found = await row(store, key, "hourly", NOW + PART)
        assert found.used == used
    assert sorted(written(backend)) == [
        ("alice", "hourly", f"{NOW + PART}", "7"),
        ("bob", "hourly", f"{NOW + PART}", "7"),
    ]


async def test_the_history_of_a_limit_that_slides_no_more_and_again_stays(backend: Backend, store: Store) -> None:
    store.configure(10, Kept(30, {"hourly"}))
    await flush(store, [part("alice", 9, 20 * HOUR)])
    store.configure(10, Kept(30))
    await store.settle(window(0, HOUR)._replace(key="", latest=NOW + 2 * HOUR), 0)
    store.configure(10, Kept(30, {"hourly"}))
    await flush(store, [part("alice", 1, 21 * HOUR)._replace(latest=NOW + 2 * DAY)])
    assert sum(int(used) for (used,) in written(backend, "used")) == 10


def test_rows_are_settled_by_a_clock_that_is_not_behind_them() -> None:
    changed = {"before": NOW - 1, "within clocks' difference": NOW + HOUR, "later": NOW + HOUR + 1, "unknown": 0}
    rows = [build_row(key, name="hourly")._replace(updated=at) for key, at in changed.items()]
    present = part("", 0, 0)._replace(expiry=0, now=NOW)
    settled = [key for chunk in settling(present, rows).chunks() for key in chunk.deltas]
    assert settled == ["before", "within clocks' difference"]


async def test_a_clock_that_is_behind_settles_nothing(sliding: Store) -> None:
    await flush(sliding, [part("alice", 3, HOUR)])
    present = part("", 0, 0)._replace(expiry=0, latest=10, now=1)
    await sliding.settle(present, 0)
    found = await row(sliding, "alice", "hourly", NOW)
    assert (found.used, found.parts) == (3, parts((HOUR, 3)))


async def test_what_is_reset_ends_with_no_window_of_another_kind(sliding: Store) -> None:
    await flush(sliding, [part("alice", 3, HOUR)])
    (found,) = await sliding.reset([Account("hourly", "alice")], NOW)
    assert (found.used, found.expiry) == (0, 0)


async def test_what_memory_knows_is_put_back_into_a_row_that_counts_in_parts_though_the_limit_is_fixed(
    sliding: Store,
) -> None:
    await flush(sliding, [part("alice", 3, HOUR)])
    for _ in range(2):
        await sliding.restore([Known(window(9, HOUR), False)], NOW)
        found = await row(sliding, "alice", "hourly", NOW)
        assert (found.used, found.expiry, found.in_parts) == (9, NOW + HOUR, None)


@pytest.mark.parametrize("used", ["nothing", "something that has left"])
async def test_a_row_of_an_account_in_another_case_of_letters_leaves_its_parts(
    backend: Backend, sliding: Store, used: str
) -> None:
    """A panel has made it."""
    await flush(sliding, [part("alice", 8, PART), part("alice", 1, HOUR)])
    backend.sql("INSERT INTO ratelimit (sender, limit_name, quota, persist) VALUES ('Alice', 'hourly', 50, 1)")
    if used != "nothing":
        backend.sql(f"UPDATE ratelimit SET used = 5, expiry = {NOW - 10} WHERE sender = 'Alice'")
    (found,) = await sliding.adopt([Rename("hourly", "Alice", "alice", 10, 1, NOW + 3 * HOUR)], NOW + PART)
    assert (found.quota, found.used, found.parts) == (50, 1, parts((HOUR, 1)))
