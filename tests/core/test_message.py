"""Limits of one message, recipients that cost nothing, refusals that are counted by limit."""

from collections import Counter as Multiset
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimitd.core.action import DUNNO
from ratelimitd.core.limits import Limit
from ratelimitd.core.policy import Policy
from ratelimitd.core.recipients import FreeRecipients
from ratelimitd.core.verdict import FREE, OVER_QUOTA, UPDATE, WOULD_BLOCK, Verdict
from ratelimitd.notify.notices import Watch
from ratelimitd.state.records import ends, remember, windows
from tests.core.build import NOON, ask, data, limit, memo, policy, rcpt, record, request, rules, used

ALICE = "alice@example.com"


def replayed(asked: Policy, *verdicts: Verdict) -> Policy:
    """The policy after a restart in the middle of what it is asked about."""
    asked.memo = memo()
    remember("".join(record(verdict.charge) for verdict in verdicts).split("\n")[:-1], asked.memo)
    return asked


# -- one message -------------------------------------------------------------------------------------------------------


def test_at_rcpt_the_recipients_beyond_the_quota_of_a_message_are_refused_and_the_others_stay() -> None:
    asked = policy(limit(2, name="message", period="message"))
    verdicts = [rcpt(asked, f"{i}@example.org") for i in range(4)]
    assert [verdict.refused for verdict in verdicts] == [False, False, True, True]
    assert verdicts[2].reply == b"action=450 4.7.1 message quota exceeded, 3/2 of alice@example.com\n\n"
    assert (verdicts[3].used, verdicts[3].status) == (3, OVER_QUOTA)
    assert rcpt(asked, "1@example.org").reply == DUNNO
    assert data(asked, 2).reply == DUNNO
    assert data(asked, 2, state="END-OF-MESSAGE").reply == DUNNO


@pytest.mark.parametrize("state", ["DATA", "END-OF-MESSAGE"])
def test_at_the_end_the_whole_message_is_refused(state: str) -> None:
    asked = policy(limit(5, name="message", period="message"))
    verdict = data(asked, 10, state=state)
    assert verdict.reply == b"action=450 4.7.1 message quota exceeded, 10/5 of alice@example.com\n\n"
    assert not data(asked, 5, instance="2.b", state=state).refused


def test_a_message_begins_at_nothing_whatever_the_one_before_had() -> None:
    asked = policy(limit(2, name="message", period="message"))
    for instance in ("1.a", "2.b", "3.c"):
        assert [rcpt(asked, f"{i}@example.org", instance).refused for i in range(3)] == [False, False, True]


def test_without_an_instance_each_request_is_a_message() -> None:
    asked = policy(limit(1, name="message", period="message"))
    assert not any(rcpt(asked, f"{i}@example.org", instance="").refused for i in range(3))
    assert data(asked, 2, instance="").refused


def test_of_a_message_nothing_is_stored_looked_up_or_kept() -> None:
    asked = policy(limit(2, name="message", period="message"))
    for i in range(4):
        verdict = asked.decide(request(recipient=f"{i}@example.org"), 0)
        assert isinstance(verdict, Verdict)
        assert verdict.charge is None or windows(next(iter(ends([record(verdict.charge)[:-1]]))))[1] == []
    assert (len(asked.pending), asked.meters[0].counters, asked.all_meters) == (0, {}, [])


def test_a_restart_in_the_middle_of_a_message_forgets_no_recipient_of_it() -> None:
    asked = policy(limit(2, name="message", period="message"), limit(9))
    verdicts = [rcpt(asked, f"{i}@example.org") for i in range(2)]
    assert rcpt(replayed(asked, *verdicts), "3@example.org").refused
    assert not rcpt(asked, "1@example.org").refused


def test_exceptions_hold_for_a_message_as_for_any_limit() -> None:
    quotas = {"bob@example.com": 0, "@a.example": 3}
    asked = policy(limit(1, name="message", period="message", quotas=quotas))
    for login, quota in ((ALICE, 1), ("bob@example.com", 100), ("carol@a.example", 3)):
        assert not data(asked, quota, login, login=login).refused
        assert data(asked, quota + 1, f"{login}2", login=login).refused == (quota < 100)


