"""What every store does: one suite, and each backend passes it."""

import time

import pytest
import trio

from ratelimitd.core.rows import Account, Delta, Grant, Known, Row
from ratelimitd.keys import normalise
from ratelimitd.stores import MAX_USED, Changes, Cursor, Names, Store
from tests.stores.backends import Backend, closed_after, delta, flush, flush_in_turn, row

SOON, LATER = (int(time.time()) + days * 86400 for days in (1, 2))
"""The end of a window that is running, and of the next."""


async def test_a_fresh_database_gets_its_tables_and_holds_nothing(store: Store) -> None:
    assert await store.lookup([Account("daily", "alice")], 0) == []
    assert await store.recorded("node") == 0


async def test_opening_an_existing_database_keeps_its_rows(backend: Backend, store: Store) -> None:
    await flush(store, [delta("alice", 3)], segment=7)
    again = backend.make()
    await again.open()
    assert (await row(again, "alice")).used == 3
    assert await again.recorded("node") == 7
    await again.close()


async def test_a_new_account_gets_a_row_and_it_is_read_back(store: Store) -> None:
    before = int(time.time()) - 5
    flushed = await flush(store, [delta("alice", 3, expiry=2000, quota=10)])
    (stored,) = flushed.rows
    assert stored._replace(updated=0, seen=None) == Row("daily", "alice", 10, 10, False, 3, 2000, 0)
    assert before <= stored.updated <= time.time() + 5
    assert await store.lookup([Account("daily", "alice")], 0) == [stored]
    assert flushed.rejected == []


async def test_deltas_of_one_window_are_added(store: Store) -> None:
    for used in (3, 4, 5):
        await flush(store, [delta("alice", used)])
    assert (await row(store, "alice")).used == 12


async def test_a_later_window_begins_anew_and_an_ended_one_is_dropped(store: Store) -> None:
    await flush(store, [delta("alice", 5, expiry=2000)])
    await flush(store, [delta("alice", 2, expiry=3000)])
    assert (await row(store, "alice"))[5:7] == (2, 3000)
    await flush(store, [delta("alice", 9, expiry=2000)])
    assert (await row(store, "alice"))[5:7] == (2, 3000)


@pytest.mark.parametrize(
    ("end", "expected"), [(1500, (9, 2000)), (2600, (9, 2600)), (1300, (5, 2000)), (2700, (4, 2700))]
)
async def test_windows_that_end_near_each_other_are_one_and_the_later_end_holds(
    store: Store, end: int, expected: tuple[int, int]
) -> None:
    await flush(store, [delta("alice", 5, expiry=2000)._replace(apart_s=700)])
    await flush(store, [delta("alice", 4, expiry=end)._replace(apart_s=700)])
    assert (await row(store, "alice"))[5:7] == expected


@pytest.mark.parametrize(
    ("now", "end", "expected"),
    [
        (1000, 1001, (9, 2000)),
        (1000, 1300, (9, 2000)),
        (1000, 2700, (9, 2700)),
        (1000, 2701, (9, 2000)),
        (1000, 3399, (9, 2000)),
        (1000, 3400, (4, 3400)),  # the next window of one time zone
        (600, 600, (5, 2000)),
        (500, 600, (5, 2000)),  # the row has the next window
        (500, 601, (9, 2000)),
        (1000, 1000, (5, 2000)),  # over, and more than half a period ago
        (1300, 1301, (9, 2000)),
        (2000, 2699, (9, 2699)),
        (2000, 2700, (4, 2700)),  # the row's is over
    ],
)
async def test_windows_that_both_run_are_one(store: Store, now: int, end: int, expected: tuple[int, int]) -> None:
    """A row's end holds where the other is later by more than half a period: what is used is not carried into it."""
    await flush(store, [delta("alice", 5, expiry=2000)._replace(apart_s=700)])
    await flush(store, [delta("alice", 4, expiry=end)._replace(apart_s=700, overlap_s=1400, now=now)])
    assert (await row(store, "alice"))[5:7] == expected


async def test_a_grant_stays_where_the_same_window_ends_later_elsewhere(store: Store) -> None:
    now = int(time.time())
    await flush(store, [delta("alice", 5, expiry=now + 2000)])
    await store.grant(Grant("daily", "alice", 50, 10, False, now + 2000), now)
    await flush(store, [delta("alice", 4, expiry=now + 2600)._replace(apart_s=700)])
    stored = await row(store, "alice")
    assert (stored.quota_at(now, 10), stored.used) == (50, 9)


