"""Limits that are not enforced, and limits that count messages."""

import collections
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimitd.core.counters import Window
from ratelimitd.core.limits import KeyFailed, Limit
from ratelimitd.core.policy import Policy
from ratelimitd.core.verdict import Verdict
from ratelimitd.request import Request
from ratelimitd.state.records import ends, remember, windows
from tests.core.build import data, limit, memo, policy, rcpt, record, used

ALICE = "alice@example.com"
DUNNO = b"action=DUNNO\n\n"
Setting = tuple[int, bool, bool, str, bool]
"""Quota, enforce, by_message, key, count_rejected."""


def test_what_a_limit_that_is_not_enforced_would_block_is_admitted_counted_and_said() -> None:
    asked = policy(limit(2, enforce=False))
    verdicts = [rcpt(asked, f"{i}@example.org") for i in range(4)]
    assert [verdict.status for verdict in verdicts] == ["INSERT", "UPDATE", "WOULD_BLOCK", "WOULD_BLOCK"]
    assert {verdict.reply for verdict in verdicts} == {DUNNO}
    assert not any(verdict.refused for verdict in verdicts)
    assert used(asked) == 4
    assert asked.meters[0].decisions["WOULD_BLOCK"] == 2


def test_an_enforced_limit_refuses_though_another_is_not_enforced() -> None:
    asked = policy(limit(1, name="trial", enforce=False), limit(2, name="real"))
    verdicts = [rcpt(asked, f"{i}@example.org") for i in range(3)]
    assert [verdict.status for verdict in verdicts] == ["INSERT", "WOULD_BLOCK", "OVER_QUOTA"]
    decided = [verdict.counter.meter.limit.name for verdict in verdicts if verdict.counter]
    assert decided == ["trial", "trial", "real"]
    assert verdicts[2].reply.startswith(b"action=450 4.7.1 daily quota exceeded, 3/2")


def test_rejected_requests_that_are_not_counted_are_counted_where_nothing_is_rejected() -> None:
    asked = policy(limit(1, enforce=False, count_rejected=False))
    for i in range(3):
        rcpt(asked, f"{i}@example.org")
    assert used(asked) == 3


def test_a_message_is_charged_once_however_many_recipients_and_lists() -> None:
    asked = policy(limit(10, by_message=True), limit(100, name="recipients"))
    for i in range(3):
        for _ in range(2):
            rcpt(asked, f"{i}@example.org")
    data(asked, 3)
    data(asked, 3, state="END-OF-MESSAGE")
    assert (used(asked), used(asked, name="recipients")) == (1, 3)
    data(asked, 5, instance="2.b")
    assert (used(asked), used(asked, name="recipients")) == (2, 8)


def test_the_message_over_the_quota_is_refused_whole_and_the_one_before_admitted_whole() -> None:
    asked = policy(limit(2, by_message=True))
    for instance in ("1.a", "2.b"):
        assert [rcpt(asked, f"{i}@example.org", instance).reply for i in range(3)] == [DUNNO] * 3
    assert all(rcpt(asked, f"{i}@example.org", "3.c").refused for i in range(3))
    # Others have gone over the quota since; what belongs to an admitted message is admitted.
    assert not rcpt(asked, "late@example.org", "2.b").refused
    assert not data(asked, 4, "2.b").refused


def test_a_refused_message_is_admitted_once_its_quota_is_raised() -> None:
    asked = policy(limit(1, by_message=True))
    rcpt(asked, "a@example.org", "1.a")
    assert rcpt(asked, "a@example.org", "2.b").refused
    asked.meters[0].counters[ALICE].quota = 5
    assert not rcpt(asked, "a@example.org", "2.b").refused
    asked.meters[0].counters[ALICE].quota = 1
    assert not rcpt(asked, "b@example.org", "2.b").refused
    assert used(asked) == 2


def test_refused_messages_that_are_not_counted_charge_nothing() -> None:
    asked = policy(limit(1, by_message=True, count_rejected=False))
    rcpt(asked, "a@example.org", "1.a")
    for i in range(3):
        assert rcpt(asked, f"{i}@example.org", "2.b").refused
    assert used(asked) == 1


def recipient_s_domain(asked: Request) -> str | None:
    """A key of a plugin's: it depends on the recipient, and for some recipients there is none."""
    if asked.recipient.startswith("broken"):
        raise KeyFailed("no idea")
    _, _, name = asked.recipient.partition("@")
    return None if name == "free.example" else name or None


def fresh(asked: Policy, verdicts: Iterable[Verdict]) -> Policy:
    """The policy of a daemon that has read its journal: it knows the transactions."""
    again = policy(*[meter.limit for meter in asked.meters])
    charges = [verdict.charge for verdict in verdicts if verdict.charge is not None]
    remember("".join(map(record, charges)).split("\n")[:-1], again.memo)
    return again


@pytest.mark.parametrize("first", ["x@free.example", "broken@example.org", "x@other.example"])
def test_a_message_that_begins_with_a_recipient_of_another_key_or_none_is_counted(first: str) -> None:
    asked = policy(limit(2, key=recipient_s_domain, by_message=True), limit(0, name="other"))
    for number in range(2):
        rcpt(asked, first, f"{number}.a")
        admitted = [not rcpt(asked, f"{i}@example.org", f"{number}.a").refused for i in range(3)]
        assert admitted == [True] * 3
    assert used(asked, "example.org") == 2
    rcpt(asked, first, "3.a")
    assert all(rcpt(asked, f"{i}@example.org", "3.a").refused for i in range(3))


