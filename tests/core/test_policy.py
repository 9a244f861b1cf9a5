"""The decision: who is charged what, and what is answered."""

from collections import Counter as Multiset
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimitd.core.action import DUNNO
from ratelimitd.core.pending import Pending
from ratelimitd.core.policy import Policy
from ratelimitd.core.verdict import INSERT, OVER_QUOTA, UPDATE, Verdict, Waiting
from ratelimitd.request import MAX_RECIPIENTS, Request
from ratelimitd.state.records import remember
from tests.core.build import (
    DAY_S,
    MIDNIGHT,
    NOON,
    ask,
    data,
    limit,
    memo,
    policy,
    rcpt,
    record,
    request,
    row,
    rules,
    used,
)
from tests.core.transactions import Transactions

ALICE = "alice@example.com"


def summary(verdict: Verdict) -> tuple[str, int, str, int]:
    """Reply kind, charged, status, use."""
    kind = "DUNNO" if verdict.reply == DUNNO else verdict.reply[7:10].decode()
    return kind, verdict.charged, verdict.status, verdict.used


NOTHING = ("DUNNO", 0, "", 0)


@pytest.mark.parametrize(
    "what",
    [
        request("RCPT", ""),
        request("RCPT", "  "),
        request("DATA", "", recipient_count=3),
        request("VRFY"),
        request("EHLO"),
        request("MAIL"),
        request("CONNECT"),
        request("rcpt"),
        request(""),
        request("RCPT", request="other"),
        request("RCPT", request=""),
        request("DATA", recipient_count=0),
        request("DATA", recipient_count=""),
        request("DATA", recipient_count="-3"),
        request("DATA", recipient_count="3x"),
        request("DATA", recipient_count="٣"),
        request("DATA", recipient_count=" 3"),
        request("DATA", recipient_count="0" * 5000),
        Request.of(""),
    ],
)
def test_what_is_not_counted_is_answered_dunno(what: Request) -> None:
    asked = policy(limit(1))
    assert summary(ask(asked, what)) == NOTHING
    assert used(asked) == 0
    assert len(asked.pending) == len(asked.memo) == 0


def test_the_first_charge_is_an_insert_then_updates_then_over_quota() -> None:
    asked = policy(limit(2))
    assert [summary(rcpt(asked, str(i))) for i in range(4)] == [
        ("DUNNO", 1, INSERT, 1),
        ("DUNNO", 1, UPDATE, 2),
        ("450", 1, OVER_QUOTA, 3),
        ("450", 1, OVER_QUOTA, 4),
    ]


def test_twenty_means_twenty() -> None:
    asked = policy(limit(20))
    replies = [rcpt(asked, "bob", instance=f"{i}.a").reply for i in range(25)]
    assert replies[:20] == [DUNNO] * 20
    assert DUNNO not in replies[20:]


def test_a_refusal_says_use_and_quota() -> None:
    asked = policy(limit(0, quotas={ALICE: 1}))
    rcpt(asked, "a")
    assert rcpt(asked, "b").reply == b"action=450 4.7.1 daily quota exceeded, 2/1 of alice@example.com\n\n"


def test_a_quota_of_zero_counts_and_never_refuses() -> None:
    asked = policy(limit(0))
    assert {rcpt(asked, str(i)).reply for i in range(50)} == {DUNNO}
    assert used(asked) == 50


def test_a_recipient_asked_for_by_several_lists_is_charged_once() -> None:
    asked = policy(limit(3))
    for recipient in ("a", "b", "c"):
        for again in range(4):
            assert rcpt(asked, recipient).charged == (0 if again else 1)
    for state in ("DATA", "END-OF-MESSAGE", "DATA"):
        assert summary(data(asked, 3, state=state)) == NOTHING
    assert used(asked) == 3


def test_the_same_recipient_in_another_transaction_is_charged_again() -> None:
    asked = policy(limit(9))
    rcpt(asked, "a", instance="1.a")
    rcpt(asked, "a", instance="2.b")
    assert used(asked) == 2


def test_without_an_instance_every_question_is_charged() -> None:
    asked = policy(limit(9))
    for _ in range(2):
        assert rcpt(asked, "a", instance="").charged == 1
        assert data(asked, 2, instance="").charged == 2
    assert used(asked) == 6
    assert len(asked.memo) == 0


