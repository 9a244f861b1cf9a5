"""Accounts that come in faster than the store takes them: lookups wait for room, but never for long."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from ratelimitd.errors import StoreError
from ratelimitd.settings import StoreSettings
from ratelimitd.sync import schedule as sync_module
from tests.cluster.test_hurry import Made
from tests.core.build import rcpt

PATIENT_S = 30.0
MAX_ACCOUNTS = 100
SLACK = 10


@pytest.fixture
async def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Made]:
    """A daemon's Sync with little room; nothing flushes by itself."""
    monkeypatch.setattr(sync_module, "SLACK", SLACK)
    made = Made(tmp_path)
    made.sync.configure(StoreSettings(flush_interval_s=3600, refresh_s=3600), MAX_ACCOUNTS)
    await made.sync.begin(0, [])
    yield made
    await made.sync.finish(PATIENT_S)


def fill(made: Made, accounts: int) -> None:
    for number in range(accounts):
        rcpt(made.policy, "bob@example.org", f"{number}.a", login=f"user{number}@example.com")


async def returns_at_once(made: Made) -> bool:
    with trio.move_on_after(0) as scope:
        await made.sync.make_room()
    return not scope.cancelled_caught


async def test_a_lookup_does_not_wait_while_there_is_some_room(made: Made) -> None:
    fill(made, MAX_ACCOUNTS + SLACK)
    assert await returns_at_once(made)
    assert made.sync.held == 0


async def test_a_lookup_waits_until_a_flush_has_made_room(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync_module, "HELD_S", PATIENT_S)
    fill(made, MAX_ACCOUNTS + SLACK + 1)
    assert not await returns_at_once(made)
    with trio.fail_after(PATIENT_S / 2):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.sync.keep)  # the lookup has asked it to hurry
            await made.sync.make_room()
            nursery.cancel_scope.cancel()
    assert len(made.policy.meters[0].counters) == MAX_ACCOUNTS
    assert made.sync.held == 2


async def test_a_lookup_does_not_wait_for_long(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync_module, "HELD_S", 0.01)
    fill(made, MAX_ACCOUNTS + SLACK + 1)
    with trio.fail_after(PATIENT_S):
        await made.sync.make_room()


async def test_a_lookup_does_not_wait_for_a_store_that_is_away(made: Made) -> None:
    made.sync.link.failed(StoreError("away"))
    fill(made, 2 * MAX_ACCOUNTS)
    assert await returns_at_once(made)
