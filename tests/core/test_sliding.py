"""Sliding windows in memory: exact to a part against a list of all mails, whatever happens in between."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimitd.core.counters import Counter, Knowledge, Meter
from ratelimitd.core.parts import Parts
from ratelimitd.core.policy import Policy
from ratelimitd.core.sliding import SlidingMeter
from ratelimitd.core.standing import admits_again, each_part, reset, used_at
from ratelimitd.core.windows import in_words, length_s
from tests.core.build import DAY_S, MIDNIGHT, NOON, charge, data, limit, policy, rcpt, row, rules, used
from tests.core.sliding import ALICE, Account

HOUR_S = 3600


def account(quota: int = 5, period: str = "1h", *, count_rejected: bool = True) -> Account:
    return Account(limit(quota, period=period, window="sliding", count_rejected=count_rejected))


events: dict[str, Callable[[Account], object]] = {
    "flush": Account.flush,
    "kill": Account.kill,
    "evict": Account.evict,
    "sweep": Account.sweep,
    "condense": Account.condense,
}
steps = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.floats(0, 1.2)),
        st.tuples(st.just("send"), st.floats(0, 1)),
        st.tuples(st.sampled_from(sorted(events)), st.just(0.0)),
    ),
    max_size=60,
)
periods = st.sampled_from(["1s", "20s", "90s", "119s", "1000s", "10m", "hourly", "daily", "11d"])


@settings(max_examples=400)
@given(steps=steps, period=periods, quota=st.integers(1, 8), count_rejected=st.booleans())
def test_a_sliding_limit_is_exact(
    steps: list[tuple[str, float]], period: str, quota: int, count_rejected: bool
) -> None:
    one = account(quota, period, count_rejected=count_rejected)
    length, part = one.period.length_s, one.period.part_s
    for what, number in steps:
        if what == "wait":
            one.now += round(number * length)
        elif what != "send":
            events[what](one)
        else:
            recipients = 1 + round(number * quota)
            at_least, at_most = one.listed(one.now - length), one.listed(one.now - length - part)
            if one.send(recipients):
                assert at_least + recipients <= quota
            else:
                assert at_most + recipients > quota
    for at, _, _ in one.mails:
        admitted = sum(n for other, n, was_admitted in one.mails if at <= other < at + length and was_admitted)
        assert admitted <= quota


def test_a_count_leaves_one_part_late_at_most() -> None:
    one = account(quota=2, count_rejected=False)
    one.send(2)
    one.now = NOON + HOUR_S + 59
    assert not one.send()
    one.now += 1
    assert one.send(2)


def test_a_count_leaves_in_the_middle_of_a_part_where_the_period_is_no_multiple_of_one() -> None:
    one = account(quota=2, period="1000s")
    assert one.period.part_s == 16
    one.now = 16 * (NOON // 16)
    one.send()
    one.now += 1008
    one.send()
    one.now += 7
    assert one.meter.find(ALICE, one.now) is one.counter
    assert one.counter.used == 2
    one.now += 1
    assert one.send()


def test_with_count_rejected_an_account_that_goes_on_trying_stays_refused() -> None:
    one = account(quota=1)
    admitted = []
    for _ in range(60):
        admitted.append(one.send())
        one.now += HOUR_S // 10
    assert admitted == [True, *[False] * 59]


def test_a_clock_that_is_put_back_frees_nothing_early() -> None:
    one = account(quota=2, count_rejected=False)
    one.send()
    one.now -= HOUR_S // 2
    one.send()
    assert not one.send()
    one.now = NOON + HOUR_S + 59
    assert not one.send(2)
    one.now += 1
    assert one.send(2)


def test_after_a_clock_that_was_years_ahead_the_parts_before_count_again() -> None:
    one = account(quota=3, count_rejected=False)
    one.send(2)
    one.flush()
    one.now += 5 * 365 * DAY_S
    one.send()
    one.now = NOON + 600
    assert one.send()
    assert not one.send()
    assert one.meter.begun_again >= 1


def test_what_an_outage_has_merged_keeps_its_parts() -> None:
    one = account(quota=10)
    for _ in range(4):
        one.send()
        one.now += 600
    one.condense()
    one.kill()
    one.accept()
    assert each_part(one.counter)[:4] == [(NOON + 60 + HOUR_S + i * 600, 1) for i in range(4)]


def test_other_nodes_parts_count_also_those_of_a_clock_that_is_ahead() -> None:
    one = account(quota=5, count_rejected=False)
    one.send()
    one.history[one.period.end(NOON + 180)] = 3
    one.accept()
    assert one.counter.used == 4
    one.now += 180
    assert one.send()
    assert each_part(one.counter) == [(NOON + 60 + HOUR_S, 1), (NOON + 240 + HOUR_S, 4)]
    assert not one.send()
    one.now += 60
    assert not one.send()
    assert each_part(one.counter)[:2] == [(NOON + 60 + HOUR_S, 1), (NOON + 240 + HOUR_S, 4)]
    one.flush()
    assert one.counter.used == 5


def test_an_account_is_not_evicted_while_a_part_is_not_stored() -> None:
    one = account()
    one.send()
    one.now += 60
    assert one.meter.find(ALICE, one.now) is one.counter
    one.evict()
    assert one.counter.used == 1
    one.flush()
    one.evict()
    assert not one.meter.counters


def test_a_row_without_parts_counts_until_it_ends() -> None:
    meter = SlidingMeter(limit(10, period="daily", window="sliding"))
    counter = meter.accept(ALICE, row(ALICE, used=7, expiry=MIDNIGHT), 0, NOON)
    assert counter.used == 7
    found = meter.find(ALICE, MIDNIGHT - 1)
    assert found is not None
    assert found.used == 7
    found = meter.find(ALICE, MIDNIGHT)
    assert found is not None
    assert found.used == 0


def test_an_account_that_sent_nothing_within_a_period_is_dropped_and_no_other() -> None:
    one = account(quota=10)
    one.send()
    one.now += HOUR_S
    one.send()
    one.flush()
    one.now += HOUR_S + 59
    one.sweep()
    assert one.meter.counters
    one.now += 1
    one.sweep()
    assert not one.meter.counters


@pytest.mark.parametrize(("period", "most"), [("119s", 121), ("hourly", 62), ("monthly", 62), ("1s", 3)])
def test_memory_is_bounded_by_the_number_of_parts(period: str, most: int) -> None:
    one = account(quota=0, period=period)
    for _ in range(400):
        one.send()
        one.flush()
        one.now += one.period.part_s
        one.meter.find(ALICE, one.now)
        assert one.counter.parts is not None
        assert len(one.counter.parts) // 2 <= most
        assert len(one.counter.earlier) <= 1


def test_one_recipient_is_admitted_when_it_is_said() -> None:
    one = account(quota=3, count_rejected=False)
    for recipients in (1, 2):
        one.send(recipients)
        one.now += 300
    assert admits_again(one.counter) == reset(one.counter) == NOON + 60 + HOUR_S
    one.now = admits_again(one.counter) - 1
    assert not one.send()
    one.now += 1
    assert one.send()


def test_where_there_is_room_the_reset_is_when_all_has_left() -> None:
    one = account(quota=3)
    one.send()
    one.now += 300
    one.send()
    assert admits_again(one.counter) == 0
    assert reset(one.counter) == NOON + 300 + 60 + HOUR_S


def test_what_counts_is_known_though_nobody_has_asked_since() -> None:
    one = account(quota=9)
    one.send(2)
    one.now += 600
    one.send(3)
    assert one.counter.used == 5
    assert [used_at(one.counter, NOON + HOUR_S + at) for at in (59, 60, 659, 660)] == [5, 3, 3, 0]


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 5))), st.integers(0, 31), st.integers(0, 31))
def test_parts_are_a_sum_by_the_time_they_leave(added: list[tuple[int, int]], now: int, latest: int) -> None:
    parts, plain = Parts.of(), dict[int, int]()
    for leave, number in added:
        parts.add(leave, number)
        plain[leave] = plain.get(leave, 0) + number
    assert list(parts.pairs()) == sorted(plain.items())
    assert parts.total == sum(plain.values())
    parts.keep(now, latest)
    assert list(parts.pairs()) == sorted((at, n) for at, n in plain.items() if now < at <= latest)


# -- the memo ----------------------------------------------------------------------------------------------------------


def full(count_rejected: bool = True) -> Policy:
    """Two recipients of two were admitted at noon."""
    asked = policy(limit(2, period="1h", window="sliding", count_rejected=count_rejected))
    data(asked, 2, instance="full")
    return asked


def test_a_refusal_is_not_charged_again_while_it_counts() -> None:
    asked = full()
    for minutes in (1, 2, 30, 59):
        assert rcpt(asked, "bob@example.org", now=NOON + minutes * 60).refused
    assert used(asked) == 3


def test_a_refusal_that_has_left_is_charged_again() -> None:
    asked = full()
    rcpt(asked, "bob@example.org")
    data(asked, 2, instance="full again", now=NOON + HOUR_S + 60)
    assert rcpt(asked, "bob@example.org", now=NOON + HOUR_S + 60).refused
    assert used(asked) == 3


def test_what_is_admitted_after_a_refusal_leaves_a_period_after_it_was_admitted() -> None:
    asked = full()
    refused_at = NOON + HOUR_S // 2
    rcpt(asked, "bob@example.org", now=refused_at)
    admitted_at = NOON + HOUR_S + 60
    assert not rcpt(asked, "bob@example.org", now=admitted_at).refused
    assert not rcpt(asked, "bob@example.org", now=admitted_at).refused
    assert used(asked) == 2
    (meter,) = asked.meters
    found = meter.find(ALICE, refused_at + HOUR_S + 60)
    assert found is not None
    assert found.used == 1


def test_a_message_that_is_refused_in_several_parts_is_charged_once() -> None:
    asked = full()
    for minutes in (1, 5, 9):
        assert data(asked, 4, now=NOON + minutes * 60).refused
    assert used(asked) == 6
    assert data(asked, 7, now=NOON + 600).refused
    assert used(asked) == 9


def test_with_count_rejected_false_nothing_refused_is_charged() -> None:
    asked = full(count_rejected=False)
    for minutes in (1, 5):
        assert rcpt(asked, "bob@example.org", now=NOON + minutes * 60).refused
    assert used(asked) == 2


# -- a reload ----------------------------------------------------------------------------------------------------------


def reloaded(asked: Policy, **settings: str) -> Counter:
    asked.configure([limit(10, **settings)], rules(), NOON)  # type: ignore[arg-type]
    data(asked, 1, instance="after", now=NOON + 1)
    (meter,) = asked.meters
    return meter.counters[ALICE]


def test_windows_that_slide_from_now_on_count_what_was_used_until_their_end() -> None:
    asked = policy(limit(10, period="daily"))
    data(asked, 4)
    counter = reloaded(asked, period="daily", window="sliding")
    assert counter.used == 5
    assert each_part(counter)[0] == (MIDNIGHT, 4)
    assert sum(asked.pending.by_window(counter).values()) == 5


def test_where_windows_slide_no_more_what_counts_is_used_in_the_present_one() -> None:
    asked = policy(limit(10, period="daily", window="sliding"))
    data(asked, 1, instance="first", now=NOON - 7200)
    data(asked, 4, now=NOON)
    counter = reloaded(asked, period="daily")
    assert (counter.used, counter.expiry, counter.parts) == (6, MIDNIGHT, None)
    assert asked.pending.by_window(counter) == {MIDNIGHT: 6}


def test_what_has_left_when_windows_slide_no_more_does_not_come_back() -> None:
    asked = policy(limit(10, period="1h", window="sliding"))
    data(asked, 8, instance="old", now=NOON - 2 * HOUR_S)
    data(asked, 1, instance="first", now=NOON - 100)
    asked.configure([limit(10, period="1h")], rules(), NOON + 10)
    counter = asked.meters[0].find(ALICE, NOON + 10)
    assert counter is not None
    assert (counter.used, counter.expiry) == (1, NOON + HOUR_S)
    assert asked.pending.by_window(counter) == {NOON + HOUR_S: 1}


@pytest.mark.parametrize("period", ["1h", "10m"])
def test_a_row_that_counts_in_parts_is_used_in_the_present_window_of_a_fixed_limit(period: str) -> None:
    parts = ((NOON - 5, 1), (NOON + 5, 2), (NOON + 600, 3), (NOON + 4 * DAY_S, 9))
    stored = row(ALICE, used=15, expiry=NOON + 4 * DAY_S)._replace(in_parts=15, parts=parts)
    counter = Meter(limit(10, period=period)).accept(ALICE, stored, 0, NOON)
    seconds = length_s(period)
    assert seconds is not None
    assert (counter.used, counter.expiry, counter.parts) == (5, NOON + seconds, None)


def test_parts_in_the_journal_of_a_limit_that_slides_no_more_count_together() -> None:
    meter = Meter(limit(10, period="1h"))
    counters = [meter.replay(ALICE, NOON + 60 * n, NOON) for n in (-1, 1, 2, 50)]
    for n, counter in enumerate(counters):
        meter.charge_again(counter, n + 1)
    assert (counters[0].used, counters[0].expiry) == (1, NOON - 60)
    assert {id(counter) for counter in counters[1:]} == {id(meter.counters[ALICE])}
    assert (counters[1].used, counters[1].expiry) == (9, NOON + 3600)


def test_a_longer_window_lets_go_of_what_was_counted_when_it_was_to_leave() -> None:
    asked = policy(limit(10, period="1h", window="sliding"))
    data(asked, 4)
    counter = reloaded(asked, period="2h", window="sliding")
    assert each_part(counter) == [(NOON + 60 + HOUR_S, 4), (NOON + 120 + 2 * HOUR_S, 1)]


def test_under_a_much_shorter_window_counts_begin_again() -> None:
    asked = policy(limit(10, period="daily", window="sliding"))
    data(asked, 4)
    counter = reloaded(asked, period="1h", window="sliding")
    assert counter.used == 1
    assert counter.knowledge is Knowledge.STORED


def test_a_meter_that_was_replaced_keeps_no_account() -> None:
    asked = policy(limit(10))
    (before,) = asked.meters
    data(asked, 4)
    reloaded(asked, period="daily", window="sliding")
    assert before.counters == {}
    assert isinstance(before, Meter)


def test_a_reload_keeps_no_counter_that_is_stored_and_no_account_s() -> None:
    asked = policy(limit(10, period="daily"))
    data(asked, 4)
    asked.pending.close(2)
    asked.pending.stored(1)
    for _ in range(3):
        for window in ("sliding", "fixed"):
            asked.configure([limit(10, period="daily", window=window)], rules(), NOON)
            (meter,) = asked.meters
            assert meter.earlier == {}
    counter = reloaded(asked, period="daily", window="sliding")
    assert counter.used == 5
    asked.configure([limit(10, period="daily")], rules(), NOON + 1)
    (meter,) = asked.meters
    assert [len(earlier) for earlier in meter.earlier.values()] == [1], "what is not stored is known"


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("period", "words"),
    [("90s", "90-second"), ("1m", "1-minute"), ("10m", "10-minute"), ("hourly", "1-hour"), ("daily", "24-hour"),
     ("36h", "36-hour"), ("2d", "2-day"), ("weekly", "7-day"), ("monthly", "30-day"), ("366d", "366-day")],
)  # fmt: skip
def test_a_length_is_said_in_the_largest_unit(period: str, words: str) -> None:
    seconds = length_s(period)
    assert seconds is not None
    assert in_words(seconds) == words


@pytest.mark.parametrize("period", ["0s", "367d", "10", "1w", "m", "-5m", "1.5h", "99999999d", "yearly", "10m "])
def test_what_is_no_length_is_none(period: str) -> None:
    assert length_s(period) is None


def test_a_charge_in_a_part_is_known_by_the_time_it_leaves() -> None:
    one = account()
    one.send()
    charge(one.policy.pending, one.counter, 2)
    assert one.policy.pending.by_window(one.counter) == {NOON + 60 + HOUR_S: 3}