@pytest.mark.parametrize("state", ["DATA", "END-OF-MESSAGE"])
def test_a_message_is_charged_the_recipients_that_were_not(state: str) -> None:
    asked = policy(limit(100))
    rcpt(asked, "a")
    assert summary(data(asked, 3, state=state)) == ("DUNNO", 2, UPDATE, 3)
    assert summary(data(asked, 3, state=state)) == NOTHING
    assert summary(data(asked, 5, state="END-OF-MESSAGE")) == ("DUNNO", 2, UPDATE, 5)
    assert summary(data(asked, 1, state="END-OF-MESSAGE")) == NOTHING


@pytest.mark.parametrize(
    ("text", "count"),
    [("7", 7), ("007", 7), ("999999", 999_999), ("1000001", MAX_RECIPIENTS), ("9" * 5000, MAX_RECIPIENTS)],
)
def test_the_recipient_count_is_taken_as_a_number_within_reason(text: str, count: int) -> None:
    asked = policy(limit(0))
    assert data(asked, text).charged == count


def test_three_times_the_same_address_is_three_recipients_in_the_end() -> None:
    asked = policy(limit(100))
    for _ in range(3):
        rcpt(asked, "a")
    data(asked, 3)
    assert used(asked) == 3


def test_a_message_that_does_not_fit_is_refused_whole_and_again_when_asked_again() -> None:
    asked = policy(limit(5))
    assert summary(data(asked, 6)) == ("450", 6, OVER_QUOTA, 6)
    again = data(asked, 6)
    assert (again.reply[7:10], again.charged, again.status) == (b"450", 0, "")
    assert used(asked) == 6


def test_a_recipient_that_was_refused_is_refused_again_and_charged_once() -> None:
    asked = policy(limit(1))
    rcpt(asked, "a")
    for charged in (1, 0, 0):
        again = rcpt(asked, "b")
        assert (again.refused, again.charged, again.status) == (True, charged, OVER_QUOTA if charged else "")
        assert again.reply.startswith(b"action=450 4.7.1 ")
    assert used(asked) == 2


def test_more_recipients_after_a_refused_message_are_charged_only_themselves() -> None:
    """Postfix keeps the transaction after a refused END-OF-MESSAGE; its recipient_count goes on from 1 to 3."""
    asked = policy(limit(100))
    rcpt(asked, "a")
    data(asked, 1)
    rcpt(asked, "b")
    rcpt(asked, "c")
    assert data(asked, 3).charged == 0
    assert used(asked) == 3


def test_what_was_admitted_stays_admitted_though_others_exhaust_the_quota() -> None:
    asked = policy(limit(3))
    rcpt(asked, "a", instance="1.a")
    data(asked, 1, instance="3.c")
    for i in range(5):
        rcpt(asked, str(i), instance="2.b")
    assert summary(rcpt(asked, "a", instance="1.a")) == NOTHING
    assert summary(data(asked, 1, instance="1.a")) == NOTHING
    assert summary(data(asked, 1, instance="3.c", state="END-OF-MESSAGE")) == NOTHING
    assert rcpt(asked, "b", instance="1.a").refused


def raise_quota(asked: Policy, quota: int) -> None:
    asked.meters[0].counters[ALICE].quota = quota


def test_what_was_refused_is_admitted_when_the_quota_is_raised_and_stays_admitted() -> None:
    asked = policy(limit(1))
    data(asked, 2, instance="1.a")
    assert rcpt(asked, "b", instance="2.b").refused
    raise_quota(asked, 100)
    assert summary(rcpt(asked, "b", instance="2.b"))[:3] == ("DUNNO", 0, "")
    assert summary(data(asked, 2, instance="1.a"))[:3] == ("DUNNO", 0, "")
    raise_quota(asked, 1)
    assert not rcpt(asked, "b", instance="2.b").refused
    assert not data(asked, 2, instance="1.a").refused
    assert used(asked) == 3


def test_a_refused_recipient_is_not_counted_where_it_is_configured_so() -> None:
    asked = policy(limit(2, count_rejected=False))
    for i in range(4):
        rcpt(asked, str(i))
    assert used(asked) == 2
    assert summary(rcpt(asked, "3")) == ("450", 0, OVER_QUOTA, 2)
    assert summary(data(asked, 5, instance="2.b")) == ("450", 0, OVER_QUOTA, 2)
    assert len(asked.memo) == 1
    raise_quota(asked, 3)
    assert summary(rcpt(asked, "3")) == ("DUNNO", 1, UPDATE, 3)