def test_a_message_is_counted_once_under_each_of_its_keys_also_after_a_restart() -> None:
    asked = policy(limit(9, key=recipient_s_domain, by_message=True), limit(9, name="recipients"))
    said = [rcpt(asked, f"{i}@{name}.example") for i in range(3) for name in ("one", "two")]
    assert (used(asked, "one.example"), used(asked, "two.example")) == (1, 1)
    again = fresh(asked, said)
    for i in range(3, 6):
        rcpt(again, f"{i}@one.example")
        rcpt(again, f"{i}@three.example")
    assert (used(again, "one.example"), used(again, "three.example")) == (0, 1)


def test_at_DATA_too_a_message_is_counted_once_also_after_a_restart() -> None:
    asked = policy(limit(9, by_message=True))
    again = fresh(asked, [data(asked, 50)])
    data(again, 60)
    data(again, 70, state="END-OF-MESSAGE")
    assert used(again) == 0


def test_a_refused_message_counts_once_when_it_is_admitted_after_all() -> None:
    asked = policy(limit(1, key=recipient_s_domain, by_message=True))
    rcpt(asked, "a@example.org", "1.a")
    assert rcpt(asked, "b@example.org", "2.a").refused
    asked.meters[0].counters["example.org"].quota = 5
    assert not rcpt(asked, "b@example.org", "2.a").refused
    assert not rcpt(asked, "c@example.org", "2.a").refused
    assert used(asked, "example.org") == 2


def test_a_message_to_free_recipients_alone_counts_nothing() -> None:
    asked = policy(limit(2, by_message=True, free=["@example.net"]))
    for number in range(3):
        assert rcpt(asked, "a@example.net", f"{number}.a").status == "FREE"
    for _ in range(2):
        assert not rcpt(asked, "a@example.org", "0.a").refused
    assert used(asked) == 1


def test_a_message_that_a_trial_would_block_is_said_once() -> None:
    asked = policy(limit(1, by_message=True, enforce=False))
    rcpt(asked, "a@example.org", "1.a")
    statuses = [rcpt(asked, f"{i}@example.org", "2.b").status for i in range(3)]
    assert statuses == ["WOULD_BLOCK", "UPDATE", "UPDATE"]


limits = st.lists(
    st.tuples(
        st.integers(0, 6),
        st.booleans(),
        st.booleans(),
        st.sampled_from(["email", "domain", "all"]),
        st.booleans(),
    ),
    min_size=1,
    max_size=3,
)
requests = st.lists(
    st.tuples(
        st.sampled_from(["RCPT", "DATA", "END-OF-MESSAGE"]),
        st.integers(0, 3),  # instance
        st.integers(0, 3),  # recipient or recipients
    ),
    max_size=25,
)


def made(settings: list[Setting]) -> list[Limit]:
    return [
        limit(quota, name=f"limit{i}", key=key, enforce=enforce, by_message=by_message, count_rejected=count_rejected)
        for i, (quota, enforce, by_message, key, count_rejected) in enumerate(settings)
    ]


def play(asked: Policy, asks: list[tuple[str, int, int]]) -> list[str]:
    records = []
    for state, instance, number in asks:
        if state == "RCPT":
            verdict = rcpt(asked, f"{number}@example.org", f"{instance}.a")
        else:
            verdict = data(asked, number, f"{instance}.a", state)
        records.append(record(verdict.charge))
    return "".join(records).split("\n")[:-1]


def totals(records: list[str]) -> dict[Window, int]:
    """Recipients or messages per account and window."""
    found: collections.Counter[Window] = collections.Counter()
    for end, times in ends(records).items():
        number, charged = windows(end)
        for window in charged:
            found[window] += number * times
    return dict(found)


@given(limits, requests)
def test_the_journal_says_exactly_what_was_charged_and_to_whom(
    settings: list[Setting], asks: list[tuple[str, int, int]]
) -> None:
    asked = policy(*made(settings))
    records = play(asked, asks)
    charged = {
        (meter.limit.name, counter.expiry, counter.key): counter.used
        for meter in asked.meters
        for counter in meter.counters.values()
        if counter.used
    }
    assert totals(records) == charged
    charges = memo(1000)
    remember(records, charges)
    for instance in range(4):
        before, after = asked.memo.find(f"{instance}.a {ALICE}"), charges.find(f"{instance}.a {ALICE}")
        assert (before is None) == (after is None)
        if before is not None and after is not None:
            assert (before.charged, before.refused) == (after.charged, after.refused)
            recipients = [f"{number}@example.org" for number in range(4)]
            assert list(map(before.answer, recipients)) == list(map(after.answer, recipients))


@given(limits, requests)
def test_where_nothing_is_refused_a_limit_counts_messages_or_recipients(
    settings: list[Setting], asks: list[tuple[str, int, int]]
) -> None:
    asked = policy(*made([(setting[0], False, *setting[2:]) for setting in settings]))
    play(asked, asks)
    transactions = [t for i in range(4) if (t := asked.memo.find(f"{i}.a {ALICE}")) is not None]
    for meter in asked.meters:
        total = sum(counter.used for counter in meter.counters.values())
        recipients = sum(transaction.charged for transaction in transactions)
        assert total == (len(transactions) if meter.limit.by_message else recipients)


@given(limits, requests)
def test_an_enforced_limit_admits_its_quota_and_no_more(
    settings: list[Setting], asks: list[tuple[str, int, int]]
) -> None:
    asked = policy(*made(settings))
    play(asked, asks)
    transactions = [t for i in range(4) if (t := asked.memo.find(f"{i}.a {ALICE}")) is not None]
    admitted = sum(transaction.charged for transaction in transactions)
    messages = sum(1 for transaction in transactions if transaction.charged)
    for quota, enforce, by_message, _, _ in settings:
        assert not (enforce and quota) or (messages if by_message else admitted) <= quota
    for meter in asked.meters:
        total = sum(counter.used for counter in meter.counters.values())
        assert total >= (messages if meter.limit.by_message else admitted)