@pytest.mark.parametrize("order", [1, -1])
async def test_both_windows_of_an_account_in_one_flush_leave_the_later_one(store: Store, order: int) -> None:
    await flush(store, [delta("alice", 5, expiry=2000), delta("alice", 2, expiry=3000)][::order])
    assert (await row(store, "alice"))[5:7] == (2, 3000)


async def test_a_count_stops_at_the_columns_width(store: Store) -> None:
    await flush(store, [delta("alice", MAX_USED - 1)])
    await flush(store, [delta("alice", 5), delta("bob", MAX_USED + 5)])
    assert (await row(store, "alice")).used == MAX_USED
    assert (await row(store, "bob")).used == MAX_USED


async def test_limits_count_one_account_apart(store: Store) -> None:
    await flush(store, [delta("alice", 1, limit="daily"), delta("alice", 2, limit="hourly", expiry=1000)])
    found = await store.lookup([Account("daily", "alice"), Account("hourly", "alice"), Account("weekly", "alice")], 0)
    assert {(r.limit, r.used) for r in found} == {("daily", 1), ("hourly", 2)}


async def test_many_accounts_are_looked_up_at_once(store: Store) -> None:
    keys = [f"user{n:04}" for n in range(1200)]
    flushed = await flush(store, [delta(key, n + 1) for n, key in enumerate(keys)])
    found = await store.lookup([Account("daily", key) for key in [*keys, "nobody"]], 0)
    assert {r.key: r.used for r in found} == {key: n + 1 for n, key in enumerate(keys)}
    assert sorted(flushed.rows) == sorted(found)


# -- exactly once ---------------------------------------------------------------------------------------------------


async def test_a_segment_that_is_recorded_is_never_stored_again(store: Store) -> None:
    for _ in range(3):
        await flush(store, [delta("alice", 3)], segment=5)
    assert (await row(store, "alice")).used == 3
    assert await store.recorded("node") == 5


async def test_the_recorded_segment_is_what_the_last_flush_says(backend: Backend, store: Store) -> None:
    """Who calls it has judged what was recorded: it may have been written by somebody."""
    await flush(store, [], segment=5)
    backend.sql("UPDATE ratelimit_node SET segment = 99999")
    assert await store.recorded("node") == 99999
    await flush(store, [], segment=6)
    assert await store.recorded("node") == 6


async def test_a_run_is_forgotten_after_two_months_unless_its_segments_are_still_there(
    backend: Backend, store: Store
) -> None:
    for node in ("old", "kept", "new"):
        await flush(store, [delta("alice")], node=node)
    backend.sql("UPDATE ratelimit_node SET updated = '2020-01-02 03:04:05' WHERE node IN ('old', 'kept')")
    await store.forget({"kept"}, int(time.time()))
    assert [await store.recorded(node) for node in ("old", "kept", "new")] == [0, 1, 1]


async def test_a_database_whose_clock_is_ahead_forgets_no_run(backend: Backend, store: Store) -> None:
    """To this machine its last flush was yesterday, whatever the database's clock says now."""
    await flush(store, [delta("alice")], node="other")
    backend.sql("UPDATE ratelimit_node SET updated = '2020-01-02 03:04:05'")
    yesterday = 1_577_934_245 + 86_400
    await store.forget(set(), yesterday)
    assert await store.recorded("other") == 1


# -- what memory knows -------------------------------------------------------------------------------------------------


def known(key: str, used: int, quota: int = 10, *, persist: bool = False, expiry: int = 2000) -> Known:
    return Known(Delta("daily", key, expiry, used, quota, 10), persist)


async def test_what_is_known_is_the_least_that_a_row_holds(store: Store) -> None:
    await flush(store, [delta("less", 3), delta("more", 30), delta("before", 9, expiry=1500)])
    for _ in range(2):
        await store.restore([known(key, 20) for key in ("less", "more", "before", "none")], 1000)
    found = {key: await row(store, key) for key in ("less", "more", "before", "none")}
    assert {key: (r.used, r.expiry) for key, r in found.items()} == {
        "less": (20, 2000), "more": (30, 2000), "before": (20, 2000), "none": (20, 2000),
    }  # fmt: skip


