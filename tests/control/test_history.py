"""`ratelimitctl history`: what an account used in each window, with a running daemon and without one."""

import json
import sqlite3
import time
from contextlib import closing
from typing import Any

import pytest

from ratelimitd.ctl.report.totals import Reading, Totals
from tests.control.conftest import Ctl, Start
from tests.daemon.process import Ratelimitd

ALICE = "alice@example.com"
DAY = 86_400
TODAY = int(time.time()) // DAY * DAY
LIMITS = [{"name": "daily", "quota": 10}, {"name": "pool", "key": "domain", "period": "1h", "window": "sliding"}]
KEPT = {"history_days": 30, "flush_interval_s": 3600}


@pytest.fixture
def daemon(start: Start) -> Ratelimitd:
    """It stores nothing by itself; alice has sent 3 today."""
    started = start(limit=LIMITS, store=KEPT, timezone="UTC")
    send(started, 3)
    return started


def send(daemon: Ratelimitd, times: int, login: str = ALICE) -> None:
    with daemon.client() as client:
        for _ in range(times):
            client.ask(login)


def remember(daemon: Ratelimitd, *rows: tuple[str, str, int, int]) -> None:
    """Rows of the history: limit, key, days ago, used."""
    with closing(sqlite3.connect(daemon.database, isolation_level=None)) as database:
        for limit, key, ago, used in rows:
            database.execute(
                "INSERT INTO ratelimit_history (limit_name, sender, expiry, used) VALUES (?, ?, ?, ?)",
                (limit, key, TODAY + DAY - ago * DAY, used),
            )