TWO = (limit(3, name="mine"), limit(5, name="ours", key="domain"))


def test_a_request_must_pass_all_limits() -> None:
    asked = policy(*TWO)
    for i in range(3):
        assert not rcpt(asked, str(i)).refused
    refused = rcpt(asked, "3")
    assert b"4/3 of alice@example.com" in refused.reply
    assert refused.counter is asked.meters[0].counters[ALICE]
    assert (used(asked, name="mine"), used(asked, "example.com", "ours")) == (4, 3)
    for recipient in "45":
        assert not rcpt(asked, recipient, login="bob@example.com", instance="2.b").refused
    refused = rcpt(asked, "6", login="bob@example.com", instance="2.b")
    assert b"6/5 of example.com" in refused.reply
    assert refused.counter is asked.meters[1].counters["example.com"]
    assert used(asked, "bob@example.com", "mine") == 2


def test_one_login_that_is_refused_costs_its_domain_nothing() -> None:
    asked = policy(limit(5, name="mine"), limit(10_000, name="ours", key="domain"))
    for i in range(11):
        assert data(asked, 1000, instance=f"{i}.a").refused
    assert (used(asked, name="mine"), used(asked, "example.com", "ours")) == (11_000, 0)
    assert not rcpt(asked, "a", login="bob@example.com", instance="2.b").refused


def test_every_limit_that_a_request_exceeds_is_charged_for_it_and_no_other() -> None:
    asked = policy(
        limit(2, name="one"),
        limit(9, name="fits"),
        limit(3, name="two", key="domain"),
        limit(1, name="trial", enforce=False),
        limit(0, name="none"),
    )
    verdict = data(asked, 4)
    assert verdict.refused
    assert verdict.counter is asked.meters[0].counters[ALICE]
    assert record(verdict.charge) == f"d1.a {ALICE}\0\0004\0one\0{MIDNIGHT}\0{ALICE}\0two\0{MIDNIGHT}\0example.com\n"
    charged = {meter.limit.name: sum(c.used for c in meter.counters.values()) for meter in asked.meters}
    assert charged == {"one": 4, "fits": 0, "two": 4, "trial": 0, "none": 0}


def test_what_was_refused_is_charged_once_to_every_limit_when_it_is_admitted() -> None:
    asked = policy(*TWO)
    for i in range(3):
        rcpt(asked, str(i))
    assert rcpt(asked, "3").refused  # mine has it now: 4/3
    assert rcpt(asked, "3").charge is None
    raise_quota(asked, 6)
    data(asked, 2, login="bob@example.com", instance="2.b")  # ours: 5/5
    assert rcpt(asked, "3").refused  # for ours
    assert (used(asked, name="mine"), used(asked, "example.com", "ours")) == (4, 6)
    asked.meters[1].counters["example.com"].quota = 20
    admitted = rcpt(asked, "3")
    assert summary(admitted)[:3] == ("DUNNO", 0, "")
    assert record(admitted.charge) == f"R1.a {ALICE}\x003\0001\n", "it stays admitted, also after a restart"
    assert (used(asked, name="mine"), used(asked, "example.com", "ours")) == (4, 6)
    assert rcpt(asked, "3").charge is None
    assert data(asked, 4).charge is None
    assert summary(data(asked, 6))[:3] == ("DUNNO", 2, UPDATE)
    assert (used(asked, name="mine"), used(asked, "example.com", "ours")) == (6, 8)


def test_a_message_that_was_refused_is_charged_once_to_every_limit_when_it_is_admitted() -> None:
    asked = policy(*TWO)
    assert data(asked, 4).refused
    raise_quota(asked, 100)
    admitted = data(asked, 5)
    assert (admitted.refused, admitted.charged) == (False, 5)
    total = f"T\0\x001\0mine\0{MIDNIGHT}\0{ALICE}\n"
    assert record(admitted.charge) == f"D1.a {ALICE}\0\0005\0ours\0{MIDNIGHT}\0example.com\n{total}"
    assert (used(asked, name="mine"), used(asked, "example.com", "ours")) == (5, 5)
    assert data(asked, 5).charge is None


