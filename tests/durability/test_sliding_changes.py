"""A limit whose windows slide, changed while accounts count: by reloads, resets and edits of rows.

Whatever memory knows of an account, the store knows the same once it is flushed.
"""

import random
import tempfile
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimitd.core.limits import Limit
from ratelimitd.core.rows import Account
from ratelimitd.core.standing import apart, each_part, used_at
from ratelimitd.settings import StoreSettings
from tests.core.build import limit, rules
from tests.durability.test_sliding import ALICE, Run

MINUTE_S = 60
QUOTA = 10


def sliding(period: str, quota: int = QUOTA) -> Limit:
    return limit(quota, period=period, window="sliding")


def fixed(period: str, quota: int = QUOTA) -> Limit:
    return limit(quota, period=period)


async def started(folder: Path, of: Limit, **others: int) -> Run:
    run = Run(folder, of, **others)
    await run.node.start()
    return run


def reload(run: Run, of: Limit) -> None:
    run.limits = (of,)
    run.node.policy.configure([of], rules(), int(run.now))
    run.node.sync.configure(StoreSettings(), 1000)


async def reset(run: Run) -> None:
    """As `ratelimitctl reset` does it."""
    assert await run.node.flush()
    rows = await run.node.store.reset([Account("default", ALICE)], int(run.now))
    run.node.sync.loader.accept(rows)


async def forget(run: Run, how: str) -> None:
    """Have memory lose the account, which is stored."""
    if how == "evict":
        assert run.node.policy.meters[0].evict(1, run.node.policy.pending)
    elif how == "restart":
        await run.kill()


def counts(run: Run) -> int:
    return used_at(run.node.policy.meters[0].counters[ALICE], int(run.now))


FORGET = pytest.mark.parametrize("how", ["not", "evict", "restart"])


@FORGET
async def test_what_was_charged_while_the_window_was_fixed_still_counts_when_it_slides_again(
    tmp_path: Path, how: str
) -> None:
    run = await started(tmp_path, sliding("10m"))
    assert await run.send(3)
    assert await run.node.flush()
    reload(run, fixed("10m"))
    assert await run.send(6)
    assert await run.node.flush()
    reload(run, sliding("10m"))
    await forget(run, how)
    assert not await run.send(2)
    assert await run.node.flush()
    assert counts(run) == 11
    await forget(run, how)
    assert not await run.send(1)
    await run.node.stop()


@FORGET
async def test_what_is_not_stored_when_the_window_becomes_fixed_adds_up_with_what_is(tmp_path: Path, how: str) -> None:
    run = await started(tmp_path, sliding("10m"))
    assert await run.send(5)
    assert await run.node.flush()
    run.now += 8 * MINUTE_S
    assert await run.send(3)
    reload(run, fixed("10m"))
    assert await run.node.flush()
    assert counts(run) == 8
    await forget(run, how)
    run.now += 1 * MINUTE_S
    assert not await run.send(3)
    run.now += 1 * MINUTE_S
    assert await run.send(QUOTA)
    await run.node.stop()


@FORGET
async def test_under_a_shorter_window_nothing_leaves_before_it_was_to_leave(tmp_path: Path, how: str) -> None:
    run = await started(tmp_path, sliding("10m"))
    for _ in range(3):
        assert await run.send(3)
        run.now += 3 * MINUTE_S
    assert await run.node.flush()
    reload(run, sliding("5m"))
    await forget(run, how)
    assert not await run.send(2)
    run.now += 1 * MINUTE_S + 10
    await forget(run, how) if how == "restart" else None
    assert await run.send(1)
    await run.node.stop()


@pytest.mark.parametrize("change", ["shorter", "slides", "nodes"])
async def test_after_a_reset_what_is_sent_counts_once(tmp_path: Path, change: str) -> None:
    run = await started(tmp_path, fixed("10m") if change == "slides" else sliding("10m"))
    assert await run.send(4)
    if change == "nodes":
        run.now += 7  # the other node's clock is 7 s ahead: its part leaves later
        assert await run.send(1)
        assert await run.node.flush()
        run.now -= 7
    assert await run.node.flush()
    if change != "nodes":
        reload(run, sliding("9m"))
    await reset(run)
    for n in range(1, 5):
        assert await run.send(1)
        assert await run.node.flush()
        assert counts(run) == n
    await forget(run, "restart")
    assert await run.send(6)
    assert not await run.send(1)
    assert await run.node.flush()
    assert sum(used for leave, used in run.stored().items() if leave > run.now) == 11
    await run.node.stop()


