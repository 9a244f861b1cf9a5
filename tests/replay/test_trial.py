"""The limits decide on a log as the daemon would, asked about each recipient; and the distribution is of what was
tried."""

from collections import Counter as Multiset
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimitd.core.limits import Limit
from ratelimitd.core.policy import Rules
from ratelimitd.core.verdict import OVER_QUOTA, WOULD_BLOCK
from ratelimitd.ctl.replay.lines import Login
from ratelimitd.ctl.replay.mails import MAX_NAMED, Mail
from ratelimitd.ctl.replay.trial import Trial
from ratelimitd.logins import LoginRules
from ratelimitd.request import Request
from tests.core.build import MIDNIGHT, NOON, ask, limit, policy

RULES = Rules(b"action=DUNNO\n\n", 0.0)
Simple = tuple[int, str, int]
"""A mail: seconds after the one before it, whose, recipients."""


def mail(at: int, login: str, recipients: int, number: int = 0, named: Sequence[str] = ()) -> Mail:
    of = Login(b"mx1 %d" % number, b"laptop", b"192.0.2.7", b"PLAIN", login.encode())
    made = Mail(begun=at, login=of, instance=b"mx1 %d" % number, recipients=recipients, named=[])
    made.named = [name.encode() for name in named]
    return made


def trial(limits: Sequence[Limit], mails: Sequence[Mail], logins: LoginRules | None = None) -> Trial:
    made = Trial(limits, RULES, logins or LoginRules())
    for each in mails:
        made.take(each)
    return made


def refused(of: Trial) -> list[dict[str, tuple[int, int]]]:
    """Of each limit: how many of whose, and when first."""
    return [{key: (each.recipients, each.first) for key, each in found.items()} for found in of.refused]


def through_policy(limits: Sequence[Limit], mails: Sequence[Simple]) -> list[dict[str, tuple[int, int]]]:
    """The same by a policy that is asked about one recipient after another."""
    asked = policy(*limits)
    found: list[dict[str, tuple[int, int]]] = [{} for _ in limits]
    now, names = NOON, [each.name for each in limits]
    for number, (after, login, recipients) in enumerate(mails):
        now += after
        messages: set[tuple[int, str]] = set()
        for i in range(recipients):
            verdict = ask(asked, Request.of(
                f"request=smtpd_access_policy\nprotocol_state=RCPT\ninstance={number}\nrecipient=r{i}@example.org\n"
                f"recipient_count=0\nsasl_username={login}"), now)  # fmt: skip
            if verdict.status in (OVER_QUOTA, WOULD_BLOCK):
                assert verdict.counter is not None
                place = names.index(verdict.counter.limit.name)
                key = verdict.counter.key
                more = 0 if verdict.counter.limit.by_message and (place, key) in messages else 1
                messages.add((place, key))
                before, first = found[place].get(key, (0, now))
                found[place][key] = before + more, first
    return found


def taken(mails: Sequence[Simple]) -> list[Mail]:
    now, made = NOON, []
    for number, (after, login, recipients) in enumerate(mails):
        now += after
        made.append(mail(now, login, recipients, number))
    return made


def test_who_is_refused_how_often_and_when() -> None:
    mails = [
        mail(NOON, "alice", 6, 1), mail(NOON + 60, "alice", 6, 2), mail(NOON + 120, "bob", 10, 3),
        mail(NOON + 180, "alice", 1, 4), mail(MIDNIGHT, "alice", 10, 5),
    ]  # fmt: skip
    made = trial([limit(10)], mails)
    assert refused(made) == [{"alice": (3, NOON + 60)}]
    (uses,) = made.uses
    assert (made.messages, made.recipients, uses.recipients) == (5, 33, 33)
    assert uses.most == {"alice": 13, "bob": 10}
    assert uses.distribution().quantiles() == {"50": 10, "90": 13, "99": 13, "100": 13}
    assert uses.distribution().quota_for() == {"1%": 13, "0.1%": 13, "0": 13}


def test_quantiles_are_exact() -> None:
    made = trial([limit(0)], [mail(NOON, f"a{i}", i, i) for i in range(1, 1001)])
    assert made.uses[0].distribution().quantiles() == {"50": 500, "90": 900, "99": 990, "100": 1000}
    assert made.uses[0].distribution().quota_for() == {"1%": 990, "0.1%": 999, "0": 1000}


def test_a_log_without_mail_has_no_uses() -> None:
    (uses,) = trial([limit(10)], []).uses
    assert uses.distribution().quantiles() == {"50": 0, "90": 0, "99": 0, "100": 0}
    assert uses.distribution().quota_for() == {"1%": 0, "0.1%": 0, "0": 0}


def test_a_sliding_limit_s_uses_are_what_any_period_has() -> None:
    mails = [mail(MIDNIGHT - 1800, "alice", 5, 1), mail(MIDNIGHT + 600, "alice", 5, 2)]
    made = trial([limit(8, period="1h", window="sliding")], mails)
    assert made.uses[0].most == {"alice": 10}
    assert refused(made) == [{"alice": (2, MIDNIGHT + 600)}]