def test_a_refusal_counts_in_its_own_window_alone() -> None:
    """DATA refused before midnight, and asked again after it in the same session."""
    asked = policy(limit(10))
    for i in range(4):
        assert data(asked, 500, instance=f"{i}.a", now=MIDNIGHT - 60).refused
    for i in range(4):
        again = data(asked, 500, instance=f"{i}.a", now=MIDNIGHT + 60)
        assert (again.refused, again.charged, again.used) == (True, 500, 500 * (i + 1))
        assert data(asked, 500, instance=f"{i}.a", now=MIDNIGHT + 61).charge is None


def test_a_recipient_refused_in_one_window_is_charged_in_the_next_before_it_is_admitted() -> None:
    asked = policy(limit(1))
    rcpt(asked, "a", now=MIDNIGHT - 60)
    assert rcpt(asked, "b", now=MIDNIGHT - 60).refused
    assert summary(rcpt(asked, "b", now=MIDNIGHT)) == ("DUNNO", 1, UPDATE, 1)
    assert rcpt(asked, "b", now=MIDNIGHT).charge is None
    assert rcpt(asked, "b", now=MIDNIGHT + DAY_S).charge is None, "what was admitted stays admitted"
    assert rcpt(asked, "a", now=MIDNIGHT).charge is None
    assert data(asked, 2, now=MIDNIGHT).charge is None


def test_of_limits_with_different_periods_the_one_whose_window_is_over_is_charged_again() -> None:
    asked = policy(limit(2, name="hourly", period="hourly"), limit(2, name="daily"))
    assert data(asked, 3).refused  # by both
    assert data(asked, 3, now=NOON + 3600).charged == 3
    charged = {meter.limit.name: sum(c.used for c in meter.counters.values()) for meter in asked.meters}
    assert charged == {"hourly": 3, "daily": 3}


def test_the_same_instance_and_recipient_of_another_login_are_charged() -> None:
    asked = policy(*TWO)
    for login in ("a@example.com", "b@example.com"):
        assert rcpt(asked, "r", login=login).charged == 1
        assert rcpt(asked, "r", login=login).charged == 0
        assert data(asked, 2, login=login).charged == 1
    assert used(asked, "example.com", "ours") == 4


def test_what_one_limit_refuses_no_limit_counts_where_it_is_configured_so() -> None:
    asked = policy(*(replace(each, count_rejected=False) for each in TWO))
    for i in range(10):
        rcpt(asked, str(i))
    assert used(asked, name="mine") == used(asked, "example.com", "ours") == 3
    assert [rcpt(asked, str(i), login="bob@example.com", instance="2.b").refused for i in range(3)] == [
        False,
        False,
        True,
    ]
    assert used(asked, "bob@example.com", "mine") == 2


def test_a_limit_without_a_key_does_not_apply() -> None:
    asked = policy(*TWO)
    verdict = rcpt(asked, "a", login="alice")
    assert record(verdict.charge).count("\0") == 2 + 3
    assert (used(asked, "alice", "mine"), used(asked, "", "ours")) == (1, 0)


def test_the_first_mail_of_a_known_account_is_an_update() -> None:
    asked = policy(limit(100))
    verdict = ask(asked, request(), rows={ALICE: row(ALICE, quota=100, configured=100, used=7)})
    assert summary(verdict) == ("DUNNO", 1, UPDATE, 8)


def test_a_new_account_over_its_quota_at_once_is_over_quota_not_an_insert() -> None:
    assert summary(data(policy(limit(2)), 3)) == ("450", 3, OVER_QUOTA, 3)


def test_a_new_window_begins_at_zero_and_a_clock_put_back_does_not() -> None:
    asked = policy(limit(2))
    for i in range(3):
        rcpt(asked, str(i))
    assert rcpt(asked, "3", now=MIDNIGHT - 1).refused
    assert rcpt(asked, "4", now=NOON - DAY_S + 1).refused
    assert summary(rcpt(asked, "5", now=MIDNIGHT)) == ("DUNNO", 1, UPDATE, 1)
    assert summary(rcpt(asked, "6", now=MIDNIGHT - 1)) == ("DUNNO", 1, UPDATE, 2)
    assert rcpt(asked, "7", now=NOON).refused