async def test_parts_that_leave_too_late_to_count_do_not_come_back_after_a_reset(tmp_path: Path) -> None:
    run = await started(tmp_path, sliding("10m"))
    assert await run.send(8)
    assert await run.node.flush()
    reload(run, sliding("2m"))
    await reset(run)
    for _ in range(9):  # what was counted before would leave a minute later
        assert await run.send(1)
        assert await run.node.flush()
        run.now += MINUTE_S
    await forget(run, "restart")
    assert await run.send(QUOTA - 2)
    await run.node.stop()


async def test_what_somebody_sets_counts_until_the_last_part_was_to_leave(tmp_path: Path) -> None:
    run = await started(tmp_path, sliding("10m"))
    assert await run.send(3)
    run.now += 5 * MINUTE_S
    assert await run.send(3)
    assert await run.node.flush()
    run.node.edit("UPDATE ratelimit SET used = 9")
    await forget(run, "restart")
    assert await run.send(1)
    assert await run.node.flush()
    run.now += 6 * MINUTE_S  # the first three would have left
    await forget(run, "restart")
    assert not await run.send(1)
    run.now += 6 * MINUTE_S
    assert await run.send(8)
    await run.node.stop()


FAR = 22_000 * 86_400  # beyond the time of the machine, which stands in the rows


@FORGET
async def test_what_was_used_before_the_window_became_fixed_ends_with_that_window(tmp_path: Path, how: str) -> None:
    run = await started(tmp_path, sliding("daily"))
    run.now = FAR - 2 * 3600
    assert await run.send(QUOTA)
    assert await run.node.flush()
    run.now += 3600
    reload(run, fixed("daily"))
    await run.node.sync.settle()
    run.now += 3600 + 300
    await forget(run, how)
    assert await run.send(QUOTA)
    assert await run.node.flush()
    assert counts(run) == QUOTA
    await forget(run, how)
    assert not await run.send(1)
    await run.node.stop()


@pytest.mark.parametrize("away", [False, True])
async def test_that_window_is_the_one_of_the_change_also_where_the_next_begins_before_the_store_knows(
    tmp_path: Path, away: bool
) -> None:
    run = await started(tmp_path, sliding("daily"))
    run.now = FAR - 2
    assert await run.send(QUOTA)
    assert await run.node.flush()
    reload(run, fixed("daily"))
    if away:
        await run.node.flush("away")
    run.now += 60
    assert await run.send(1)
    await run.node.sync.settle()
    assert await run.node.flush()
    assert counts(run) == 1
    await forget(run, "restart")
    assert await run.send(QUOTA - 1)
    await run.node.stop()


@FORGET
@pytest.mark.parametrize("before", [sliding("daily"), fixed("daily")], ids=["sliding", "fixed"])
@pytest.mark.parametrize("after", [sliding("hourly"), fixed("hourly")], ids=["sliding", "fixed"])
async def test_what_ends_too_late_for_a_shorter_window_does_not_come_back_when_its_time_nears(
    tmp_path: Path, before: Limit, after: Limit, how: str
) -> None:
    run = await started(tmp_path, before)
    run.now = FAR + 100
    assert await run.send(QUOTA)
    assert await run.node.flush()
    reload(run, after)
    await run.node.sync.settle()
    for _ in range(26):
        run.now += 3600
        await forget(run, how)
        assert await run.send(3), run.now - FAR
        assert await run.node.flush()
    await run.node.stop()


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("reloaded", [False, True])
async def test_parts_in_the_journal_end_with_the_present_window_of_a_limit_that_slides_no_more(
    tmp_path: Path, stored: bool, reloaded: bool
) -> None:
    run = await started(tmp_path, sliding("daily"))
    run.now = FAR - 12 * 3600
    assert await run.send(4)
    if stored:
        assert await run.node.flush()
    assert await run.send(4)
    if reloaded:
        reload(run, fixed("daily"))
        assert await run.send(1)
    run.limits = (fixed("daily"),)
    await run.kill()
    assert not await run.send(3)
    assert await run.node.flush()
    assert run.node.policy.meters[0].counters[ALICE].expiry == FAR
    run.now = FAR + 3600
    assert await run.send(QUOTA)
    await run.node.stop()


