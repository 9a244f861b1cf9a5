"""Which quota is in force for a stored row, and what is a row at all."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimitd.core.rows import Row, Unreadable, read
from ratelimitd.stores.remarks import Remarks
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


@pytest.mark.parametrize(
    ("quota", "seen", "expiry", "updated", "in_force"),
    [
        (2000, 2000, MIDNIGHT, NOON, 2000),  # a grant, in its window
        (2000, 2000, NOON - 60, NOON - 30, 50),  # the window is over, and who touches the row renews nothing
        (2000, 1000, NOON - 60, NOON - 30, 2000),  # given since
        (2000, None, NOON - 60, NOON - 30, 2000),
        (2000, 1000, NOON - 60, NOON - 90, 50),  # given before, when nobody looked
        (2000, None, 0, NOON, 2000),  # never used
    ],
)
def test_a_grant_is_known_by_what_was_seen_in_its_window(
    quota: int, seen: int | None, expiry: int, updated: int, in_force: int
) -> None:
    stored = row("alice", quota=quota, configured=1000, expiry=expiry, updated=updated)._replace(seen=seen)
    assert stored.quota_at(NOON, 50) == in_force


GOOD = ("daily", "alice", 10, 10, 0, 3, MIDNIGHT, NOON, 10, 0, None)


@pytest.mark.parametrize(
    ("place", "value", "read_as"),
    [
        ("quota", None, 0),
        ("quota", -1, 0),
        ("quota", "12", 12),
        ("quota", b"12", 12),
        ("quota", "-1", 0),
        ("quota", 1 << 62, 4_294_967_295),
        ("used", None, 0),
        ("used", Decimal(7), 7),
        ("used", Decimal("7.00"), 7),
        ("used", 7.0, 7),
        ("expiry", float(MIDNIGHT), MIDNIGHT),
        ("quota", Decimal("-1.0"), 0),
        ("quota", "12.0", 12),
        ("persist", 1.0, True),
        ("used", 1 << 62, 4_294_967_295),
        ("persist", None, False),
        ("persist", "1", True),
        ("persist", True, True),
        ("expiry", None, 0),
        ("expiry", 1 << 63, 1 << 62),
        ("configured", None, None),
        ("seen", None, None),
        ("until", None, 0),
        ("until", "12", 12),
        ("until", 1 << 63, 4_294_967_295),  # the year 2106
        ("configured", 1 << 63, 4_294_967_295),
        ("configured", -1, 0),
        ("seen", "-1", 0),
        ("seen", "9" * 19, 4_294_967_295),
        ("seen", b"9" * 19, 4_294_967_295),
        ("updated", None, 0),
        ("updated", 1 << 63, 1 << 62),
        ("updated", Decimal("1795709030.123456"), 1795709030),
        ("updated", "yesterday", 0),
        ("in_parts", None, None),
        ("in_parts", "12", 12),
        ("in_parts", 1 << 62, 4_294_967_295),
    ],
)
def test_a_value_with_a_plain_meaning_gets_it(place: str, value: object, read_as: object) -> None:
    index = Row._fields.index(place)
    found = read((*GOOD[:index], value, *GOOD[index + 1 :]))
    assert isinstance(found, Row)
    assert found == (*found[:index], read_as, *found[index + 1 :])
    assert (found.limit, found.key) == GOOD[:2]


@pytest.mark.parametrize(
    ("place", "value", "why"),
    [
        ("quota", "unlimited", 'quota is "unlimited"'),
        ("quota", "", 'quota is ""'),
        ("quota", 1.5, 'quota is "1.5"'),
        ("quota", Decimal("12.01"), 'quota is "12.01"'),
        ("quota", "12..0", 'quota is "12..0"'),
        ("quota", float("nan"), 'quota is "nan"'),
        ("quota", "\u0661\u0662", 'quota is "\u0661\u0662"'),
        ("used", "abc", 'used is "abc"'),
        ("used", -5, "used is -5"),
        ("expiry", "2026-12-31", 'expiry is "2026-12-31"'),
        ("expiry", float("inf"), 'expiry is "inf"'),
        ("until", "friday", 'until is "friday"'),
        ("until", -1, "until is -1"),
        ("in_parts", "some", 'in_parts is "some"'),
        ("in_parts", -1, "in_parts is -1"),
        ("persist", b"\xff", 'persist is "\ufffd"'),
        ("key", b"alice", "sender is no text"),
        ("limit", None, "limit_name is no text"),
        ("key", "a\udcff", "sender is not UTF-8"),
        ("used", "9" * 5000, 'used is "' + "9" * 100 + '"'),
        ("used", "1\n2\x1b", 'used is "1\\n2\\x1b"'),
    ],
)
def test_any_other_value_is_named(place: str, value: object, why: str) -> None:
    index = Row._fields.index(place)
    found = read((*GOOD[:index], value, *GOOD[index + 1 :]))
    assert isinstance(found, Unreadable)
    assert found.reason == why


@pytest.mark.parametrize("values", [(), GOOD[:-1], (*GOOD, 1)])
def test_a_row_of_another_length_is_none(values: tuple[object, ...]) -> None:
    assert read(values) == Unreadable("", "", f"it has {len(values)} values, not 11")


anything = st.none() | st.integers() | st.floats() | st.text() | st.binary() | st.booleans() | st.decimals()


@given(st.lists(anything, min_size=11, max_size=11) | st.lists(anything, max_size=13))
def test_whatever_stands_in_a_row_it_is_one_or_is_named(values: list[object]) -> None:
    found = read(values)
    if isinstance(found, Unreadable):
        assert all(field.isprintable() for field in found)
        assert len("".join(found)) < 2000
        return
    for number in (found.quota, found.configured, found.used, found.seen, found.until, found.in_parts):
        assert number is None or 0 <= number <= 4_294_967_295
    assert 0 <= found.expiry <= 1 << 62 >= found.updated
    found.key.encode()
    assert found.quota_at(NOON, 50) >= 0


def test_what_is_wrong_is_said_once_and_a_table_of_nonsense_does_not_fill_the_log() -> None:
    remarks = Remarks()
    bad = [("daily", f"user{n}", "x", *GOOD[3:]) for n in range(3000)]
    assert remarks.rows([GOOD, *bad, GOOD]) == [read(GOOD), read(GOOD)]
    said = remarks.take()
    assert len(said) == 1001
    assert said[-1].event == "more is wrong in the database than is said here"
    assert remarks.rows(bad) == []
    assert remarks.take() == []
    assert remarks.set_aside == 6000
