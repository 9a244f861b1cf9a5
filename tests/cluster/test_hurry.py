"""The flush that does not wait for its interval."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from ratelimitd.core.rows import Account, Delta, Grant, Known, Row
from ratelimitd.errors import StoreError
from ratelimitd.stores import Changes, Cursor, Flushed, ZoneWindow
from ratelimitd.stores.history import Kept
from ratelimitd.stores.past import Past
from ratelimitd.stores.remarks import Remarks
from ratelimitd.stores.survey import Rename, Survey
from ratelimitd.sync.schedule import HURRY_GAP_S
from tests.core.build import limit, policy, rcpt, store_sync

PATIENT_S = 30.0


class Counting:
    """A store that only counts its flushes, and fails them when told to."""

    name = "counting"
    past: Past

    def __init__(self) -> None:
        self.flushed_at: list[float] = []
        self.away = False
        self.remarks = Remarks()

    def configure(self, timeout_s: float, kept: Kept) -> None:
        pass

    async def open(self) -> None:
        await trio.lowlevel.checkpoint()

    async def close(self) -> None:
        await trio.lowlevel.checkpoint()

    async def forget(self, but: Collection[str], now: int) -> None:
        pass

    async def forget_history(self, now: int) -> bool:
        return False

    async def compare(self, mine: Sequence[ZoneWindow], gone: Sequence[ZoneWindow]) -> list[ZoneWindow]:
        return []

    async def check(self) -> None:
        pass

    async def restore(self, known: Sequence[Known], now: int) -> None:
        pass

    async def lookup(self, accounts: Sequence[Account], now: int) -> list[Row]:
        return []

    async def grant(self, grant: Grant, now: int) -> list[Row]:
        return []

    async def reset(self, accounts: Sequence[Account], now: int) -> list[Row]:
        return []

    async def recorded(self, node: str) -> int:
        return 0

    async def settle_default(self, *, change: bool) -> None:
        pass

    async def note_given(self) -> None:
        pass

    async def settle(self, present: Delta, after: int) -> int:
        return 0

    async def survey(self) -> Survey:
        return Survey([], [])

    async def adopt(self, renames: Sequence[Rename], now: int) -> list[Row]:
        return []

    async def changes(self, cursor: Cursor | None, now: int) -> Changes:
        return Changes([], Cursor(0))

    async def flush(self, node: str, segment: int, merge: Callable[[int], Iterable[Delta]]) -> Flushed:
        self.flushed_at.append(trio.current_time())
        if self.away:
            raise StoreError("away")
        return Flushed([], [])


class Made:
    """A StoreSync over a Counting store, with a charge to store whenever one is wanted."""

    def __init__(self, folder: Path) -> None:
        self.store = Counting()
        self.policy = policy(limit(1000))
        self.sync = store_sync(self.store, self.policy, folder, flush_interval_s=3600, refresh_s=3600)
        self._charged = 0

    def charge(self) -> None:
        self._charged += 1
        rcpt(self.policy, f"r{self._charged}@example.org")


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Made]:
    """It runs, with an interval that no test waits for."""
    made = Made(tmp_path)
    await made.sync.begin(0, [])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.sync.keep)
        yield made
        nursery.cancel_scope.cancel()
    await made.sync.finish(PATIENT_S)


async def until(flushes: int, made: Made) -> None:
    with trio.fail_after(PATIENT_S):
        while len(made.store.flushed_at) < flushes:
            made.charge()
            made.sync.hurry()
            await trio.sleep(0.005)


async def test_hurry_flushes_long_before_the_interval_is_over(made: Made) -> None:
    await until(1, made)


async def test_a_flood_of_hurry_is_not_a_flood_of_flushes(made: Made) -> None:
    await until(6, made)
    times = made.store.flushed_at
    assert all(later - earlier >= HURRY_GAP_S for earlier, later in pairwise(times))


@pytest.mark.parametrize("flush_interval_s", [3600, 40, 30, 7])
async def test_changes_are_taken_over_each_refresh_s_and_a_flush_comes_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock, flush_interval_s: int
) -> None:
    """The flush notices that the database is an older one, before memory believes its rows."""
    sync = store_sync(Counting(), policy(limit(1000)), tmp_path, flush_interval_s=flush_interval_s, refresh_s=30)
    done: list[tuple[str, int]] = []
    began = trio.current_time()

    def note(what: str) -> Callable[[], Awaitable[bool]]:
        async def noted() -> bool:
            done.append((what, round(trio.current_time() - began)))
            return True

        return noted

    for what in ("flush", "refresh"):
        monkeypatch.setattr(sync, what, note(what))
    with trio.move_on_after(300.5):
        await sync.keep()
    assert [at for what, at in done if what == "refresh"] == list(range(30, 301, 30))
    flushes = [0, *(at for what, at in done if what == "flush")]
    assert max(later - earlier for earlier, later in pairwise(flushes)) == min(flush_interval_s, 30)
    assert all(before == ("flush", at) for before, (what, at) in pairwise(done) if what == "refresh")


async def test_there_is_no_hurry_towards_a_store_that_is_away(made: Made) -> None:
    made.store.away = True
    await until(1, made)
    with trio.fail_after(PATIENT_S):
        while made.sync.link.up:  # noqa: ASYNC110
            await trio.sleep(0.01)
    await trio.sleep(HURRY_GAP_S * 3)  # what was in a hurry before it was known to be away
    before = len(made.store.flushed_at)
    for _ in range(10):
        made.charge()
        made.sync.hurry()
        await trio.sleep(HURRY_GAP_S / 4)
    assert len(made.store.flushed_at) == before