@pytest.mark.parametrize("there", ["nothing", "configured", "granted", "persistent"])
@pytest.mark.parametrize("what", [(10, False), (50, False), (60, True)])
async def test_the_quota_that_is_known_replaces_what_is_there(store: Store, there: str, what: tuple[int, bool]) -> None:
    if there != "nothing":
        await flush(store, [delta("alice", 3, expiry=SOON)])
    if there in ("granted", "persistent"):
        await store.grant(Grant("daily", "alice", 70, 10, there == "persistent", SOON), 1000)
    quota, persist = what
    for _ in range(2):
        await store.restore([known("alice", 5, quota, persist=persist, expiry=SOON)], 1000)
    stored = await row(store, "alice")
    assert (stored.used, stored.quota_at(1000, 10), stored.persist) == (5, quota, persist)


@pytest.mark.parametrize("persist", [0, 1])
async def test_a_quota_that_was_given_since_the_row_was_seen_is_newer_than_what_is_known(
    backend: Backend, store: Store, persist: int
) -> None:
    await flush(store, [delta("alice", 3, expiry=SOON)])
    backend.sql(f"UPDATE ratelimit SET quota = 70, persist = {persist}")
    for _ in range(2):
        await store.restore([known("alice", 3, 50, persist=True, expiry=SOON)], 1000)
    await store.restore([known("alice", 5, 50, persist=True, expiry=SOON)], 1000)
    stored = await row(store, "alice")
    assert stored.used == 5
    assert (stored.quota_at(1000, 10), stored.persist) == (70, bool(persist))


async def test_nodes_that_restore_the_same_accounts_at_once_double_nothing(backend: Backend, store: Store) -> None:
    async def restore() -> None:
        async with closed_after(backend.make()) as own:
            await own.open()
            await own.restore([known(f"user{n:03}", 7) for n in range(600)], 1000)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(restore)
    rows = await store.lookup([Account("daily", f"user{n:03}") for n in range(600)], 0)
    assert {r.used for r in rows} == {7}
    assert len(rows) == 600


async def test_nodes_are_recorded_apart_and_their_deltas_add_up(store: Store) -> None:
    await flush(store, [delta("alice", 1)], node="a", segment=3)
    await flush(store, [delta("alice", 2)], node="b", segment=1)
    assert (await store.recorded("a"), await store.recorded("b")) == (3, 1)
    assert (await row(store, "alice")).used == 3


async def test_merge_is_told_the_recorded_segment(store: Store) -> None:
    told: list[int] = []

    def merge(recorded: int) -> list[Delta]:
        told.append(recorded)
        return []

    await store.flush("node", 4, merge)
    await store.flush("node", 6, merge)
    assert told == [0, 4]


class Interrupted(Exception):
    """What is wrong with a merge."""


async def test_an_error_of_merge_passes_through_and_nothing_is_stored(store: Store) -> None:
    def merge(recorded: int) -> list[Delta]:
        raise Interrupted

    with pytest.raises(Interrupted):
        await store.flush("node", 9, merge)
    assert await store.recorded("node") == 0
    await flush(store, [delta("alice")])
    assert (await row(store, "alice")).used == 1


async def test_a_merge_that_fails_half_way_stores_nothing(store: Store) -> None:
    def merge(recorded: int) -> list[Delta]:
        def deltas() -> list[Delta]:
            raise Interrupted

        return [delta("alice"), *deltas()]

    with pytest.raises(Interrupted):
        await store.flush("node", 9, merge)
    assert await store.lookup([Account("daily", "alice")], 0) == []


async def test_stores_flush_the_same_accounts_at_once_and_the_sum_is_exact(backend: Backend, store: Store) -> None:
    async def node(name: str) -> None:
        async with closed_after(backend.make()) as own:
            await own.open()
            for segment in range(1, 11):
                await flush_in_turn(own, [delta(f"user{n:03}") for n in range(60)], name, segment)

    async with trio.open_nursery() as nursery:
        for name in ("a", "b", "c"):
            nursery.start_soon(node, name)
    rows = await store.lookup([Account("daily", f"user{n:03}") for n in range(60)], 0)
    assert {r.used for r in rows} == {30}
    assert len(rows) == 60