async def test_after_a_reset_windows_are_those_of_the_calendar(tmp_path: Path) -> None:
    run = await started(tmp_path, sliding("daily"))
    run.now = FAR - 12 * 3600
    assert await run.send(3)
    await reset(run)
    reload(run, fixed("daily"))
    await run.node.sync.settle()
    await forget(run, "evict")
    assert await run.send(QUOTA)
    assert await run.node.flush()
    run.now = FAR + 3600
    assert await run.send(1)
    await run.node.stop()


KINDS = [sliding("10m"), sliding("2m"), sliding("1h"), fixed("10m"), fixed("2m"), fixed("1h"), fixed("daily")]

steps = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.integers(0, 900)),
        st.tuples(st.just("send"), st.integers(1, 4)),
        st.tuples(st.just("reload"), st.integers(0, len(KINDS) - 1)),
        st.tuples(st.sampled_from(["flush", "before", "after", "reset", "evict", "kill", "stop"]), st.just(0)),
    ),
    min_size=4,
    max_size=25,
)


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(KINDS), steps)
def test_the_store_knows_what_memory_knows_whatever_the_limit_becomes(
    first: Limit, done: list[tuple[str, int]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trio.run(_walk, Path(folder), first, done)


@pytest.mark.long
def test_the_store_knows_what_memory_knows_in_many_random_walks() -> None:
    for number in range(1000):
        seed = random.randrange(1 << 32)
        print("seed", seed)
        chance = random.Random(seed)
        done = [
            (chance.choice(["wait", "send", "send", "send", "reload", "flush", "after", "reset", "evict", "kill"]), 0)
            for _ in range(40)
        ]
        bounds = {"wait": 900, "send": 4, "reload": len(KINDS) - 1}
        with tempfile.TemporaryDirectory() as folder:
            trio.run(
                _walk, Path(folder), KINDS[number % 7], [(w, chance.randrange(bounds.get(w, 0) + 1)) for w, _ in done]
            )


async def _walk(folder: Path, first: Limit, done: list[tuple[str, int]]) -> None:
    run = await started(folder, first)
    run.now = FAR
    for what, number in [*done, ("flush", 0)]:
        if what == "wait":
            run.now += number
        elif what == "send":
            await run.send(max(1, number))
        elif what == "reload":
            reload(run, KINDS[number])
            await run.node.sync.settle()
            await run.send(1)
            await run.node.flush()
        elif what == "reset":
            await reset(run)
        elif what == "evict":
            run.node.policy.meters[0].evict(1, run.node.policy.pending)
        elif what in ("kill", "stop"):
            if what == "stop":
                await run.node.stop()
            await run.kill()
            await run.node.sync.settle()
        else:
            await run.node.flush("" if what == "flush" else what)
        await _agree(run)
    await run.node.stop()


async def _agree(run: Run) -> None:
    """Where nothing is left to store, what the store has of the account is what memory has."""
    (meter,) = run.node.policy.meters
    now = int(run.now)
    counter = meter.find(ALICE, now)
    if counter is None or run.node.policy.pending.by_window(counter):
        return
    rows = await run.node.store.lookup([Account("default", ALICE)], now)
    stored = apart(meter, ALICE, rows[0] if rows else None, now)
    if meter.limit.sliding:
        known = [part for part in each_part(counter) if part[1] and part[0] > now]
        assert [part for part in each_part(stored) if part[1] and part[0] > now] == known
    else:  # a window may be one with the first after the change, as one of another time zone would be
        assert used_at(stored, now) >= used_at(counter, now)
