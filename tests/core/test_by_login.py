"""Counters that are at hand by login: the key function is not asked again, and nothing else is different."""

from dataclasses import replace
from typing import Literal, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimitd.core.counters import KEPT_LOGINS, Meter
from ratelimitd.core.policy import Policy
from ratelimitd.keys import KeyFunction, of_login
from ratelimitd.request import Request
from tests.core.build import DAY_S, NOON, ask, limit, policy, request, row, rules, used

ALICE = "alice@example.com"
Window = Literal["fixed", "sliding"]


class Asked:
    """A policy of one limit whose key function notes the logins that it is called for."""

    def __init__(self, *, declared: bool = True, quota: int = 1000, window: Window = "fixed") -> None:
        self.logins: list[str] = []
        function: KeyFunction = of_login(self._key) if declared else self._key
        self.policy: Policy = policy(limit(quota, key=function, window=window))
        self._number = 0

    def _key(self, asked: Request) -> str | None:
        self.logins.append(asked.login)
        if asked.login == "broken":
            raise LookupError
        return asked.login[:20] or None

    def charge(self, login: str, now: int = NOON) -> tuple[bool, int]:
        self._number += 1
        verdict = ask(self.policy, request(login=login, instance=f"{self._number}.a"), now)
        return verdict.refused, verdict.used


@pytest.mark.parametrize("window", get_args(Window))
def test_a_function_of_the_login_is_not_asked_again_about_one_that_is_known(window: Window) -> None:
    asked = Asked(window=window)
    assert [asked.charge(login)[1] for login in ("alice", "BOB", "alice", "BOB", "alice")] == [1, 1, 2, 2, 3]
    assert asked.logins == ["alice", "BOB"] * 2  # the second time it was found in memory


def test_any_other_function_is_asked_about_every_request() -> None:
    asked = Asked(declared=False)
    assert [asked.charge("alice")[1] for _ in range(5)] == [1, 2, 3, 4, 5]
    assert asked.logins == ["alice"] * 5


@pytest.mark.parametrize("login", ["", "broken", "x" * 256])
def test_what_has_no_key_fails_or_is_endless_is_asked_about_every_time(login: str) -> None:
    asked = Asked()
    for _ in range(5):
        asked.charge(login)
    assert asked.logins == [login] * 5


def test_the_counters_of_endlessly_many_logins_are_not_at_hand() -> None:
    asked = Asked()
    for _ in range(2):
        for number in range(KEPT_LOGINS + 10):
            asked.charge(f"user{number}")
    [meter] = asked.policy.meters
    assert 0 < len(meter.by_login) <= KEPT_LOGINS
    assert len(meter.counters) == KEPT_LOGINS + 10


def test_an_account_that_was_evicted_is_looked_up_again() -> None:
    asked = Asked()
    for _ in range(3):
        asked.charge("alice")
    [meter] = asked.policy.meters
    asked.policy.pending.open.deltas.clear()  # as stored
    assert meter.evict(10, asked.policy.pending) == 1
    assert ask(asked.policy, request(login="alice", instance="b"), rows={"alice": row("alice", used=7)}).used == 8
    assert meter.counters["alice"].used == 8
    assert asked.charge("alice") == (False, 9)


def test_a_window_that_another_node_has_begun_is_what_is_charged() -> None:
    asked = Asked()
    for _ in range(3):
        asked.charge("alice")
    [meter] = asked.policy.meters
    later = meter.counters["alice"].expiry + DAY_S
    meter.accept("alice", row("alice", used=5, expiry=later), 0, NOON)
    assert asked.charge("alice") == (False, 6)


def test_after_a_reload_the_new_function_is_asked() -> None:
    asked = Asked()
    for _ in range(3):
        asked.charge("alice")
    [meter] = asked.policy.meters
    fresh = replace(meter.limit, key_of=lambda _: "everybody", of_login=False)
    asked.policy.configure([fresh], rules(), NOON)
    assert asked.charge("alice") == (False, 1)
    assert used(asked.policy, "everybody") == 1


steps = st.lists(
    st.tuples(
        st.sampled_from(["charge", "evict", "drop", "store"]), st.sampled_from(["a", "b", "c"]), st.integers(0, 3)
    ),
    max_size=60,
)


@given(steps)
def test_whatever_happens_counts_are_the_same_as_without(happened: list[tuple[str, str, int]]) -> None:
    both = [Asked(quota=5), Asked(declared=False, quota=5)]
    for what, login, day in happened:
        found = [_step(asked, what, login, NOON + day * DAY_S) for asked in both]
        assert found[0] == found[1]
    counts = [{key: (c.used, c.expiry) for key, c in _meter(asked).counters.items()} for asked in both]
    assert counts[0] == counts[1]


def _meter(asked: Asked) -> Meter:
    return asked.policy.meters[0]


def _step(asked: Asked, what: str, login: str, now: int) -> object:
    pending = asked.policy.pending
    match what:
        case "charge":
            return asked.charge(login, now)
        case "evict":
            return _meter(asked).evict(1, pending)
        case "drop":
            _meter(asked).drop_ended(["a", "b", "c"], now, pending)
        case "store":
            pending.open.deltas.clear()
    return None