async def test_lookups_go_on_during_a_flush(backend: Backend, store: Store) -> None:
    await flush(store, [delta("alice", 3)])
    seen: list[int] = []

    async def look() -> None:
        seen.append((await row(store, "alice")).used)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flush, store, [delta(f"user{n}") for n in range(3000)])
        for _ in range(5):
            nursery.start_soon(look)
    assert seen == [3] * 5


# -- bad records ----------------------------------------------------------------------------------------------------


async def test_a_bad_record_is_set_aside_and_all_others_are_stored(store: Store) -> None:
    bad = delta("lone \ud800 surrogate")
    flushed = await flush(store, [*[delta(f"user{n:03}") for n in range(300)], bad])
    assert [refused for refused, _ in flushed.rejected] == [bad]
    assert flushed.rejected[0][1]
    assert len(await store.lookup([Account("daily", f"user{n:03}") for n in range(300)], 0)) == 300
    assert await store.recorded("node") == 1


async def test_an_account_that_is_no_text_has_no_row(store: Store) -> None:
    await flush(store, [delta("alice")])
    found = await store.lookup([Account("daily", "\udc80"), Account("daily", "alice")], 0)
    assert [r.key for r in found] == ["alice"]


# -- keys -----------------------------------------------------------------------------------------------------------

TEXTS = [
    "alice", "alicé", "alice\u0301", "ALİCE", "ß", "ss", "a\tb", "a\\b", "a'b", 'a"b', "a%sb", "a%b", "a\x01b",
    "a\u2028b", "\U0001f40c", "a;b", "a--b", "`a`", "alice\x1f", "alice\u00a0", "é" * 127, "x" * 255,
]  # fmt: skip


async def test_every_normalised_key_is_a_bucket_of_its_own(store: Store) -> None:
    keys = sorted({normalise(text) for text in TEXTS})
    assert len(keys) == len(TEXTS)
    for key in keys:
        await flush(store, [delta(key, 1)])
    flushed = await flush(store, [delta(key, n) for n, key in enumerate(keys)])
    assert flushed.rejected == []
    assert {r.key: r.used for r in await store.lookup([Account("daily", key) for key in keys], 0)} == {
        key: n + 1 for n, key in enumerate(keys)
    }


async def test_logins_that_memory_takes_for_one_are_one_row(store: Store) -> None:
    logins = ["alice", "Alice", "alice ", "\talice", "ALICE"]
    await flush(store, [delta(normalise(login)) for login in logins])
    assert (await row(store, "alice")).used == 5


async def test_a_key_of_any_length_fits(store: Store) -> None:
    keys = [normalise("x" * 300), normalise("x" * 301), normalise("é" * 9000)]
    assert (await flush(store, [delta(key) for key in keys])).rejected == []
    assert len(await store.lookup([Account("daily", key) for key in keys], 0)) == 3


# -- quotas ---------------------------------------------------------------------------------------------------------


async def test_a_new_configured_quota_replaces_the_old_one(store: Store) -> None:
    await flush(store, [delta("alice", quota=10)])
    await flush(store, [delta("alice", quota=20)])
    assert (await row(store, "alice"))[2:4] == (20, 20)


async def test_a_grant_lasts_until_its_window_ends(backend: Backend, store: Store) -> None:
    await flush(store, [delta("alice", expiry=SOON)])
    backend.sql("UPDATE ratelimit SET quota = 50")
    await flush(store, [delta("alice", expiry=SOON)])
    assert (await row(store, "alice")).quota == 50
    await flush(store, [delta("alice", expiry=LATER)])
    assert (await row(store, "alice")).quota == 10


@pytest.mark.parametrize("delta_from", ["the same window", "a later window, over too"])
async def test_a_grant_is_not_carried_over_by_a_flush_after_its_window(
    backend: Backend, store: Store, delta_from: str
) -> None:
    """Charges of 23:59:59 are stored after midnight: yesterday's grant is not one for today."""
    end = int(time.time()) - 60
    await flush(store, [delta("alice", expiry=end if delta_from == "the same window" else end - 3600)])
    backend.sql(f"UPDATE ratelimit SET quota = 50, updated = {backend.at(end - 5)}")
    await flush(store, [Delta("daily", "alice", end, 1, 50, 10)])
    stored = await row(store, "alice")
    assert stored.quota_at(int(time.time()), 10) == 10
    backend.sql("UPDATE ratelimit SET quota = 60")
    await flush(store, [delta("alice", expiry=end)])
    assert (await row(store, "alice")).quota_at(int(time.time()), 10) == 60


