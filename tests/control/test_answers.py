"""What `ratelimitctl --json` prints: each verb's keys, in their order, for scripts that read them."""

import json
from typing import Any

import pytest

from tests.control.conftest import Ctl, Ran, Start
from tests.daemon.process import Ratelimitd

ALICE = "alice@example.com"
LIMITS = [{"name": "daily", "quota": 1000}, {"name": "pool", "key": "domain", "quota": 0}]

ACCOUNT = [
    *("limit", "key", "period", "quota", "source", "used", "left", "not_stored", "reset", "reset_at", "counts"),
    *("enforced", "seen", "until", "domain"),
]
STATUS = [
    *("running", "version", "pid", "started", "uptime_s", "config", "listen", "limits", "store", "journal", "accounts"),
    *("not_stored", "requests", "per_second", "decisions", "connections", "parked", "transactions", "evicted"),
    *("lookups_held", "transactions_forgotten", "without_login", "log_lines_dropped", "log_lines_left_out"),
    *("timeouts", "too_long", "not_postfix", "refused_peers", "accept_pauses", "errors"),
]


@pytest.fixture
def daemon(start: Start) -> Ratelimitd:
    started = start(limit=LIMITS)
    with started.client() as client:
        client.ask(ALICE)
    return started


def printed(ran: Ran, status: int = 0) -> Any:
    """Its JSON, if it is printed as Python's json prints it."""
    assert (ran.status, ran.out) == (status, json.dumps(ran.json) + "\n")
    return ran.json


def test_status(daemon: Ratelimitd, ctl_of: Ctl) -> None:
    found = printed(ctl_of(daemon, "status", "--json"))
    assert list(found) == STATUS
    store = ["name", "up", "failures", "flushes", "last_flush_s_ago", "last_flush_ms", "rejected"]
    assert list(found["store"]) == store
    assert list(found["journal"]) == ["segments", "bytes", "unwritten", "error"]
    assert list(found["not_stored"]) == ["accounts", "recipients"]
    assert (found["journal"]["error"], found["accounts"]) == (None, {"daily": 1, "pool": 1})


def test_status_and_account_without_a_daemon(daemon: Ratelimitd, ctl_of: Ctl) -> None:
    daemon.stop()
    assert printed(ctl_of(daemon, "status", "--json"), 3) == {
        "running": False,
        "config": str(daemon.file),
        "store": {"name": f"sqlite:{daemon.state / 'ratelimit.sqlite3'}", "up": True},
        "not_stored": {"accounts": 0, "recipients": 0},
    }
    found = printed(ctl_of(daemon, "show", ALICE, "--json"))
    assert [list(account) for account in found["limits"]] == [ACCOUNT, ACCOUNT]


def test_an_accounts_verbs(daemon: Ratelimitd, ctl_of: Ctl) -> None:
    shown = printed(ctl_of(daemon, "show", ALICE, "--json"))
    assert list(shown) == ["key", "found", "limits"]
    daily, pool = shown["limits"]
    assert list(daily) == list(pool) == ACCOUNT
    assert (pool["quota"], pool["left"], pool["counts"]) == (None, None, "recipients")
    assert list(printed(ctl_of(daemon, "set", ALICE, "--quota", "5", "--json"))) == [
        *ACCOUNT,
        *("was", "gave_up_persistent", "persistent", "until_at"),
    ]
    reset = printed(ctl_of(daemon, "reset", ALICE, "--json"))
    assert (list(reset), list(reset["limits"][0])) == (["key", "limits"], [*ACCOUNT, "was"])
    ranking = printed(ctl_of(daemon, "top", "--once", "--json"))
    assert list(ranking) == ["time", "limits"]
    assert list(ranking["limits"][0]) == ["limit", "period", "accounts"]
    assert list(ranking["limits"][1]["accounts"][0]) == ACCOUNT


def test_history_and_report(start: Start, ctl_of: Ctl) -> None:
    daemon = start(limit=LIMITS, store={"history_days": 30})
    with daemon.client() as client:
        client.ask(ALICE)
    found = printed(ctl_of(daemon, "history", ALICE, "--json"))
    assert list(found) == ["key", "found", "days", "history_days", "limits"]
    fields = ["limit", "key", "period", "sliding", "counts", "quota", "source", "used", "windows", "left_out"]
    assert [list(each) for each in found["limits"]] == [fields, fields]
    window = ["begin", "begin_at", "end", "end_at", "used", "most", "running"]
    assert list(found["limits"][0]["windows"][0]) == window
    daemon.stop()
    report = printed(ctl_of(daemon, "report", "--json"))
    assert list(report) == [
        *("from", "to", "counted_by", "recipients", "accounts", "days", "limits", "most", "over", "new"),
        *("unused_quotas", "remarks"),
    ]
    assert list(report["days"][0]) == ["day", "recipients", "accounts", "refused_recipients"]
    assert list(report["most"][0]) == ["key", "quota", "recipients", "windows", "worst"]
    assert list(report["limits"][0]) == [
        *("limit", "period", "window", "counts", "enforced", "quota", "accounts", "recipients", "refused_recipients"),
        *("refused_accounts", "refused", "quantiles", "quota_for", "histogram"),
    ]
    assert list(report["unused_quotas"][0]) == ["limit", "of", "source", "quota", "accounts", "worst"]


def test_verbs_about_the_daemon(daemon: Ratelimitd, ctl_of: Ctl) -> None:
    assert list(printed(ctl_of(daemon, "dump", "--json"))) == ["file"]
    assert list(printed(ctl_of(daemon, "dump", "-", "--json"))) == ["accounts", "more", "totals"]
    assert printed(ctl_of(daemon, "reload", "--json")) == {"needs_start": []}
    found = printed(ctl_of(daemon, "check", "--json"))
    assert list(found) == ["config", "limits", "store", "error", "remarks"]
    assert list(found["limits"][0]) == ["limit", "key", "plugin"]
    plugins = printed(ctl_of(daemon, "plugins", "--json"))
    assert list(plugins) == ["config", "error", "plugins"]
    fields = ["name", "distribution", "version", "entry_point", "limits", "error", "options"]
    assert list(plugins["plugins"][0]) == fields


def test_what_is_refused(daemon: Ratelimitd, ctl_of: Ctl) -> None:
    found = printed(ctl_of(daemon, "show", " ", "--json"), 2)
    assert found == {"error": "' ': not a key", "exit": 2}
