"""Whose quota holds: the order of precedence against a plain model, and grants that end by themselves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimitd.core.counters import Counter, Meter
from ratelimitd.core.pending import Pending, merge
from ratelimitd.core.quotas import Source
from ratelimitd.core.rows import Row
from ratelimitd.core.standing import apart
from tests.core.build import DAY_S, MIDNIGHT, NOON, charge, limit, policy, rcpt, row

ALICE, DOMAIN = "alice@example.com", "@example.com"
QUOTA = 50


def given_row(quota: int, until: int = 0, **more: object) -> Row:
    return row(ALICE, quota=quota, configured=QUOTA, **more)._replace(until=until)  # type: ignore[arg-type]


def of_domain(quota: int, *, persist: bool = True) -> Row:
    return row(DOMAIN, quota=quota, configured=None, expiry=0, persist=persist)


def at(meter: Meter, now: int, key: str = ALICE) -> Counter:
    found = meter.find(key, now)
    assert found is not None
    return found


quotas = st.none() | st.integers(0, 99)
instants = st.sampled_from([NOON - 5, NOON, NOON + 1, NOON + 3600, MIDNIGHT, MIDNIGHT + 5, MIDNIGHT + 3 * DAY_S])


@given(
    own=quotas,
    persist=st.booleans(),
    until=st.sampled_from([0, NOON - 5, NOON + 3600, MIDNIGHT, MIDNIGHT + 3 * DAY_S]),
    exception=quotas,
    domain_row=quotas,
    domain_persists=st.booleans(),
    domain_exception=quotas,
    later=st.lists(instants, max_size=5),
)
def test_the_precedence_is_that_of_a_plain_model_now_and_at_every_later_time(
    own: int | None,
    persist: bool,
    until: int,
    exception: int | None,
    domain_row: int | None,
    domain_persists: bool,
    domain_exception: int | None,
    later: list[int],
) -> None:
    """`own` is what stands in the account's row, given in the window that ends at MIDNIGHT, before NOON."""

    def base() -> int:
        for quota in (exception, domain_row if domain_persists else None, domain_exception):
            if quota is not None:
                return quota
        return QUOTA

    def wanted(now: int) -> int:
        if own is not None and (persist or until > now):
            return own
        # A quota that equals the configured one is no grant; one whose end is over is none for the window either.
        if own is not None and own != QUOTA and not until and now < MIDNIGHT:
            return own
        return base()

    exceptions = {ALICE: exception, DOMAIN: domain_exception}
    meter = Meter(limit(QUOTA, quotas={name: quota for name, quota in exceptions.items() if quota is not None}))
    if domain_row is not None:
        meter.bases.apply(DOMAIN, of_domain(domain_row, persist=domain_persists))
    stored = None
    if own is not None:
        stored = given_row(own, until, persist=persist, updated=NOON - 3600)._replace(seen=own)
    meter.accept(ALICE, stored, 0, NOON)
    for now in sorted({NOON, *later} - {NOON - 5}):
        assert at(meter, now).quota == wanted(now), now
        if stored is not None:
            assert apart(meter, ALICE, stored, now).quota == wanted(now), now


def test_a_grant_ends_at_its_second_with_the_use_that_there_is_and_no_flush_is_needed() -> None:
    asked, end = policy(limit(3)), NOON + 3600
    (meter,) = asked.meters
    meter.accept(ALICE, given_row(9, end, used=1), 0, NOON)
    assert [rcpt(asked, f"r{n}@x", now=end - 1).refused for n in range(4)] == [False] * 4
    kept = meter.counters[ALICE]
    assert meter.by_login[ALICE] is kept
    assert rcpt(asked, "later@x", now=end).refused
    assert meter.counters[ALICE] is kept
    assert (kept.quota, kept.used, kept.source, kept.expiry) == (3, 6, Source.CONFIGURED, MIDNIGHT)
    assert (kept.valid_until, meter.untils) == (MIDNIGHT, {})


def test_a_grant_outlasts_the_ends_of_windows_each_of_which_begins_at_0() -> None:
    meter, end = Meter(limit(QUOTA)), MIDNIGHT + DAY_S + 60
    meter.accept(ALICE, given_row(90, end, used=7), 0, NOON)
    for now in (MIDNIGHT, MIDNIGHT + DAY_S):
        renewed = at(meter, now)
        assert (renewed.quota, renewed.used, renewed.until) == (90, 0, end)
    assert (at(meter, end).quota, at(meter, end).until) == (QUOTA, 0)


def test_a_forgotten_account_s_grant_leaves_nothing_behind() -> None:
    meter = Meter(limit(QUOTA))
    meter.accept(ALICE, given_row(90, MIDNIGHT + DAY_S), 0, NOON)
    assert meter.evict(1, Pending()) == 1
    assert meter.untils == {}
    meter.accept(ALICE, given_row(90, MIDNIGHT + DAY_S), 0, NOON)
    meter.accept(ALICE, given_row(QUOTA), 0, NOON)
    assert meter.untils == {}


def test_the_row_of_a_domain_holds_for_accounts_in_memory_once_they_follow_and_ends_so() -> None:
    meter = Meter(limit(QUOTA, quotas={"boss@example.com": 500}))
    keys = [ALICE, "boss@example.com", "given@example.com", "bob@example.org"]
    for key in keys:
        meter.accept(key, row(key, quota=70, configured=QUOTA) if key.startswith("given") else None, 0, NOON)
    assert meter.bases.apply(DOMAIN, of_domain(20))
    assert not meter.bases.apply(DOMAIN, of_domain(20))
    meter.follow(keys)
    assert [at(meter, NOON, key).quota for key in keys] == [20, 500, 70, QUOTA]
    assert at(meter, NOON).source is Source.DOMAIN
    assert [at(meter, MIDNIGHT, key).quota for key in keys] == [20, 500, 20, QUOTA]
    assert meter.bases.apply(DOMAIN, of_domain(20, persist=False))
    meter.follow(keys)
    assert [at(meter, MIDNIGHT, key).quota for key in keys] == [QUOTA, 500, QUOTA, QUOTA]


def test_a_quota_that_equals_the_domain_s_is_no_grant() -> None:
    meter = Meter(limit(QUOTA))
    meter.bases.apply(DOMAIN, of_domain(20))
    counter = meter.accept(ALICE, row(ALICE, quota=20, configured=20), 0, NOON)
    assert counter.source is Source.DOMAIN
    meter.bases.apply(DOMAIN, None)
    assert meter.accept(ALICE, row(ALICE, quota=20, configured=20), 0, NOON).quota == QUOTA


def test_a_flush_writes_the_domain_s_quota_as_the_configured_one() -> None:
    meter, pending = Meter(limit(QUOTA)), Pending()
    meter.bases.apply(DOMAIN, of_domain(20))
    charge(pending, meter.accept(ALICE, None, 0, NOON), 3)
    (delta,) = merge([pending.open], 0, NOON)
    assert (delta.quota, delta.configured) == (20, 20)


@pytest.mark.parametrize(("key", "domain"), [("alice@example.com", "@example.com"), ("alice", ""), ("", "")])
def test_only_a_key_with_a_domain_has_a_domain_s_row(key: str, domain: str) -> None:
    assert limit(1).domain_of(key) == domain
    assert limit(1, key="domain").domain_of(key) == ""
