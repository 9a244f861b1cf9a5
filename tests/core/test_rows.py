"""Which quota is in force for a stored row."""

import pytest

from tests.core.build import MIDNIGHT, NOON, row

BEFORE, AFTER = NOON - 3600, MIDNIGHT + 3600


@pytest.mark.parametrize(
    ("quota", "configured", "persist", "updated", "now", "in_force"),
    [
        (1000, 1000, False, BEFORE, NOON, 50),  # as the configuration had it: as it has it now
        (1000, 1000, False, BEFORE, AFTER, 50),
        (2000, 1000, False, BEFORE, NOON, 2000),  # a grant, in its window
        (2000, 1000, False, BEFORE, AFTER, 50),  # the window is over
        (2000, 1000, False, AFTER, AFTER, 2000),  # made after the window's end: for the next
        (2000, 1000, True, BEFORE, AFTER, 2000),  # persistent
        (1000, 1000, True, BEFORE, AFTER, 1000),
        (0, 1000, False, BEFORE, NOON, 0),  # unlimited for today
        (1000, None, False, BEFORE, NOON, 1000),  # somebody else's row
        (1000, None, False, BEFORE, AFTER, 50),
    ],
)
def test_the_quota_in_force(
    quota: int, configured: int | None, persist: bool, updated: int, now: int, in_force: int
) -> None:
    stored = row("alice", quota=quota, configured=configured, persist=persist, updated=updated)
    assert stored.quota_at(now, 50) == in_force


def test_a_row_that_was_never_used_has_its_own_quota() -> None:
    assert row("alice", quota=7, configured=None, expiry=0, updated=NOON).quota_at(NOON, 50) == 7