def test_exceptions_free_recipients_and_logins_hold() -> None:
    limits = [limit(2, quotas={"news@example.com": 100}, free=["@example.com"])]
    made = trial(limits, [
        mail(NOON, "News", 50, 1), mail(NOON, "alice", 4, 2, ["a@example.com", "b@example.com"]),
        mail(NOON, "alice@example.com", 1, 3),
    ], LoginRules("example.com"))  # fmt: skip
    assert refused(made) == [{"alice@example.com": (1, NOON)}]
    assert made.uses[0].most == {"news@example.com": 50, "alice@example.com": 3}


def test_what_a_daemon_asked_at_once_is_refused_at_once() -> None:
    at_once = mail(NOON, "alice", 6, 2)
    at_once.at_once = True
    assert refused(trial([limit(10)], [mail(NOON, "alice", 6, 1), at_once])) == [{"alice": (6, NOON)}]


def test_what_a_daemon_called_free_counts_nowhere() -> None:
    free = mail(NOON, "alice", 6, 1)
    free.is_free = True
    made = trial([limit(1)], [free])
    assert (made.messages, made.recipients, refused(made), made.uses[0].most) == (1, 6, [{}], {})


def test_a_key_plugin_that_fails_stops_nothing() -> None:
    def fails(request: Request) -> str:
        raise RuntimeError

    limits = [limit(1, name="broken", key=fails), limit(1, name="daily")]
    assert refused(trial(limits, [mail(NOON, "alice", 3, 1)])) == [{}, {"alice": (2, NOON)}]
    assert limits[0].health.failures > 0


def test_a_mail_with_absurdly_many_recipients_takes_no_longer() -> None:
    limits = [limit(500, name="a"), limit(MAX_NAMED * 2, name="b", key="all"), limit(700, name="c")]
    made = trial(limits, [mail(NOON, f"a{i}", 999_999_999, i) for i in range(50)])
    assert made.recipients == 50 * 999_999_999
    assert set(refused(made)[0]) == {f"a{i}" for i in range(50)}


@st.composite
def configurations(draw: st.DrawFn) -> list[Limit]:
    made = []
    for i in range(draw(st.integers(1, 3))):
        period = draw(st.sampled_from(["hourly", "daily", "10m", "message"]))
        of_message = period == "message"
        made.append(
            limit(
                draw(st.integers(0, 12)),
                name=f"limit{i}",
                key=draw(st.sampled_from(["email", "domain", "all"])),
                period=period,
                window=draw(st.sampled_from(["fixed"] if of_message else ["fixed", "sliding"])),
                quotas=draw(st.sampled_from([{}, {"a@x.example": 20}, {"@x.example": 3}])),
                enforce=draw(st.sampled_from([True, True, False])),
                by_message=not of_message and draw(st.booleans()),
                count_rejected=draw(st.booleans()),
            )
        )
    return made


MAILS = st.lists(
    st.tuples(st.integers(0, 2000), st.sampled_from(["a@x.example", "b@x.example", "c@y.example"]), st.integers(1, 15)),
    max_size=25,
)


@given(configurations(), MAILS)
@settings(max_examples=400, deadline=None)
def test_the_same_mails_through_a_policy_are_refused_the_same(limits: list[Limit], mails: list[Simple]) -> None:
    assert refused(trial(limits, taken(mails))) == through_policy(limits, mails)


@given(st.sampled_from(["hourly", "10m", "daily"]), st.sampled_from(["fixed", "sliding"]), MAILS)
@settings(deadline=None)
def test_the_quota_that_would_refuse_none_refuses_none_and_one_less_refuses_somebody(
    period: str, window: str, mails: list[Simple]
) -> None:
    def under(quota: int) -> Trial:
        return trial([limit(quota, period=period, window=window)], taken(mails))  # type: ignore[arg-type]

    needed = under(1).uses[0].distribution().quota_for()["0"]
    if mails:
        assert refused(under(needed)) == [{}]
    if needed > 1:
        assert refused(under(needed - 1)) != [{}]


def test_a_hundred_accounts_and_the_quota_that_refuses_one_of_them() -> None:
    mails = [mail(NOON + i, f"a{i}", i + 1, i) for i in range(100)]
    quota = trial([limit(0)], mails).uses[0].distribution().quota_for()["1%"]
    assert [*refused(trial([limit(quota)], mails))[0]] == ["a99"]
    assert len(refused(trial([limit(quota - 1)], mails))[0]) == 2


def test_memory_is_that_of_accounts_and_not_of_mails() -> None:
    made = Trial([limit(5, period="1h", window="sliding"), limit(3, name="b")], RULES, LoginRules())
    held = Multiset[int]()
    for number in range(20_000):
        made.take(mail(NOON + 30 * number, f"a{number % 7}", 2, number))
        if number % 10_000 == 9_999:
            held[number] = sum(len(c.earlier) for m in made._policy.meters for c in m.counters.values())
            assert len(made._policy.pending.open.deltas) == 0
    assert not any(held.values())


@pytest.mark.parametrize("count", [1, 2, MAX_NAMED + 5])
def test_a_mail_beyond_what_is_asked_one_by_one_is_counted_whole(count: int) -> None:
    made = trial([limit(1), limit(5, name="b", key="all")], [mail(NOON, "alice", count, 1)])
    total = sum(found[0] for each in refused(made) for found in each.values())
    assert total == count - 1