def test_what_a_message_s_limit_refuses_is_charged_to_no_limit() -> None:
    asked = policy(limit(9), limit(1, name="message", period="message"))
    rcpt(asked, "a@example.org")
    assert rcpt(asked, "b@example.org").refused
    assert used(asked) == 1


def test_a_limit_that_becomes_one_of_a_message_stores_what_it_had_counted() -> None:
    asked = policy(limit(5))
    rcpt(asked, "a@example.org")
    before = asked.meters[0]
    asked.configure([limit(5, period="message")], rules(), NOON)
    assert asked.all_meters == [before]
    rcpt(asked, "b@example.org", "2.b")
    assert (asked.pending.recipients, before.counters[ALICE].used) == (1, 1)
    asked.configure([limit(5)], rules(), NOON)
    assert (asked.meters, asked.removed) == ([before], {})


def test_nobody_is_notified_of_a_limit_of_one_message() -> None:
    watch = Watch(lambda: None)
    watch.configure({"message": (50, 100)}, 1000)
    asked = policy(limit(2, name="message", period="message"), watch=watch)
    for i in range(4):
        rcpt(asked, f"{i}@example.org")
    assert not watch.queue


def test_a_dry_run_of_one_message_says_what_it_would_refuse() -> None:
    asked = policy(limit(1, name="message", period="message", enforce=False))
    verdicts = [rcpt(asked, f"{i}@example.org") for i in range(3)]
    assert [(verdict.status, verdict.used) for verdict in verdicts] == [(UPDATE, 1), (WOULD_BLOCK, 2), (WOULD_BLOCK, 3)]


# -- recipients that cost nothing --------------------------------------------------------------------------------------

FREED = FreeRecipients(["@Example.org", "List@example.net", "@[192.0.2.1]", '"a b"@example.com'])


@pytest.mark.parametrize(
    "recipient",
    ["a@example.org", "A@EXAMPLE.ORG", '"a b"@example.org', "list@example.net", "LIST@EXAMPLE.net", "a@[192.0.2.1]",
     '"a b"@example.com', "a+b@example.org"],
)  # fmt: skip
def test_addresses_and_domains_are_free_in_any_case(recipient: str) -> None:
    assert recipient in FREED


@pytest.mark.parametrize(
    "recipient",
    ["", "a", "@example.org", "example.org", "a@sub.example.org", "a@example.org.", "a@xexample.org", "x@example.net",
     "a%b.example@example.org", "b.example!a@example.org", '"a@b.example"@example.org', "a@b.example@example.org",
     "a@example.org@b.example", "a@EXAMPLE.ORK", f"{'a' * 256}@example.org", "a@192.0.2.1"],
)  # fmt: skip
def test_what_may_be_delivered_elsewhere_is_not_free(recipient: str) -> None:
    assert recipient not in FREED


@pytest.mark.parametrize("entry", ["example.org", "", "@", "a@", "a b@c", "@a@b", "@*.example.org", "@exa mple"])
def test_an_entry_that_is_neither_address_nor_domain_is_an_error(entry: str) -> None:
    with pytest.raises(ValueError, match="^" + entry.replace("*", r"\*")):
        FreeRecipients(["@fine.example", entry])


def test_free_recipients_are_admitted_and_not_counted_at_rcpt_nor_at_data() -> None:
    asked = policy(limit(1, free=["@example.org"]))
    verdicts = [rcpt(asked, recipient) for recipient in ("a@example.org", "x@other.example", "b@example.org")]
    assert [(v.refused, v.status, v.used) for v in verdicts] == [
        (False, FREE, 0), (False, "INSERT", 1), (False, FREE, 1),
    ]  # fmt: skip
    assert data(asked, 3).status == data(asked, 3, state="END-OF-MESSAGE").status == ""
    assert used(asked) == 1
    assert rcpt(asked, "y@other.example").refused
    assert rcpt(asked, "c@example.org").reply == DUNNO  # although it is over its quota by now
    assert used(asked) == 2


