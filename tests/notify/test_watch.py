"""Which shares of a quota are told, and that each is told once per window."""

from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimitd.core.counters import Counter, Meter
from ratelimitd.core.parts import NEVER
from ratelimitd.core.policy import Policy
from ratelimitd.notify.notices import Watch, identify
from ratelimitd.stores.sqlite import SQLiteStore
from tests.core.build import DAY_S, MIDNIGHT, NOON, data, limit, policy, rcpt, row, rules, store_sync


def watched(quota: int, *percents: int, max_waiting: int = 1000, count_rejected: bool = True) -> tuple[Policy, Watch]:
    watch = Watch(nobody)
    watch.configure({"default": percents}, max_waiting)
    return policy(limit(quota, count_rejected=count_rejected), watch=watch), watch


def nobody() -> None:
    """Is woken."""


def told(watch: Watch) -> list[tuple[str, int, int]]:
    return [(notice.key, notice.percent, notice.used) for notice in watch.queue]


def test_each_share_is_told_once_when_it_is_reached() -> None:
    asked, watch = watched(10, 80, 100)
    for n in range(20):
        rcpt(asked, f"{n}@example.org")
    assert told(watch) == [("alice@example.com", 80, 8), ("alice@example.com", 100, 10)]


def test_nothing_is_told_below_the_first_share() -> None:
    asked, watch = watched(10, 80, 100)
    data(asked, 7)
    assert told(watch) == []


def test_one_mail_that_passes_two_shares_is_told_of_twice() -> None:
    asked, watch = watched(1000, 100, 80)
    data(asked, 1000)
    assert [percent for _, percent, _ in told(watch)] == [80, 100]


def test_a_share_of_a_small_quota_is_rounded_up() -> None:
    asked, watch = watched(3, 50)
    data(asked, 1)
    assert told(watch) == []
    data(asked, 1, instance="2.a")
    assert told(watch) == [("alice@example.com", 50, 2)]


def test_an_unlimited_account_is_never_told_of() -> None:
    asked, watch = watched(0, 80)
    data(asked, 1_000_000)
    assert told(watch) == []


def test_the_next_window_is_told_of_anew() -> None:
    asked, watch = watched(10, 100)
    data(asked, 10)
    data(asked, 10, instance="2.a", now=NOON + DAY_S)
    assert len({notice.id for notice in watch.queue}) == 2
    assert [notice.expiry for notice in watch.queue] == [MIDNIGHT, MIDNIGHT + DAY_S]


async def test_what_other_nodes_used_is_told_of_when_it_is_read(tmp_path: Path) -> None:
    asked, watch = watched(10, 80)
    data(asked, 1)
    sync = store_sync(SQLiteStore(tmp_path / "ratelimit.sqlite3"), asked, tmp_path, lambda: NOON)
    await sync.loader.take_over([row("alice@example.com", quota=10, configured=10, used=6)])
    assert told(watch) == []
    await sync.loader.take_over([row("alice@example.com", quota=10, configured=10, used=7)])
    assert told(watch) == [("alice@example.com", 80, 8)]


def test_what_an_earlier_run_told_is_not_told_again() -> None:
    asked, watch = watched(10, 80, 100)
    (meter,) = asked.meters
    counter = meter.accept("alice@example.com", row("alice@example.com", used=8, quota=10, configured=10), 0, NOON)
    watch.notified[identify(counter, 80)] = MIDNIGHT
    rcpt(asked, "b@example.org")
    rcpt(asked, "c@example.org")
    assert told(watch) == [("alice@example.com", 100, 10)]


def test_a_refused_mail_that_is_larger_than_what_is_left_is_told_as_a_quota_reached() -> None:
    asked, watch = watched(10, 100, count_rejected=False)
    assert data(asked, 11).refused
    assert told(watch) == [("alice@example.com", 100, 0)]
    data(asked, 11, instance="2.a")
    assert len(watch.queue) == 1


def test_a_raised_quota_moves_the_shares_that_were_not_told() -> None:
    asked, watch = watched(10, 80, 100)
    data(asked, 8)
    (meter,) = asked.meters
    meter.accept("alice@example.com", row("alice@example.com", quota=100, persist=True, used=8), 0, NOON)
    data(asked, 80, instance="2.a")
    assert [percent for _, percent, _ in told(watch)] == [80]
    data(asked, 12, instance="3.a")
    assert told(watch)[1:] == [("alice@example.com", 100, 100)]