def windows(ran_json: dict[str, object], limit: str = "daily") -> list[tuple[int, int, bool]]:
    """When each began, in days before today, what was used, and whether it is running."""
    (one,) = [each for each in ran_json["limits"] if each["limit"] == limit]  # type: ignore[attr-defined]
    return [((TODAY - each["begin"]) // DAY, each["used"], each["running"]) for each in one["windows"]]


def test_each_window_and_what_is_not_stored_yet(daemon: Ratelimitd, ctl_of: Ctl) -> None:
    remember(daemon, ("daily", ALICE, 2, 7), ("daily", ALICE, 1, 12), ("daily", ALICE, 31, 5), ("gone", ALICE, 1, 5))
    found = ctl_of(daemon, "history", "Alice@Example.com", "--json")
    assert found.status == 0
    assert windows(found.json) == [(2, 7, False), (1, 12, False), (0, 3, True)]
    daily, pool = found.json["limits"]
    assert (daily["key"], daily["quota"], daily["used"], daily["left_out"]) == (ALICE, 10, 22, 0)
    assert (pool["key"], pool["used"], pool["sliding"], len(pool["windows"])) == ("example.com", 3, True, 1)
    assert windows(ctl_of(daemon, "history", ALICE, "--days", "2", "--json").json) == [(1, 12, False), (0, 3, True)]


def test_it_is_the_same_without_a_daemon_also_after_a_kill(daemon: Ratelimitd, ctl_of: Ctl) -> None:
    remember(daemon, ("daily", ALICE, 1, 12))
    with_daemon = ctl_of(daemon, "history", ALICE, "--json").json
    daemon.kill()
    assert ctl_of(daemon, "history", ALICE, "--json").json == with_daemon
    daemon.start()
    assert ctl_of(daemon, "history", ALICE, "--json").json == with_daemon
    daemon.stop()
    assert ctl_of(daemon, "history", ALICE, "--json").json == with_daemon


def test_one_limit_alone(daemon: Ratelimitd, ctl_of: Ctl) -> None:
    found = ctl_of(daemon, "history", ALICE, "--limit", "daily", "--json").json
    assert [each["limit"] for each in found["limits"]] == ["daily"]
    refused = ctl_of(daemon, "history", ALICE, "--limit", "none")
    assert (refused.status, refused.err) == (2, "ratelimitctl: there is no limit none; there are: daily, pool\n")


def test_an_account_that_only_the_history_knows(daemon: Ratelimitd, ctl_of: Ctl) -> None:
    remember(daemon, ("daily", "bob@example.org", 5, 7))
    found = ctl_of(daemon, "history", "bob@example.org", "--json")
    assert (found.status, found.json["found"], windows(found.json)) == (0, True, [(5, 7, False)])


def test_an_unknown_key_is_1_as_with_show(daemon: Ratelimitd, ctl_of: Ctl) -> None:
    unknown = ctl_of(daemon, "history", "nobody@example.org")
    assert unknown.status == ctl_of(daemon, "show", "nobody@example.org").status == 1
    assert unknown.out.splitlines()[0] == "nobody@example.org, limit daily, daily: nothing in 30 days"
    assert ctl_of(daemon, "history", "nobody").out == (
        "nobody, limit daily, daily: nothing in 30 days\n"
    )  # under `pool` a bare login has no key
    assert ctl_of(daemon, "history", " ").status == 2


def test_a_domain_counts_nothing(daemon: Ratelimitd, ctl_of: Ctl) -> None:
    ran = ctl_of(daemon, "history", "@example.com")
    assert (ran.status, ran.err) == (1, "ratelimitctl: @example.com: a domain's row counts nothing\n")


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("verb", [("history", ALICE), ("report",)])
def test_without_a_history_one_line_says_how_to_have_one(
    start: Start, ctl_of: Ctl, running: bool, verb: tuple[str, ...]
) -> None:
    daemon = start(limit=LIMITS)
    if not running:
        daemon.stop()
    ran = ctl_of(daemon, *verb)
    assert (ran.status, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert "set history_days = 30 under [store] and run `ratelimitctl reload`" in ran.err


def test_days_are_a_number(daemon: Ratelimitd, ctl_of: Ctl) -> None:
    for days in ("0", "-1", "3661", "many"):
        assert ctl_of(daemon, "history", ALICE, "--days", days).status == 2
    short = start_of(ctl_of(daemon, "history", ALICE, "--days", "40").out)
    assert short == "history_days is 30: there is nothing of days before that"


def start_of(text: str) -> str:
    return text.splitlines()[-1]


def test_more_windows_than_an_answer_has_are_left_out(
    daemon: Ratelimitd, ctl_of: Ctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    remember(daemon, *[("daily", ALICE, ago, ago) for ago in range(1, 9)])
    daemon.stop()
    monkeypatch.setattr("ratelimitd.control.history.MAX_WINDOWS", 4)
    made = json.loads(ctl_of(daemon, "history", ALICE, "--limit", "daily", "--json").out)["limits"][0]
    assert (len(made["windows"]), made["left_out"], made["used"]) == (4, 5, 36 + 3)


def test_the_history_of_a_limit_s_messages_is_in_messages(start: Start, ctl_of: Ctl) -> None:
    daemon = start(limit=[{"quota": 10, "count": "messages"}], store=KEPT)
    send(daemon, 2)
    found = ctl_of(daemon, "history", ALICE)
    assert found.out.startswith(f"{ALICE}, limit default, daily: 2 messages in 30 days, quota 10 (limit default)\n")


def test_the_report_is_read_from_the_store_with_a_daemon_and_without(daemon: Ratelimitd, ctl_of: Ctl) -> None:
    remember(daemon, ("daily", ALICE, 1, 12), ("daily", "bob@example.com", 1, 4), ("daily", ALICE, 45, 9))
    found = ctl_of(daemon, "report", "--json")
    assert found.status == 0
    assert (found.json["recipients"], found.json["accounts"], found.json["counted_by"]) == (16, 2, "daily")
    assert ctl_of(daemon, "set", ALICE, "--quota", "5", "--persist", "--limit", "daily").status == 0  # it flushes
    daemon.stop()
    found = ctl_of(daemon, "report", "--json")
    assert (found.json["recipients"], found.json["accounts"]) == (19, 2)
    (over,) = found.json["over"]
    assert (over["key"], over["quota"], over["worst"], over["over"]) == (ALICE, 5, 12, 7)
    assert ctl_of(daemon, "report", "--days", "1", "--json").json["recipients"] == 3


def test_a_limit_of_one_message_and_one_that_does_not_count_refusals_are_remarked(start: Start, ctl_of: Ctl) -> None:
    limits = [{"name": "size", "period": "message"}, {"name": "daily", "count_rejected": False}]
    daemon = start(limit=limits, store=KEPT)
    found = ctl_of(daemon, "report", "--json", "--days", "40").json
    assert [each["limit"] for each in found["limits"]] == ["daily"]
    assert found["remarks"] == [
        "quotas are those that hold now, also for windows in which others held",
        "history_days is 30: there is nothing of days before that",
        "limit size counts the recipients of one message: nothing of it is stored",
        "limit daily does not count what it refuses (count_rejected): that is not known",
    ]


def test_a_report_of_limits_of_one_message_alone_is_refused_in_one_line(start: Start, ctl_of: Ctl) -> None:
    daemon = start(limit=[{"name": "size", "period": "message"}], store=KEPT)
    ran = ctl_of(daemon, "report")
    assert (ran.status, ran.err) == (1, "ratelimitctl: no limit is stored: all count the recipients of one message\n")


def test_what_a_limit_counted_that_is_gone_is_remarked(daemon: Ratelimitd, ctl_of: Ctl) -> None:
    remember(daemon, ("hourly\x1b[2J", ALICE, 1, 12))
    remarks = ctl_of(daemon, "report", "--json").json["remarks"]
    assert remarks[-1] == "what limits counted that are configured no more is left out: hourly\\x1b[2J"


def test_a_daemon_that_starts_while_the_file_is_read_alone_is_said(
    daemon: Ratelimitd, ctl_of: Ctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.stop()
    made = Totals.begin

    def begin(*arguments: Any) -> Reading:
        if not daemon.process.running():
            daemon.start()
        return made(*arguments)

    monkeypatch.setattr(Totals, "begin", begin)
    ran = ctl_of(daemon, "report")
    assert (ran.status, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert "a daemon has started meanwhile; ask again" in ran.err
    assert ctl_of(daemon, "report").status == 0


def test_a_report_without_a_database_says_so(daemon: Ratelimitd, ctl_of: Ctl) -> None:
    daemon.stop()
    daemon.database.unlink()
    ran = ctl_of(daemon, "report")
    assert (ran.status, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert ran.err.startswith("ratelimitctl: store: sqlite:")
