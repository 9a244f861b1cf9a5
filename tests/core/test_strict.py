"""When little is left of a quota, the charge says that other nodes' charges are to be known at once."""

import pytest

from ratelimitd.core.policy import Policy
from tests.core.build import data, limit, policy, rcpt, rules


def strict(quota: int, share: float = 0.1) -> Policy:
    return policy(limit(quota), under=rules(strict_below=share))


def urgent_at(asked: Policy, requests: int) -> list[int]:
    """After which of so many charges of one recipient there was hurry."""
    found = []
    for number in range(1, requests + 1):
        rcpt(asked, f"r{number}@example.org")
        if asked.take_urgent():
            found.append(number)
    return found


def test_there_is_hurry_from_the_last_tenth_until_the_quota_is_used_up() -> None:
    assert urgent_at(strict(100), 130) == list(range(90, 101))


@pytest.mark.parametrize(("quota", "first"), [(1, 1), (2, 1), (5, 4), (10, 9)])
def test_of_a_small_quota_the_last_recipient_is_known_in_time(quota: int, first: int) -> None:
    assert urgent_at(strict(quota), quota + 5) == list(range(first, quota + 1))


def test_a_message_that_jumps_over_the_last_tenth_is_urgent() -> None:
    asked = strict(100)
    data(asked, 300)
    assert asked.urgent


def test_a_share_of_nought_and_an_unlimited_quota_know_no_hurry() -> None:
    assert urgent_at(strict(10, 0.0), 15) == []
    assert urgent_at(strict(0), 15) == []


def test_a_share_of_one_is_always_in_a_hurry() -> None:
    assert urgent_at(strict(10, 1.0), 15) == list(range(1, 11))
