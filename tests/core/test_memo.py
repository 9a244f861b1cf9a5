"""The memo of what has been charged: exact while it lasts, and bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimitd.core.counters import Counter, Meter
from ratelimitd.core.memo import EARLIER_RUN, MAX_REMEMBERED, Memo, Transaction
from tests.core.build import MIDNIGHT, limit, memo


def begin(charges: Memo, instance: str) -> None:
    charges.admit(instance, None, "a@example.org", 1)


def test_a_message_owes_what_its_recipients_have_not_been_charged() -> None:
    alice, other = (Counter(Meter(limit(5, name=name)), "alice", MIDNIGHT, 5) for name in ("mine", "other"))
    transaction = Transaction()
    assert transaction.dues([alice, other], None, 3, EARLIER_RUN)[0] == [3, 3]
    transaction.admit_recipient("a")
    transaction.refuse_recipient("b", (alice.window,))
    assert transaction.charged == 1
    assert transaction.dues([alice, other], None, 2, EARLIER_RUN)[0] == [1, 2]
    assert transaction.dues([alice, other], "b", 1, EARLIER_RUN)[0] == [0, 1]
    assert transaction.dues([alice, other], "c", 1, EARLIER_RUN)[0] == [1, 1]
    transaction.admit_message(1)
    it_may_be_the_one_of_the_message = [1, 1]
    assert transaction.dues([alice, other], "b", 1, EARLIER_RUN)[0] == it_may_be_the_one_of_the_message
    assert [transaction.answer(recipient) for recipient in "abc"] == [True, (alice.window,), None]
    assert transaction.remembered == 2


def test_a_limit_is_due_what_another_limit_was_charged_for_refusing() -> None:
    mine, ours = (Counter(Meter(limit(5, name=name)), "alice", MIDNIGHT, 5) for name in ("mine", "ours"))
    transaction = Transaction()
    transaction.refuse_recipient("a", (mine.window,))
    transaction.refuse_recipient("b", (ours.window,))
    assert transaction.dues([mine, ours], "a", 1, EARLIER_RUN)[0] == [0, 1]
    assert transaction.dues([mine, ours], "b", 1, EARLIER_RUN)[0] == [1, 0]
    transaction.admit_recipient("a")
    assert transaction.dues([mine, ours], None, 1, EARLIER_RUN)[0] == [1, 0]


def test_one_recipient_s_admission_leaves_what_another_s_refusal_was_charged() -> None:
    mine = Counter(Meter(limit(5)), "alice", MIDNIGHT, 5)
    transaction = Transaction()
    for recipient in ("a", "b", "c"):
        transaction.refuse_recipient(recipient, (mine.window,))
    transaction.admit_recipient("a")
    assert transaction.dues([mine], "b", 1, EARLIER_RUN)[0] == [0]
    assert transaction.dues([mine], None, 3, EARLIER_RUN)[0] == [1]
    transaction.admit_recipient("b")
    assert transaction.dues([mine], "c", 1, EARLIER_RUN)[0] == [0]


def test_what_a_transaction_keeps_of_refusals_is_bounded() -> None:
    transaction = Transaction()
    for i in range(3 * MAX_REMEMBERED):
        transaction.refuse_recipient(str(i), (("limit", MIDNIGHT, str(i)),))
        transaction.refuse_recipient("again", (("limit", i, "alice"),))
        transaction.refuse_message([("limit", i, "bob")], 1)
    assert transaction.remembered == MAX_REMEMBERED
    assert len(transaction.refused or ()) == MAX_REMEMBERED
    assert transaction.answer("again") == (("limit", 3 * MAX_REMEMBERED - 1, "alice"),)


def test_an_unknown_instance_has_no_transaction() -> None:
    charges = memo()
    assert charges.find("1.a") is None
    charges.admit("1.a", None, None, 2)
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
        charges.admit("moved", charges.find("moved"), str(number), 1)
    charges.age()
    for instance in ("other", "another"):
        begin(charges, instance)
    for number in range(9, 11):  # it finds the young generation full
        charges.admit("moved", charges.find("moved"), str(number), 1)
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
    windows = (("limit", MIDNIGHT, "alice"),)
    for i in range(MAX_REMEMBERED + 10):
        if admitted:
            transaction.admit_recipient(str(i))
        else:
            transaction.refuse_recipient(str(i), windows)
    assert transaction.remembered == MAX_REMEMBERED
    answer = admitted or windows
    assert [transaction.answer(str(i)) for i in (9, 10, MAX_REMEMBERED + 9)] == [None, answer, answer]
    assert transaction.charged == (MAX_REMEMBERED + 10 if admitted else 0)
