"""Limits: which quota is configured for whom, and what is answered beyond it."""

from datetime import UTC

import pytest

from ratelimitd.core.action import Template
from ratelimitd.core.calendars import Calendar
from ratelimitd.core.limits import Limit

QUOTAS = {"boss@example.com": 5000, "@example.com": 200, "robot": 0, "@robots.example": 0}


def limit(quotas: dict[str, int]) -> Limit:
    action = Template("450 4.7.1 {period} {used}/{quota} {key} {reset}")
    period = Calendar("daily", UTC, "sunday")
    return Limit("default", "email", lambda request: request.login, period, 100, action, quotas)


@pytest.mark.parametrize(
    ("key", "quota"),
    [
        ("boss@example.com", 5000),
        ("alice@example.com", 200),
        ("a@b@example.com", 200),
        ("example.com", 200),
        ("alice@sub.example.com", 100),
        ("alice@other.org", 100),
        ("alice", 100),
        ("robot", 0),
        ("r2@robots.example", 0),
        ("@example.com", 200),
    ],
)
def test_an_account_s_own_quota_goes_before_its_domain_s_before_the_limit_s(key: str, quota: int) -> None:
    assert limit(QUOTAS).configured_quota(key) == quota


def test_without_exceptions_everyone_has_the_limit_s_quota() -> None:
    assert limit({}).configured_quota("alice@example.com") == 100


def test_a_refusal_says_use_quota_key_period_and_reset() -> None:
    assert limit({}).refusal("alice", 101, 100, 86400) == (
        b"action=450 4.7.1 daily 101/100 alice 1970-01-02 00:00 +0000\n\n"
    )