def test_a_lowered_quota_moves_the_shares_that_were_not_told() -> None:
    asked, watch = watched(100, 50, 100)
    data(asked, 60)
    (meter,) = asked.meters
    meter.accept("alice@example.com", row("alice@example.com", quota=70, persist=True, used=60), 0, NOON)
    data(asked, 10, instance="2.a")
    assert told(watch)[1:] == [("alice@example.com", 100, 70)]


def test_shares_that_a_reload_adds_are_told_of() -> None:
    asked, watch = watched(100, 50, 100)
    data(asked, 60)
    watch.configure({"default": (50, 70, 100)}, 1000)
    asked.configure([limit(100)], rules(), NOON)
    data(asked, 10, instance="2.a")
    assert told(watch)[1:] == [("alice@example.com", 70, 70)]


@pytest.mark.parametrize("window", ["fixed", "sliding"])
def test_one_limit_of_two_may_have_notices(window: Literal["fixed", "sliding"]) -> None:
    watch = Watch(nobody)
    watch.configure({"told": (80,)}, 1000)
    asked = policy(limit(10), limit(10, name="told", window=window, period="hourly"), watch=watch)
    data(asked, 8)
    assert told(watch) == [("alice@example.com", 80, 8)]


class Counting(Watch):
    """A Watch that knows how often it looked."""

    looks = 0

    def look(self, counter: Counter, refused: bool = False) -> None:
        self.looks += 1
        super().look(counter, refused)


@pytest.mark.parametrize(("quota", "looks"), [(0, 0), (10, 2)])
def test_accounts_are_looked_at_where_they_reach_a_share_and_not_at_each_mail(quota: int, looks: int) -> None:
    watch = Counting(nobody)
    watch.configure({"default": (80, 100)}, 1000)
    asked = policy(limit(quota), watch=watch)
    for n in range(50):
        rcpt(asked, f"{n}@example.org")
    assert watch.looks == looks


def test_what_is_known_of_an_account_that_was_looked_at_goes_with_it() -> None:
    asked, _ = watched(10, 80)
    data(asked, 8)
    (meter,) = asked.meters
    assert meter.find("alice@example.com", NOON + DAY_S) is not None
    assert meter.notices == {}
    data(asked, 8, instance="2.a", now=NOON + DAY_S)
    assert meter.notices
    meter.forget()
    assert meter.notices == {}


def test_a_full_queue_drops_and_counts_and_the_next_mail_tries_again() -> None:
    asked, watch = watched(1, 100, max_waiting=1)
    rcpt(asked, "b@example.org", login="a@example.com", instance="1.a")
    rcpt(asked, "b@example.org", login="b@example.com", instance="2.a")
    assert [key for key, *_ in told(watch)] == ["a@example.com"]
    assert watch.dropped == 1
    watch.queue.clear()
    rcpt(asked, "c@example.org", login="b@example.com", instance="3.a")
    assert [key for key, *_ in told(watch)] == ["b@example.com"]


def test_windows_that_are_over_are_forgotten() -> None:
    watch = Watch(nobody)
    watch.notified = {"ended": NOON, "running": NOON + 1}
    watch.forget_ended(NOON)
    assert watch.notified == {"running": NOON + 1}


def test_without_notify_a_counter_is_never_looked_at() -> None:
    meter = Meter(limit(10))
    assert meter.accept("a", None, 0, NOON).notice_at == NEVER


@given(
    st.integers(1, 200),
    st.lists(st.integers(1, 150), min_size=1, max_size=4),
    st.lists(st.integers(1, 30), max_size=30),
)
def test_what_is_told_is_what_was_reached_and_once(quota: int, percents: list[int], mails: list[int]) -> None:
    asked, watch = watched(quota, *percents)
    for n, recipients in enumerate(mails):
        data(asked, recipients, instance=f"{n}.a")
    # Over quota is refused, and counted: 100 is reached with the first refusal at the latest.
    reached = [percent for percent in sorted(set(percents)) if sum(mails) * 100 >= percent * quota]
    assert [notice.percent for notice in watch.queue] == reached
    assert all(notice.used * 100 >= notice.percent * quota for notice in watch.queue)


@pytest.mark.parametrize("key", ["a\0b", "ümlaut@example.com", "x" * 300])
def test_an_id_tells_accounts_windows_and_shares_apart(key: str) -> None:
    meter = Meter(limit(10))
    counters = [meter.accept(name, None, 0, now) for name in (key, key + "1") for now in (NOON, NOON + DAY_S)]
    ids = {identify(counter, percent) for counter in counters for percent in (1, 11)}
    assert len(ids) == 8