def test_a_free_recipient_is_not_counted_at_data_after_a_restart() -> None:
    asked = policy(limit(9, free=["@example.org"]), limit(9, name="other"))
    verdict = rcpt(asked, "a@example.org")
    assert (verdict.status, verdict.counter and verdict.counter.limit.name) == ("INSERT", "other")
    assert not data(replayed(asked, verdict), 1, recipient="").charge
    assert (used(asked), used(asked, name="other")) == (0, 1)


def test_a_message_s_only_recipient_is_known_at_the_end() -> None:
    asked = policy(limit(9, free=["@example.org"]))
    for instance, recipients, recipient, charged in (
        ("1.a", 1, "a@example.org", 0),
        ("2.b", 1, "a@other.example", 1),
        ("3.c", 2, "a@example.org", 2),  # Postfix names none there
        ("4.d", 2, "", 2),
    ):
        before = used(asked)
        data(asked, recipients, instance, recipient=recipient)
        assert not data(asked, recipients, instance, "END-OF-MESSAGE", recipient=recipient).charge
        assert used(asked) - before == charged


def test_free_recipients_of_a_limit_of_one_message_are_not_counted_by_it() -> None:
    asked = policy(limit(1, name="message", period="message", free=["@example.org"]))
    verdicts = [rcpt(asked, r) for r in ("a@example.org", "x@a.example", "b@example.org", "y@a.example")]
    assert [verdict.status for verdict in verdicts] == [FREE, UPDATE, FREE, OVER_QUOTA]
    assert not data(asked, 3).refused


# -- refusals that are counted, by limit -------------------------------------------------------------------------------


def test_each_limit_says_whether_its_refusals_are_counted() -> None:
    asked = policy(limit(1, name="mine", count_rejected=False), limit(1, name="ours", key="domain"))
    verdicts = [rcpt(asked, f"{i}@example.org") for i in range(3)]
    assert [verdict.refused for verdict in verdicts] == [False, True, True]
    assert (used(asked, name="mine"), used(asked, "example.com", "ours")) == (1, 3)
    asked = policy(limit(1, name="mine", count_rejected=False), limit(9, name="ours", key="domain"))
    verdicts = [rcpt(asked, "a@example.org"), *(rcpt(asked, "b@example.org") for _ in range(2))]
    assert [verdict.status for verdict in verdicts] == ["INSERT", OVER_QUOTA, OVER_QUOTA]
    assert (used(asked, name="mine"), used(asked, "example.com", "ours")) == (1, 1)


# -- all of it against a model -----------------------------------------------------------------------------------------


class Setting(NamedTuple):
    """A limit in the simplest words; `of_message`: of one message."""

    quota: int
    key: str
    of_message: bool
    free: tuple[str, ...]
    counts_rejected: bool
    enforce: bool = True


ADDRESSES = ["a@free.example", "b@free.example", "list@other.example", "x@other.example", "y@other.example"]
LOGINS = ["alice@example.com", "bob@example.com"]
settings = st.lists(
    st.builds(
        Setting,
        st.integers(0, 6),
        st.sampled_from(["email", "domain", "all"]),
        st.booleans(),
        st.sampled_from([(), (), ("@free.example",), ("list@other.example",), ("@free.example", "x@other.example")]),
        st.booleans(),
        st.sampled_from([True, True, True, False]),
    ),
    min_size=1,
    max_size=3,
)
walks = st.lists(
    st.tuples(
        st.sampled_from(LOGINS),
        st.sampled_from(["1", "2", ""]),  # instance
        st.sampled_from([*ADDRESSES, "DATA", "END-OF-MESSAGE"]),
        st.integers(0, 7),
        st.booleans(),  # the daemon is restarted first
    ),
    max_size=40,
)