async def test_a_persistent_quota_outlasts_every_window(backend: Backend, store: Store) -> None:
    await flush(store, [delta("alice", expiry=SOON)])
    backend.sql("UPDATE ratelimit SET quota = 50, persist = 1")
    await flush(store, [delta("alice", expiry=LATER, quota=20)])
    stored = await row(store, "alice")
    assert (stored.quota, stored.configured, stored.persist, stored.used) == (50, 20, True, 1)


async def test_a_row_made_by_hand_is_a_grant_for_the_next_window(backend: Backend, store: Store) -> None:
    backend.sql("INSERT INTO ratelimit (sender, limit_name, quota) VALUES ('alice', 'daily', 50)")
    assert (await row(store, "alice"))[2:7] == (50, None, False, 0, 0)
    await flush(store, [delta("alice", expiry=SOON)])
    assert (await row(store, "alice"))[2:7] == (50, 10, False, 1, SOON)
    await flush(store, [delta("alice", expiry=LATER)])
    assert (await row(store, "alice")).quota == 10


async def test_a_row_deleted_by_hand_comes_back(backend: Backend, store: Store) -> None:
    await flush(store, [delta("alice", 5)])
    backend.sql("DELETE FROM ratelimit")
    await flush(store, [delta("alice", 2)])
    assert (await row(store, "alice")).used == 2


# -- changes --------------------------------------------------------------------------------------------------------


async def test_changes_begin_now_and_give_what_somebody_changed(backend: Backend, store: Store) -> None:
    await flush(store, [delta("alice"), delta("bob")])
    backend.sql("UPDATE ratelimit SET updated = '2020-01-01 00:00:00'")
    begun = await store.changes(None, 0)
    assert begun.rows == []
    assert (await store.changes(begun.cursor, 0)).rows == []
    backend.sql("UPDATE ratelimit SET quota = 99 WHERE sender = 'bob'")
    changed = await store.changes(begun.cursor, 0)
    assert [(r.key, r.quota) for r in changed.rows] == [("bob", 99)]
    assert not changed.more


@pytest.mark.parametrize("change", ["persist = 1", "used = 0", "expiry = 9", "quota = 3"])
async def test_every_change_by_hand_is_found(backend: Backend, store: Store, change: str) -> None:
    await flush(store, [delta("alice", 5)])
    backend.sql("UPDATE ratelimit SET updated = '2020-01-01 00:00:00'")
    cursor = (await store.changes(None, 0)).cursor
    backend.sql(f"UPDATE ratelimit SET {change}")
    assert [r.key for r in (await store.changes(cursor, 0)).rows] == ["alice"]


async def test_many_changes_are_given_in_pages_and_each_at_least_once(backend: Backend, store: Store) -> None:
    cursor = (await store.changes(None, 0)).cursor
    many = 12_000
    for start in range(0, many, 1000):
        values = ", ".join(f"('user{number}', 'default', 1)" for number in range(start, start + 1000))
        backend.sql(f"INSERT INTO ratelimit (sender, limit_name, used) VALUES {values}")
    pages = await pages_of_changes(store, cursor)
    assert {row.key for page in pages for row in page.rows} == {f"user{number}" for number in range(many)}
    assert len(pages) >= 3
    assert all(len(page.rows) <= 5000 for page in pages)
    backend.sql("UPDATE ratelimit SET quota = 7 WHERE sender = 'user1'")
    pages = await pages_of_changes(store, pages[-1].cursor)
    assert 7 in {row.quota for page in pages for row in page.rows if row.key == "user1"}


async def pages_of_changes(store: Store, cursor: Cursor) -> list[Changes]:
    pages = [await store.changes(cursor, 0)]
    while pages[-1].more:
        pages.append(await store.changes(pages[-1].cursor, 0))
    return pages


async def test_changes_of_another_node_are_found(backend: Backend, store: Store) -> None:
    cursor = (await store.changes(None, 0)).cursor
    other = backend.make()
    await other.open()
    await flush(other, [delta("alice", 4)], node="other")
    await other.close()
    assert [(r.key, r.used) for r in (await store.changes(cursor, 0)).rows] == [("alice", 4)]


