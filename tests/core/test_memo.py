"""The memo of what has been charged: exact while it lasts, and bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimitd.core.memo import MAX_REMEMBERED, Memo, Transaction
from tests.core.build import memo


def begin(charges: Memo, instance: str) -> None:
    charges.charge_recipient(instance, None, "a@example.org", True)


def test_a_message_owes_what_its_recipients_have_not_been_charged() -> None:
    transaction = Transaction()
    assert transaction.due_for_message(3) == 3
    transaction.charge_recipient("a", True)
    transaction.charge_recipient("b", False)
    assert transaction.due_for_message(3) == 1
    transaction.charge_message(1, True)
    assert transaction.due_for_message(3) == 0
    assert transaction.due_for_message(1) == 0
    assert [transaction.answer(recipient) for recipient in "abc"] == [True, False, None]
    assert transaction.remembered == 2


def test_an_unknown_instance_has_no_transaction() -> None:
    charges = memo()
    assert charges.find("1.a") is None
    charges.charge_message("1.a", None, 2, True)
    found = charges.find("1.a")
    assert found is not None
    assert found.charged == 2
    assert len(charges) == 1


def test_a_transaction_that_is_asked_for_lives_on() -> None:
    charges = memo(10)
    begin(charges, "kept")
    for i in range(100):
        begin(charges, str(i))
        assert charges.find("kept")


def test_a_transaction_outlives_half_the_bound_of_newer_ones() -> None:
    charges = memo(10)
    begin(charges, "first")
    for i in range(5):
        begin(charges, str(i))
    assert charges.find("first") is not None


def test_what_was_not_asked_for_over_two_ages_is_forgotten() -> None:
    charges = memo()
    begin(charges, "1.a")
    charges.age()
    assert charges.find("1.a") is not None
    charges.age()
    charges.age()
    assert charges.find("1.a") is None
    assert len(charges) == 0


def test_a_transaction_that_is_asked_for_counts_its_recipients_in_the_bound_it_moves_to() -> None:
    charges = memo(max_transactions=4, max_recipients=20)  # two transactions and ten recipients a generation
    for number in range(9):
        charges.charge_recipient("moved", charges.find("moved"), str(number), True)
    charges.age()
    for instance in ("other", "another"):
        begin(charges, instance)
    for number in range(9, 11):  # it finds the young generation full
        charges.charge_recipient("moved", charges.find("moved"), str(number), True)
    assert charges.find("other") is None
    assert charges.forgotten == 2


@given(st.integers(2, 20), st.lists(st.tuples(st.sampled_from(["begin", "find"]), st.integers(0, 30))))
def test_the_memo_never_holds_more_than_its_bound(bound: int, steps: list[tuple[str, int]]) -> None:
    charges = memo(bound)
    for verb, number in steps:
        if charges.find(str(number)) is None and verb == "begin":
            begin(charges, str(number))
        assert len(charges) <= bound


@pytest.mark.parametrize("admitted", [True, False])
def test_a_transaction_keeps_the_answers_of_its_latest_recipients(admitted: bool) -> None:
    transaction = Transaction()
    for i in range(MAX_REMEMBERED + 10):
        transaction.charge_recipient(str(i), admitted)
    assert transaction.remembered == MAX_REMEMBERED
    assert [transaction.answer(str(i)) for i in (9, 10, MAX_REMEMBERED + 9)] == [None, admitted, admitted]
    assert transaction.due_for_message(MAX_REMEMBERED + 12) == 2