class Model:
    """Every counter as a sum over plain lists: what was admitted, and what was charged for refusals."""

    def __init__(self, limits: list[Setting]) -> None:
        self.limits = limits
        self.asked = 0
        self.used: Multiset[tuple[int, str]] = Multiset()
        self.counted: Multiset[tuple[str, int]] = Multiset()  # of messages, by transaction and limit
        self.admitted: Multiset[str] = Multiset()
        self.recipients: set[tuple[str, str]] = set()
        self.refused: Multiset[tuple[str, int]] = Multiset()
        self.refused_recipients: set[tuple[str, int, str]] = set()

    def ask(self, login: str, instance: str, recipient: str, count: int, known: str) -> bool:
        """Whether it is admitted. `recipient` is "" at the end, where `known` is the only one, or ""."""
        self.asked += 1
        at = f"{instance} {login}" if instance else f"{self.asked}: a transaction of its own"
        due = count - self.admitted[at] if not recipient else (at, recipient) not in self.recipients
        if due <= 0:
            return True
        dues = {}
        for i, each in enumerate(self.limits):
            if not _is_free(known, each.free):
                already = self.refused[at, i]
                if recipient:
                    already = int(bool(already) and (at, i, recipient) in self.refused_recipients)
                dues[i] = max(0, due - already)
        refusing = [i for i in dues if self.limits[i].quota and self.limits[i].enforce]
        over = [i for i in refusing if self._used(at, i, login) + dues[i] > self.limits[i].quota]
        for i in over or dues:
            if self.limits[i].of_message:
                if not over:
                    self.counted[at, i] += dues[i]
            elif not over or self.limits[i].counts_rejected:
                self.used[i, _key(self.limits[i], login)] += dues[i]
                if over:
                    self.refused[at, i] += dues[i]
                    self.refused_recipients.add((at, i, recipient))
        if not over:
            self._admit(at, recipient, int(due))
        return not over

    def _used(self, at: str, i: int, login: str) -> int:
        return self.counted[at, i] if self.limits[i].of_message else self.used[i, _key(self.limits[i], login)]

    def _admit(self, at: str, recipient: str, due: int) -> None:
        for i in range(len(self.limits)):
            if not recipient or (at, i, recipient) in self.refused_recipients:
                self.refused[at, i] = max(0, self.refused[at, i] - due)
        self.admitted[at] += due
        self.recipients.add((at, recipient))


def _key(setting: Setting, login: str) -> str:
    return {"email": login, "domain": login.split("@")[1], "all": "all"}[setting.key]


def _is_free(recipient: str, free: tuple[str, ...]) -> bool:
    return recipient != "" and (recipient in free or "@" + recipient.split("@")[1] in free)


def _made(setting: Setting, i: int) -> Limit:
    return limit(
        setting.quota,
        name=f"limit{i}",
        key=setting.key,
        period="message" if setting.of_message else "daily",
        free=setting.free,
        count_rejected=setting.counts_rejected,
        enforce=setting.enforce,
    )


@given(settings, walks)
def test_every_counter_is_what_a_plain_model_says(
    limits: list[Setting], walk: list[tuple[str, str, str, int, bool]]
) -> None:
    model, asked, written = Model(limits), policy(*(_made(each, i) for i, each in enumerate(limits))), ""
    for login, instance, what, count, restarted in walk:
        if restarted:
            asked.memo = memo()
            remember(written.split("\n")[:-1], asked.memo)
        at_end = what not in ADDRESSES
        recipient = ("x@other.example" if count == 1 else "") if at_end else what
        state = what if at_end else "RCPT"
        asks = request(state, login, instance=instance, recipient=recipient, recipient_count=count if at_end else 0)
        verdict = ask(asked, asks)
        written += record(verdict.charge)
        assert (not verdict.refused) == model.ask(login, instance, "" if at_end else what, count, recipient)
    found = {
        (i, key): counter.used
        for i, meter in enumerate(asked.meters)
        for key, counter in meter.counters.items()
        if counter.used
    }
    assert found == +model.used
    journal: Multiset[tuple[int, str]] = Multiset()
    for end, times in ends(written.split("\n")[:-1]).items():
        recipients, charged = windows(end)
        for name, _, key in charged:
            journal[int(name.removeprefix("limit")), key] += recipients * times
    assert journal == +model.used
    assert asked.pending.recipients == model.used.total()