# -- names and the view ---------------------------------------------------------------------------------------------


async def test_table_and_columns_may_have_other_names(backend: Backend) -> None:
    names = Names("mail_quota", (("sender", "login"), ("used", "tally"), ("updated", "touched_at"))).checked()
    store = backend.make(names)
    await store.open()
    await flush(store, [delta("alice", 3)])
    assert (await row(store, "alice")).used == 3
    cursor = (await store.changes(None, 0)).cursor
    assert [r.key for r in (await store.changes(cursor, 0)).rows] == ["alice"]
    assert backend.sql("SELECT login, tally FROM mail_quota") == [("alice", "3")]
    assert backend.sql("SELECT login, tally FROM view_mail_quota") == [("alice", "3")]
    await store.close()
    again = backend.make(names)
    await again.open()
    assert await again.recorded("node") == 1
    await again.close()


async def test_the_view_shows_readable_times(backend: Backend, store: Store) -> None:
    await flush(store, [delta("alice", expiry=86400 * 365)])
    ((sender, when),) = backend.sql("SELECT sender, expirytime FROM view_ratelimit")
    assert sender == "alice"
    assert when.startswith(("1970-12-31", "1971-01-01"))


async def test_a_closed_store_may_be_closed_again(store: Store) -> None:
    await store.close()
    await store.close()


async def test_a_grant_in_the_window_keeps_what_was_used(store: Store) -> None:
    await flush(store, [delta("alice", 3, expiry=2000, quota=10)])
    (granted,) = await store.grant(Grant("daily", "alice", 50, 10, False, 2500), 1000)
    assert granted._replace(updated=0, seen=None) == Row("daily", "alice", 50, 10, False, 3, 2000, 0)
    assert await store.lookup([Account("daily", "alice")], 0) == [granted]


async def test_a_grant_after_the_window_begins_a_new_one(store: Store) -> None:
    await flush(store, [delta("alice", 3, expiry=2000)])
    (granted,) = await store.grant(Grant("daily", "alice", 50, 10, True, 3000), 2000)
    assert granted._replace(updated=0, seen=None) == Row("daily", "alice", 50, 10, True, 0, 3000, 0)


async def test_a_grant_makes_the_row_of_an_account_that_has_none(store: Store) -> None:
    (granted,) = await store.grant(Grant("daily", "nobody", 0, 10, True, 3000), 1000)
    assert granted._replace(updated=0, seen=None) == Row("daily", "nobody", 0, 10, True, 0, 3000, 0)


async def test_a_grant_lasts_until_the_window_ends_and_a_persistent_one_for_good(store: Store) -> None:
    await store.grant(Grant("daily", "alice", 50, 10, False, SOON), 1000)
    await store.grant(Grant("daily", "bob", 50, 10, True, SOON), 1000)
    await flush(store, [Delta("daily", "alice", SOON, 1, 50, 10), delta("bob", expiry=SOON)])
    assert [(await row(store, key)).quota for key in ("alice", "bob")] == [50, 50]
    await flush(store, [delta("alice", expiry=LATER), delta("bob", expiry=LATER)])
    assert [(await row(store, key)).quota for key in ("alice", "bob")] == [10, 50]


async def test_a_reset_sets_the_use_of_these_accounts_to_0_and_of_no_others(store: Store) -> None:
    await flush(store, [delta(key, 3) for key in ("alice", "bob")] + [delta("alice", 4, limit="weekly")])
    (reset,) = await store.reset([Account("daily", "alice"), Account("daily", "nobody")], 0)
    assert reset._replace(updated=0, seen=None) == Row("daily", "alice", 10, 10, False, 0, 2000, 0)
    assert [(await row(store, "bob")).used, (await row(store, "alice", "weekly")).used] == [3, 4]
    await flush(store, [delta("alice", 2)])
    assert (await row(store, "alice")).used == 2


async def test_grants_and_resets_are_seen_as_changes(store: Store) -> None:
    await flush(store, [delta("alice", 3)])
    cursor = (await store.changes(None, 0)).cursor
    await store.grant(Grant("daily", "alice", 50, 10, False, 2000), 1000)
    await store.reset([Account("daily", "alice")], 0)
    found = [found for found in (await store.changes(cursor, 0)).rows if found.key == "alice"]
    assert [(found.quota, found.used) for found in found] == [(50, 0)]
