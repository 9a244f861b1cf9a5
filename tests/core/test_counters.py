"""Counters: what is known of an account, its window, its quota, and what is not stored yet."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimitd.control.answers import NotStored
from ratelimitd.control.status import not_stored
from ratelimitd.core.counter import basis
from ratelimitd.core.counters import Counter, Knowledge, Meter
from ratelimitd.core.pending import Pending, Segment, joined, merge
from ratelimitd.core.quotas import Source
from ratelimitd.core.rows import Delta, Row
from tests.core.build import DAY_S, MIDNIGHT, NOON, charge, limit, row

TOMORROW = MIDNIGHT + DAY_S // 2
LATEST = MIDNIGHT + DAY_S
APART = HALF_S = DAY_S // 2


def meter(quota: int = 50) -> Meter:
    return Meter(limit(quota, quotas={"boss": 500}))


def state(counter: Counter) -> tuple[int, int, int, bool]:
    return counter.used, counter.quota, counter.expiry, counter.is_new


def test_an_account_that_nobody_has_asked_for_is_unknown() -> None:
    assert meter().find("alice", NOON) is None


@pytest.mark.parametrize(
    ("stored", "used", "quota", "expiry", "is_new"),
    [
        (None, 0, 50, MIDNIGHT, True),
        (row("alice", used=7), 7, 50, MIDNIGHT, False),
        (row("alice", used=7, quota=90), 7, 90, MIDNIGHT, False),
        (row("alice", used=7, quota=90, persist=True), 7, 90, MIDNIGHT, False),
        (row("alice", used=7, expiry=MIDNIGHT - DAY_S), 0, 50, MIDNIGHT, False),  # yesterday's
        (row("alice", used=7, expiry=NOON), 0, 50, MIDNIGHT, False),  # over this very second
        (row("alice", used=7, quota=90, persist=True, expiry=MIDNIGHT - DAY_S), 0, 90, MIDNIGHT, False),
        (row("alice", used=7, quota=90, expiry=MIDNIGHT - DAY_S, updated=0), 0, 50, MIDNIGHT, False),
        (row("alice", used=7, quota=90, expiry=MIDNIGHT - DAY_S, updated=NOON), 0, 90, MIDNIGHT, False),
        (row("alice", used=0, quota=90, configured=None, expiry=0), 0, 90, MIDNIGHT, False),
        (row("alice", used=7, expiry=MIDNIGHT + 5), 7, 50, MIDNIGHT + 5, False),  # another node's window lasts
    ],
)
def test_an_account_that_is_looked_up(stored: Row | None, used: int, quota: int, expiry: int, is_new: bool) -> None:
    counters = meter()
    counters.accept("alice", stored, 0, NOON)
    found = counters.find("alice", NOON)
    assert found is not None
    assert state(found) == (used, quota, expiry, is_new)


def test_a_window_that_is_over_is_followed_by_a_new_one_at_the_default_quota() -> None:
    counters = meter()
    ended = counters.accept("alice", row("alice", used=7, quota=90), 0, NOON)
    assert counters.find("alice", MIDNIGHT - 1) is ended
    renewed = counters.find("alice", MIDNIGHT)
    assert renewed is not None
    assert state(renewed) == (0, 50, MIDNIGHT + DAY_S, False)
    assert state(ended) == (7, 90, MIDNIGHT, False)


def test_a_persistent_quota_outlives_its_window() -> None:
    counters = meter()
    counters.accept("alice", row("alice", used=7, quota=90, persist=True), 0, NOON)
    for day in (1, 2, 3):
        renewed = counters.find("alice", NOON + day * DAY_S)
        assert renewed is not None
        assert state(renewed) == (0, 90, MIDNIGHT + day * DAY_S, False)


def test_a_grant_of_an_earlier_window_is_not_the_later_one_s_where_the_clock_was_put_back() -> None:
    counters, pending = Meter(limit(50)), Pending()
    charge(pending, counters.assume("alice", NOON + DAY_S), 3)
    earlier = row("alice", quota=22, configured=50, used=4)
    assert counters.accept("alice", earlier, 3, NOON).quota == 50
    assert counters.accept("alice", earlier._replace(expiry=MIDNIGHT + DAY_S), 3, NOON).quota == 22


def test_an_account_that_was_never_charged_is_still_new_in_the_next_window() -> None:
    counters = meter()
    counters.accept("alice", None, 0, NOON)
    renewed = counters.find("alice", TOMORROW)
    assert renewed is not None
    assert renewed.is_new


def test_a_clock_that_is_put_back_by_less_than_a_window_resets_nothing() -> None:
    counters = meter()
    known = counters.accept("alice", row("alice", used=7), 0, NOON)
    for now in (NOON - 3600, NOON - DAY_S, MIDNIGHT - 2 * DAY_S):
        assert counters.find("alice", now) is known
    assert known.used == 7
    assert not counters.begun_again


def test_a_clock_put_back_behind_a_lookup_resets_nothing() -> None:
    counters = meter()
    known = counters.accept("alice", row("alice", used=7), 0, NOON - DAY_S)
    assert state(known) == (7, 50, MIDNIGHT, False)


AHEAD = NOON + 20 * 365 * DAY_S


def test_an_account_that_was_charged_under_a_clock_years_ahead_is_looked_up_again() -> None:
    counters, pending = meter(), Pending()
    charge(pending, counters.assume("alice", AHEAD), 7)
    assert counters.find("alice", NOON) is None
    assert counters.begun_again == 1
    assert state(counters.accept("alice", row("alice", used=5), 0, NOON)) == (5, 50, MIDNIGHT, False)


def test_a_row_whose_window_ends_years_ahead_has_used_nothing_and_keeps_its_quota() -> None:
    counters = meter()
    ahead = row("alice", used=70, quota=90, persist=True, expiry=AHEAD)
    assert state(counters.accept("alice", ahead, 0, NOON)) == (0, 90, MIDNIGHT, False)
    assert counters.begun_again == 1
    assert state(counters.accept("alice", row("alice", used=3), 0, NOON)) == (3, 50, MIDNIGHT, False)


def test_an_account_in_memory_with_a_window_years_ahead_gives_way_to_the_stored_one() -> None:
    counters = meter()
    counters.assume("alice", AHEAD).used = 7
    assert state(counters.accept("alice", row("alice", used=3), 0, NOON)) == (3, 50, MIDNIGHT, False)


def test_an_account_that_is_assumed_is_assumed_in_the_present_window() -> None:
    counters = meter()
    for begun in (AHEAD, NOON - 9 * DAY_S):
        counters.assume("alice", begun).used = 60
        counters.counters["alice"].knowledge = Knowledge.UNREAD
        assert state(counters.assume("alice", NOON)) == (0, 50, MIDNIGHT, False)


def test_a_change_in_the_store_is_taken_over() -> None:
    counters = meter()
    counters.accept("alice", row("alice", used=7), 0, NOON)
    changed = counters.accept("alice", row("alice", used=30, quota=90, persist=True), 0, NOON)
    assert state(changed) == (30, 90, MIDNIGHT, False)
    back = counters.accept("alice", row("alice", used=30), 0, NOON)
    assert state(back) == (30, 50, MIDNIGHT, False)
    assert back.source is Source.CONFIGURED


def test_what_is_not_stored_yet_is_added_to_what_others_stored() -> None:
    counters, pending = meter(), Pending()
    counter = counters.accept("alice", row("alice", used=7), 0, NOON)
    charge(pending, counter, 3)
    again = counters.accept("alice", row("alice", used=20), pending.of(counter), NOON)
    assert again is counter
    assert counter.used == 23


def test_a_row_deleted_by_hand_begins_anew() -> None:
    counters = meter()
    counters.accept("alice", row("alice", used=7, quota=90, persist=True), 0, NOON)
    assert state(counters.accept("alice", None, 0, NOON)) == (0, 50, MIDNIGHT, True)


def test_a_row_deleted_by_hand_leaves_what_is_not_stored_yet() -> None:
    counters, pending = meter(), Pending()
    counter = counters.accept("alice", row("alice", used=7), 0, NOON)
    charge(pending, counter, 2)
    assert state(counters.accept("alice", None, pending.of(counter), NOON)) == (2, 50, MIDNIGHT, False)


def test_a_later_window_of_another_node_is_taken_over_without_the_old_one_s_charges() -> None:
    counters, pending = meter(), Pending()
    counter = counters.accept("alice", row("alice", used=7), 0, NOON)
    charge(pending, counter, 3)
    later = counters.accept("alice", row("alice", used=1, expiry=MIDNIGHT + DAY_S), pending.of(counter), NOON)
    assert state(later) == (1, 50, MIDNIGHT + DAY_S, False)
    assert pending.of(counter) == 3
    assert pending.of(later) == 0


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        (MIDNIGHT + HALF_S, (10, MIDNIGHT + HALF_S)),
        (MIDNIGHT + DAY_S - 1, (10, MIDNIGHT + DAY_S - 1)),
        (MIDNIGHT - HALF_S + 1, (10, MIDNIGHT)),
        (MIDNIGHT - HALF_S - 3600, (3, MIDNIGHT)),  # over: at NOON - 3600
    ],
)
def test_what_is_pending_in_a_running_window_adds_up_with_what_is_used_in_another_that_runs(
    window: int, expected: tuple[int, int]
) -> None:
    counters, pending = meter(), Pending()
    counter = counters.accept("alice", None, 0, NOON)
    charge(pending, counter, 3)
    counters.accept("alice", row("alice", used=7, expiry=window), 3, NOON)
    assert (counter.used, counter.expiry) == expected
    assert counters.counters["alice"] is counter


def test_a_running_window_that_began_long_before_ours_holds_for_both_until_it_ends() -> None:
    counters, pending = meter(), Pending()
    early = MIDNIGHT - DAY_S + 3600  # just after midnight; ours ends in the evening
    counter = counters.accept("alice", None, 0, early - 1800)
    charge(pending, counter, 3)
    counters.accept("alice", row("alice", used=7, expiry=early), 3, early - 1800)
    assert (counter.used, counter.expiry) == (10, early)


def test_an_account_s_windows_that_both_run_are_kept_when_segments_are_joined() -> None:
    counters, pending = meter(), Pending()
    for expiry, recipients in ((MIDNIGHT + 3600, 2), (MIDNIGHT, 3), (NOON, 4), (MIDNIGHT - DAY_S, 5)):
        charge(pending, Counter(counters, "alice", expiry, 50), recipients)
        pending.close(pending.open.number + 1)
    assert sorted(joined(pending.closed, NOON - 1).deltas.values()) == [2, 3, 4]
    assert sorted(joined(pending.closed, NOON).deltas.values()) == [2, 3]


def test_an_older_window_of_the_store_leaves_ours_where_charges_wait() -> None:
    counters, pending = meter(), Pending()
    counter = counters.accept("alice", None, 0, NOON)
    charge(pending, counter, 3)
    assert counters.accept("alice", row("alice", used=9, expiry=MIDNIGHT - DAY_S), 3, NOON) is counter
    assert state(counter) == (3, 50, MIDNIGHT, False)


def test_a_grant_made_after_the_window_s_end_holds_though_the_account_is_in_memory() -> None:
    counters = meter()
    counters.accept("alice", row("alice", used=50), 0, NOON)
    granted = row("alice", used=50, quota=90, updated=TOMORROW - 5)
    counters.accept("alice", granted, 0, TOMORROW)
    found = counters.find("alice", TOMORROW)
    assert found is not None
    assert state(found) == (0, 90, MIDNIGHT + DAY_S, False)
    assert found.source is Source.GRANTED


def test_charges_of_a_window_that_ended_do_not_land_in_the_next() -> None:
    counters, pending = meter(), Pending()
    ended = counters.accept("alice", row("alice", used=7), 0, NOON)
    charge(pending, ended, 3)
    counters.accept("alice", row("alice", used=7), pending.of(ended), MIDNIGHT)
    found = counters.find("alice", MIDNIGHT)
    assert found is not None
    assert state(found) == (0, 50, MIDNIGHT + DAY_S, False)
    pending.close(2)
    assert list(merge(pending.closed, 0, NOON)) == [
        Delta("default", "alice", MIDNIGHT, 3, 50, 50, LATEST, APART, DAY_S, NOON)
    ]


def test_charges_of_an_ended_window_make_the_account_no_new_one() -> None:
    counters, pending = meter(), Pending()
    ended = counters.accept("alice", None, 0, NOON)
    charge(pending, ended, 3)
    assert not counters.accept("alice", None, pending.of(ended), MIDNIGHT).is_new


def test_an_account_that_cannot_be_looked_up_is_assumed_to_be_new() -> None:
    counters = meter()
    assumed = counters.assume("boss", NOON)
    assert state(assumed) == (0, 500, MIDNIGHT, True)
    assert assumed.knowledge == Knowledge.ASSUMED
    assert counters.find("boss", NOON) is counters.assume("boss", NOON) is assumed


def test_an_account_known_from_the_journal_alone_is_looked_up_or_assumed() -> None:
    counters = meter()
    counter = counters.accept("alice", row("alice", used=7), 0, NOON)
    counter.knowledge = Knowledge.UNREAD
    assert counters.find("alice", NOON) is None
    assert counters.assume("alice", NOON) is counter
    assert counter.knowledge == Knowledge.ASSUMED
    assert counters.find("alice", NOON) is counter
    assert not counter.is_new


def test_an_account_that_is_assumed_stays_so_in_its_next_window() -> None:
    counters = meter()
    counters.assume("alice", NOON)
    later = counters.find("alice", TOMORROW)
    assert later is not None
    assert (later.expiry, later.knowledge) == (MIDNIGHT + DAY_S, Knowledge.ASSUMED), "the store is still to be asked"


def test_an_account_known_from_the_journal_alone_is_assumed_at_the_quota_of_today() -> None:
    counters = meter(quota=50)
    counter = counters.counters["alice"] = Counter(
        counters, "alice", MIDNIGHT, 50, basis=basis(knowledge=Knowledge.UNREAD)
    )
    counters.configure(limit(20))
    assert counters.assume("alice", NOON) is counter
    assert (counter.quota, counter.knowledge) == (20, Knowledge.ASSUMED)


def test_a_known_account_is_not_assumed_anew() -> None:
    counters = meter()
    counter = counters.accept("alice", row("alice", used=7), 0, NOON)
    assert counters.assume("alice", NOON) is counter
    assert counter.knowledge == Knowledge.STORED


def test_only_accounts_that_are_over_and_stored_are_forgotten() -> None:
    counters, pending = meter(), Pending()
    for key in ("over", "unstored"):
        counters.accept(key, row(key), 0, NOON)
    counters.accept("lasting", row("lasting", expiry=TOMORROW + 1), 0, NOON)
    charge(pending, counters.counters["unstored"], 1)
    counters.drop_ended(["over", "unstored", "lasting", "unknown"], TOMORROW, pending)
    assert set(counters.counters) == {"unstored", "lasting"}
    pending.close(2)
    counters.drop_ended(["unstored"], TOMORROW, pending)
    assert "unstored" in counters.counters
    pending.stored(1)
    counters.drop_ended(["unstored"], TOMORROW, pending)
    assert "unstored" not in counters.counters


def test_pending_counts_what_is_not_stored_by_segment() -> None:
    counters, pending = meter(), Pending(5)
    alice, bob = (counters.accept(key, None, 0, NOON) for key in ("alice", "bob"))
    charge(pending, alice, 2)
    charge(pending, alice, 1)
    pending.close(6)
    charge(pending, alice, 4)
    charge(pending, bob, 1)
    assert (pending.of(alice), pending.of(bob), len(pending)) == (7, 1, 3)
    assert [segment.number for segment in pending.closed] == [5]
    assert pending.closed[0].recipients == 3
    pending.stored(4)
    assert pending.of(alice) == 7
    pending.stored(5)
    assert (pending.of(alice), len(pending)) == (4, 2)
    assert alice.used == 7


def test_status_counts_an_account_once_that_has_charges_in_several_segments() -> None:
    counters, pending = meter(), Pending()
    alice, bob = (counters.accept(key, None, 0, NOON) for key in ("alice", "bob"))
    charge(pending, alice, 2)
    pending.close(2)
    charge(pending, alice, 4)
    charge(pending, bob, 1)
    assert not_stored(pending) == NotStored(accounts=2, recipients=7)


def test_segments_are_merged_to_one_delta_per_account_and_window() -> None:
    counters, pending = meter(), Pending()
    alice = counters.accept("alice", row("alice", quota=90), 0, NOON)
    boss = counters.accept("boss", row("boss", quota=90, persist=True), 0, NOON)
    for number in (2, 3, 4):
        charge(pending, alice, 1)
        charge(pending, boss, 10)
        pending.close(number)
    renewed = counters.find("alice", TOMORROW)
    assert renewed is not None
    charge(pending, renewed, 5)
    pending.close(5)
    assert sorted(merge(pending.closed, 1, NOON)) == [
        Delta("default", "alice", MIDNIGHT, 2, 90, 50, LATEST, APART, DAY_S, NOON),
        Delta("default", "alice", MIDNIGHT + DAY_S, 5, 50, 50, LATEST, APART, DAY_S, NOON),
        Delta("default", "boss", MIDNIGHT, 20, 500, 500, LATEST, APART, DAY_S, NOON),
    ]
    assert list(merge(pending.closed, 4, NOON)) == []


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9), st.booleans())), st.integers(0, 10))
def test_merging_loses_and_doubles_nothing(charges: list[tuple[str, int, bool]], after: int) -> None:
    counters, pending = meter(), Pending()
    expected: dict[str, int] = {}
    for key, recipients, close in charges:
        charge(pending, counters.assume(key, NOON), recipients)
        if pending.open.number > after:
            expected[key] = expected.get(key, 0) + recipients
        if close:
            pending.close(pending.open.number + 1)
    segments: list[Segment] = [*pending.closed, pending.open]
    assert {delta.key: delta.used for delta in merge(segments, after, NOON)} == expected


def test_a_window_that_ends_after_the_next_one_is_neither_stored_nor_kept_when_segments_are_joined() -> None:
    counters, pending = meter(), Pending()
    charge(pending, counters.assume("alice", NOON + 20 * 365 * DAY_S), 7)
    pending.close(2)
    charge(pending, counters.accept("alice", None, 0, NOON), 3)
    pending.close(3)
    wanted = [Delta("default", "alice", MIDNIGHT, 3, 50, 50, LATEST, APART, DAY_S, NOON)]
    assert list(merge(pending.closed, 0, NOON)) == wanted
    assert list(merge([joined(pending.closed, NOON)], 0, NOON)) == wanted
