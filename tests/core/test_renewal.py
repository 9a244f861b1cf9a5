"""Windows that end between two questions, quotas that the configuration gave, and accounts that somebody watches."""

from dataclasses import replace

from ratelimitd.core.counters import Meter
from ratelimitd.core.verdict import Verdict
from ratelimitd.core.watcher import Nobody
from tests.core.build import DAY_S, MIDNIGHT, NOON, ask, limit, policy, rcpt, request, row

ALICE = "alice@example.com"


class Listening(Nobody):
    """Wants to know of every limit, and does nothing about it."""

    def notice_percent(self, limit: str) -> int:
        return 80


def test_a_window_that_has_ended_is_begun_anew_by_the_decision_itself() -> None:
    asked = policy(limit(1))
    assert not rcpt(asked, "a@example.org").refused
    what = request("RCPT", recipient="b@example.org", instance="2.a")
    tomorrow = asked.decide(what, NOON + DAY_S)
    assert isinstance(tomorrow, Verdict)
    assert (tomorrow.refused, tomorrow.used) == (False, 1)


def test_an_account_that_is_to_be_told_of_is_decided_the_same_where_nobody_listens() -> None:
    asked = policy(limit(1), watch=Listening())
    assert asked.meters[0].first_notice(9) == 8
    assert [rcpt(asked, recipient).refused for recipient in ("a@example.org", "b@example.org")] == [False, True]


def test_a_changed_configuration_reaches_the_quotas_that_it_gave_and_no_others() -> None:
    meter = Meter(limit(10))
    for key, stored in {
        ALICE: row(ALICE, quota=10, configured=10),
        "granted@example.com": row("granted@example.com", quota=50, configured=10),
        "kept@example.com": row("kept@example.com", quota=60, configured=10, persist=True),
    }.items():
        meter.accept(key, stored, 0, NOON)
    meter.limit = replace(meter.limit, quota=20)
    meter.follow([*meter.counters, "nobody@example.com"])
    assert [counter.quota for counter in meter.counters.values()] == [20, 50, 60]
    meter.follow(meter.counters)
    assert meter.counters[ALICE].quota == 20


def test_a_quota_that_was_raised_by_a_reload_admits_at_once() -> None:
    asked = policy(limit(1))
    assert [rcpt(asked, recipient).refused for recipient in ("a@example.org", "b@example.org")] == [False, True]
    meter = asked.meters[0]
    meter.limit = replace(meter.limit, quota=5)
    meter.follow(meter.counters)
    assert not ask(asked, request("RCPT", recipient="c@example.org"), NOON).refused
    assert meter.counters[ALICE].expiry == MIDNIGHT