def test_a_clock_years_ahead_for_a_second_locks_nobody() -> None:
    asked = policy(limit(2), limit(2, name="ours", key="domain"))
    for now in (NOON, NOON + 20 * 365 * DAY_S, NOON + 1):
        for i in range(3):
            assert rcpt(asked, str(i), instance=str(now), now=now).refused == (i == 2)
        if now != NOON:
            ends = {counter.expiry for meter in asked.meters for counter in meter.counters.values()}
            assert ends == {now // DAY_S * DAY_S + DAY_S}


def test_a_limit_whose_period_a_reload_changes_begins_again_where_its_window_ends_too_late() -> None:
    asked = policy(limit(2, period="monthly"))
    for i in range(2):
        rcpt(asked, str(i))
    asked.configure([limit(2, period="daily")], rules())
    verdict = rcpt(asked, "2")
    assert (verdict.refused, verdict.used) == (False, 1)
    assert verdict.counter is not None
    assert verdict.counter.expiry == MIDNIGHT


def test_a_limit_that_is_removed_and_comes_back_knows_what_was_used() -> None:
    """The store is not asked: it may be unavailable."""
    mine, ours = limit(10, name="mine"), limit(0, name="ours", key="domain")
    asked = policy(mine, ours)
    data(asked, 8)
    for _ in range(2):
        asked.configure([ours], rules())
        rcpt(asked, "meanwhile", instance="2.b")
        asked.forget_removed()
        assert "mine" in asked.removed, "what it has pending is not stored"
    asked.configure([ours, mine], rules())
    assert not data(asked, 2, instance="3.c").refused
    assert data(asked, 1, instance="4.d").refused
    asked.configure([ours], rules())
    asked.pending.close(2)
    asked.pending.stored(1)
    asked.forget_removed()
    assert asked.removed == {}


def test_an_account_that_is_not_in_memory_is_asked_for_first() -> None:
    asked = policy(*TWO)
    what = request()
    waiting = asked.decide(what, NOON)
    assert isinstance(waiting, Waiting)
    assert waiting.missing(NOON) == [(asked.meters[0], ALICE), (asked.meters[1], "example.com")]
    asked.meters[0].assume(ALICE, NOON)
    assert waiting.missing(NOON) == [(asked.meters[1], "example.com")]
    assert isinstance(asked.decide(what, NOON), Waiting)
    assert used(asked, name="mine") == 0
    asked.meters[1].assume("example.com", NOON)
    assert waiting.missing(NOON) == []
    assert isinstance(asked.decide(what, NOON), Verdict)


def test_a_request_that_has_waited_is_decided_by_what_was_found_and_by_assumptions() -> None:
    asked = policy(*TWO)
    waiting = asked.decide(request(), NOON)
    assert isinstance(waiting, Waiting)
    asked.meters[0].accept(ALICE, row(ALICE, quota=10, configured=None, used=7, name="mine"), 0, NOON)
    verdict = asked.decide_waiting(waiting, NOON)
    assert (verdict.status, verdict.used) == (UPDATE, 8)
    assert used(asked, "example.com", name="ours") == 1


def test_the_record_names_kind_transaction_recipients_and_every_count() -> None:
    asked = policy(*TWO)
    counts = f"\0mine\0{MIDNIGHT}\0{ALICE}\0ours\0{MIDNIGHT}\0example.com\n"
    assert record(rcpt(asked, "a").charge) == f"R1.a {ALICE}\0a\0001{counts}"
    assert record(rcpt(asked, "a").charge) == ""
    assert record(data(asked, 3).charge) == f"D1.a {ALICE}\0\0002{counts}"
    assert record(data(asked, 9).charge) == f"d1.a {ALICE}\0\0006{counts}"
    assert record(rcpt(asked, "b").charge) == f"r1.a {ALICE}\0b\0001{counts}"


def broken(request: Request) -> str | None:
    raise RuntimeError("broken")


@pytest.mark.parametrize("failure", ["DUNNO", "450 4.3.0 try again later"])
def test_a_plugin_that_fails_gives_the_failure_action_for_its_limit_only(failure: str) -> None:
    asked = policy(limit(1, name="broken", key=broken), limit(2, name="mine"), under=rules(failure=failure))
    reply = f"action={failure}\n\n".encode()
    assert [rcpt(asked, recipient).reply for recipient in "aabb"] == [reply] * 4
    assert rcpt(asked, "c").reply.startswith(b"action=450 4.7.1 daily quota exceeded, 3/2")
    assert used(asked, name="mine") == 3
    assert used(asked, "", "broken") == 0
    health = asked.meters[0].limit.health
    assert (health.failures, health.failure) == (5, "key plugin own raised RuntimeError: broken")


def test_a_plugin_that_fails_where_it_is_the_only_limit_gives_the_failure_action() -> None:
    asked = policy(limit(1, key=broken), under=rules(failure="450 4.3.0 try again later"))
    assert summary(rcpt(asked, "a")) == ("450", 0, "", 0)
    assert len(asked.pending) == 0


def test_a_plugin_is_called_once_per_request_and_limit() -> None:
    calls: Multiset[str] = Multiset()

    def key(request: Request) -> str | None:
        calls[request["recipient"]] += 1
        return "k"

    asked = policy(limit(1, key=key), limit(2, name="mine"))
    rcpt(asked, "a")
    rcpt(asked, "b")
    assert calls == {"a": 1, "b": 1}


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\0")))
def test_whatever_the_login_the_record_can_be_taken_apart(login: str) -> None:
    asked = policy(limit(100))
    written = record(rcpt(asked, "a", login=login).charge)
    if login.strip(" \t"):
        assert written.endswith("\n")
        assert written.count("\n") == 1
        assert len(written.split("\0")) == 6


class Model:
    """What must hold, said in the simplest way: transactions.py, and every account's use in each window."""

    def __init__(self, quotas: dict[str, int], counting: dict[str, bool]) -> None:
        self.quotas = quotas
        self.counting = counting  # whether what an account's limit refuses is charged to it
        self.used: Multiset[tuple[str, int]] = Multiset()  # by account and window
        self.transactions: Transactions[str] = Transactions()

    def ask(self, transaction: str, recipient: str, count: int, windows: dict[str, int]) -> tuple[bool, bool]:
        """Whether it is admitted, and whether anything is charged. `windows`: the accounts and theirs of now."""
        more = self.transactions.more(transaction, recipient, count)
        if not more:
            return True, False
        dues = self.transactions.dues(transaction, recipient, more, windows)
        refusing = [a for a, due in dues.items() if self.quotas[a] and self.used[a, windows[a]] + due > self.quotas[a]]
        if refusing:
            dues = self.transactions.owed(transaction, recipient, more, windows)
        charged = [account for account in refusing if self.counting[account]] if refusing else list(dues)
        for account in charged:
            self.used[account, windows[account]] += dues[account]
            if refusing:
                self.transactions.refuse(transaction, recipient, account, windows[account], dues[account])
        if not refusing:
            self.transactions.admit(transaction, recipient, more)
        return not refusing, any(dues[account] for account in charged)


QUOTAS = {"a@x": 4, "b@x": 7, "c@y": 3, "x": 9, "y": 5}
steps = st.lists(
    st.tuples(
        st.sampled_from(["a@x", "b@x", "c@y"]),
        st.integers(0, 2),  # the session's transaction
        st.sampled_from(["r1", "r2", "r3", ""]),
        st.integers(0, 6),
        st.sampled_from([0, 0, 0, 0, 0, 1, 24]),  # hours that pass first
        st.sampled_from([*[None] * 9, *QUOTAS]),  # its quota is raised first
    ),
    max_size=60,
)


@given(steps, st.booleans(), st.booleans(), st.booleans())
def test_the_policy_does_what_a_simple_model_does(
    walk: list[tuple[str, int, str, int, int, str | None]], mine_counts: bool, ours_counts: bool, restarted: bool
) -> None:
    """Limits of two periods, transactions in several windows, quotas that are raised, a memo read from the journal."""
    quotas = dict(QUOTAS)
    model = Model(quotas, {account: mine_counts if "@" in account else ours_counts for account in quotas})
    mine = limit(0, name="mine", quotas=quotas, period="hourly", count_rejected=mine_counts)
    asked = policy(mine, limit(0, name="ours", key="domain", quotas=quotas, count_rejected=ours_counts))
    now, written = NOON, ""
    for login, number, recipient, count, hours, raised in walk:
        now += hours * 3600
        if raised is not None:
            quotas[raised] += 3
            for meter in asked.meters:
                meter.follow([raised])
        if restarted:
            asked.memo = memo()
            remember(written.split("\n")[:-1], asked.memo)
            model.transactions.restart()
        what = request("RCPT" if recipient else "DATA", login, instance=str(number), recipient=recipient,
                       recipient_count=count)  # fmt: skip
        verdict = ask(asked, what, now)
        written += record(verdict.charge)
        domain = login.split("@")[1]
        windows = {login: now // 3600, domain: now // DAY_S}
        found = (not verdict.refused, verdict.charge is not None and any(verdict.charge.amounts))
        assert found == model.ask(f"{number} {login}", recipient, count, windows)
        for meter, account in zip(asked.meters, (login, domain), strict=True):
            assert used(asked, account, meter.limit.name) == model.used[account, windows[account]]
    asked.pending.close(2)
    assert sum(segment.recipients for segment in asked.pending.closed) == model.used.total()


def message(recipients: int, instance: str) -> Request:
    return request("DATA", instance=instance, recipient_count=recipients)


def lose_by_reset(asked: Policy) -> None:
    asked.meters[0].accept(ALICE, row(ALICE, quota=500, configured=500), 0, NOON)


def lose_by_a_row_that_is_gone(asked: Policy) -> None:
    asked.meters[0].accept(ALICE, None, 0, NOON)


def lose_while_the_store_is_unavailable(asked: Policy) -> None:
    asked.meters[0].evict(1, Pending())
    asked.meters[0].assume(ALICE, NOON)


def lose_by_a_reset_while_not_in_memory(asked: Policy) -> None:
    assert asked.meters[0].evict(1, Pending()) == 1
    lose_by_reset(asked)


@pytest.mark.parametrize(
    "lose",
    [
        lose_by_reset,
        lose_by_a_row_that_is_gone,
        lose_while_the_store_is_unavailable,
        lose_by_a_reset_while_not_in_memory,
    ],
)
@pytest.mark.parametrize("restarted", [False, True])
def test_what_a_count_has_lost_is_no_credit_for_who_was_refused(
    lose: Callable[[Policy], None], restarted: bool
) -> None:
    """What a session was refused was charged; once the count begins again, it has paid for nothing."""
    asked = policy(limit(500))
    written = "".join(record(ask(asked, message(501, str(number)), NOON).charge) for number in range(20))
    assert used(asked) == 20 * 501
    asked.meters[0].limit.quotas[ALICE] = 1000  # type: ignore[index]
    asked.meters[0].follow([ALICE])
    asked.pending.begin(2, "")
    if restarted:
        asked.memo = memo()
        remember(written.split("\n")[:-1], asked.memo)
    lose(asked)
    before = used(asked)
    admitted = sum(501 for number in range(20) if not ask(asked, message(501, str(number)), NOON).refused)
    assert before + admitted == used(asked) == 501


def test_a_refusal_is_not_charged_again_after_the_count_was_reset() -> None:
    asked = policy(limit(3))
    assert ask(asked, message(5, "a"), NOON).refused
    asked.meters[0].accept(ALICE, row(ALICE, quota=3, configured=3), 0, NOON)
    assert ask(asked, message(5, "a"), NOON).refused
    assert used(asked) == 0
    assert not ask(asked, message(3, "b"), NOON).refused
    assert used(asked) == 3


def test_what_a_count_has_lost_while_its_limit_was_removed_is_no_credit() -> None:
    asked = policy(limit(500), limit(0, name="other"))
    for number in range(3):
        assert ask(asked, message(501, str(number)), NOON).refused
    asked.pending.begin(2, "")
    asked.configure([limit(0, name="other")], rules())
    asked.forget_removed()
    asked.configure([limit(501), limit(0, name="other")], rules())
    admitted = [not ask(asked, message(501, str(number)), NOON).refused for number in range(3)]
    assert (admitted, used(asked)) == ([True, False, False], 501)


def test_what_a_count_loses_while_its_limit_is_removed_is_no_credit_if_it_comes_back_with_its_accounts() -> None:
    """Its charges are not stored, so its meter is kept; and somebody sets the row to 0."""
    asked = policy(limit(10), limit(0, name="other"))
    assert ask(asked, message(1000, "a"), NOON).refused
    asked.configure([limit(0, name="other")], rules())
    asked.removed["default"].accept(ALICE, row(ALICE, quota=10, configured=10), 0, NOON)
    asked.configure([limit(10), limit(0, name="other")], rules())
    assert not ask(asked, message(10, "a"), NOON).refused
    assert used(asked) == 10
    assert ask(asked, message(10, "b"), NOON).refused


def test_a_reload_leaves_what_refusals_were_charged_a_credit() -> None:
    asked = policy(limit(3))
    assert ask(asked, message(5, "a"), NOON).refused
    asked.configure([limit(10)], rules())
    asked.meters[0].follow([ALICE])
    assert not ask(asked, message(5, "a"), NOON).refused
    assert used(asked) == 5
