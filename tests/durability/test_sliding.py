"""A sliding limit with journal and database: exact over kills, outages, lost COMMITs and evictions."""

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimitd.core.limits import Limit
from ratelimitd.core.standing import each_part, used_at
from tests.core.build import NOON, rules
from tests.durability.node import Node, make_limit, make_sliding

ALICE = "alice@example.com"
HOUR_S = 3600
FAULTS = ("away", "before", "between", "after")


class Run:
    """One account, over the runs of a daemon on one folder; `mails`: the time, the recipients, whether admitted."""

    def __init__(self, folder: Path, *limits: Limit) -> None:
        self.folder = folder
        self.limits = limits
        self.now = float(NOON)
        self.mails: list[tuple[int, int, bool]] = []
        self.node = self._node()

    def _node(self) -> Node:
        return Node(self.folder, self.limits, lambda: self.now)

    async def send(self, recipients: int = 1) -> bool:
        verdict = await self.node.ask(ALICE, recipients, instance=f"{len(self.mails)}.a")
        self.mails.append((int(self.now), recipients, not verdict.refused))
        return not verdict.refused

    async def kill(self) -> None:
        await self.node.crash()
        self.node = self._node()
        await self.node.start()

    def listed(self, since: float, *, refused: bool) -> int:
        return sum(n for at, n, admitted in self.mails if at > since and (admitted or refused))

    def stored(self) -> dict[int, int]:
        """The history of the first limit."""
        with closing(sqlite3.connect(self.folder / "ratelimit.sqlite3")) as connection:
            return dict(connection.execute("SELECT expiry, used FROM ratelimit_history"))


steps = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.floats(0, 0.7)),
        st.tuples(st.just("send"), st.floats(0, 1)),
        st.tuples(
            st.sampled_from(["flush", "away", "before", "between", "after", "kill", "evict", "sweep"]), st.just(0.0)
        ),
    ),
    min_size=4,
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(steps, st.sampled_from([20, 1000, HOUR_S, 86400]), st.integers(1, 6), st.booleans())
def test_no_interval_of_a_period_has_more_than_the_quota(
    done: list[tuple[str, float]], length: int, quota: int, rejected: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trio.run(_walk, Path(folder), done, make_sliding(length, quota, count_rejected=rejected))


async def _walk(folder: Path, done: list[tuple[str, float]], limit: Limit) -> None:
    run = Run(folder, limit)
    await run.node.start()
    length, rejected = limit.period.latest(0) - limit.period.end(0), limit.count_rejected
    part = max(1, length // 60)
    for what, number in done:
        if what == "wait":
            run.now += round(number * length)
        elif what == "kill":
            await run.kill()
        elif what == "evict":
            run.node.policy.meters[0].evict(1, run.node.policy.pending)
        elif what == "sweep":
            await run.node.sync.sweep()
        elif what == "send":
            recipients = 1 + round(number * limit.quota)
            at_least = run.listed(run.now - length, refused=rejected)
            at_most = run.listed(run.now - length - part, refused=rejected)
            if await run.send(recipients):
                assert at_least + recipients <= limit.quota
            else:
                assert at_most + recipients > limit.quota
        else:
            await run.node.flush("" if what == "flush" else what)
    for at, _, _ in run.mails:
        inside = [n for other, n, admitted in run.mails if at <= other < at + length and admitted]
        assert sum(inside) <= limit.quota
    assert await run.node.flush()
    charged = run.listed(run.now - length, refused=rejected)
    stored = sum(used for leave, used in run.stored().items() if leave > run.now)
    assert charged <= stored <= run.listed(run.now - length - part, refused=rejected)
    await run.node.stop()


async def test_what_a_kill_left_in_the_journal_counts_with_the_parts_that_are_stored(tmp_path: Path) -> None:
    run = Run(tmp_path, make_sliding(HOUR_S, 10))
    await run.node.start()
    for _ in range(3):
        await run.send()
        run.now += 120
        await run.node.flush()
        await run.send()
        run.now += 120
    await run.kill()
    assert await run.send()
    counter = run.node.policy.meters[0].counters[ALICE]
    assert [used for _, used in each_part(counter)] == [1] * 7
    assert await run.node.flush()
    assert sum(run.stored().values()) == 7
    await run.node.stop()


async def test_parts_outlive_a_database_that_was_removed(tmp_path: Path) -> None:
    run = Run(tmp_path, make_sliding(HOUR_S, 10))
    await run.node.start()
    for _ in range(3):
        await run.send()
        await run.node.flush()
        run.now += 120
    before = run.stored()
    (tmp_path / "ratelimit.sqlite3").unlink()
    await run.send()
    await run.node.flush()
    await run.node.flush()
    after = run.stored()
    assert {leave: after[leave] for leave in before} == before
    assert sum(after.values()) == 4
    await run.node.stop()


@pytest.mark.parametrize("flushed", [True, False])
async def test_a_limit_whose_windows_slide_from_now_on_loses_no_count(tmp_path: Path, flushed: bool) -> None:
    fixed, sliding = make_limit(quota=10), make_sliding(86400, 10)
    run = Run(tmp_path, fixed)
    await run.node.start()
    await run.send(4)
    if flushed:
        await run.node.flush()
    run.node.policy.configure([sliding], rules(), int(run.now))
    await run.send(2)
    await run.node.flush()
    run.now += 60
    await run.send(1)
    await run.node.flush()
    assert used_at(run.node.policy.meters[0].counters[ALICE], int(run.now)) == 7
    run.limits = (sliding,)
    await run.kill()
    assert await run.send(3)
    assert not await run.send(1)
    await run.node.stop()


@pytest.mark.parametrize("flushed", [True, False])
async def test_a_limit_whose_windows_slide_no_more_loses_no_count(tmp_path: Path, flushed: bool) -> None:
    sliding, fixed = make_sliding(86400, 10), make_limit(quota=10)
    run = Run(tmp_path, sliding)
    await run.node.start()
    await run.send(4)
    if flushed:
        await run.node.flush()
    run.now += 1500
    await run.send(1)
    run.node.policy.configure([fixed], rules(), int(run.now))
    await run.send(2)
    await run.node.flush()
    assert run.node.policy.meters[0].counters[ALICE].used == 7
    run.limits = (fixed,)
    await run.kill()
    assert await run.send(3)
    assert not await run.send(1)
    await run.node.stop()
