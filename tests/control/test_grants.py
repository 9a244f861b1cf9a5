"""`ratelimitctl set --until`, `--for`, `unset`, quotas of domains; and that every change is in the log, by whom."""

import os
import pwd
import re
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.control.conftest import Ctl, Start
from tests.daemon.process import Ratelimitd
from tests.instances.waiting import wait_until

ALICE, BOB = "alice@example.com", "bob@example.com"
LIMITS = [{"name": "daily", "quota": 3}, {"name": "pool", "key": "domain", "quota": 100_000, "period": "monthly"}]
NEXT_YEAR = datetime.now(UTC).year + 1
END = f"{NEXT_YEAR}-12-01 18:00"
UID = os.getuid()
WHO = f"uid={UID}, user={pwd.getpwuid(UID).pw_name}"


@pytest.fixture
def daemon(start: Start) -> Ratelimitd:
    """A daemon whose clock is in UTC; alice has sent 1."""
    started = start(limit=LIMITS, timezone="UTC", store={"flush_interval_s": 0.2, "refresh_s": 0.4})
    with started.client() as client:
        assert client.ask(ALICE) == "DUNNO"
    return started


@contextmanager
def sql(daemon: Ratelimitd) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(daemon.database, timeout=30)) as connection, connection:
        yield connection


def until(daemon: Ratelimitd) -> int | None:
    with sql(daemon) as connection:
        ((found,),) = connection.execute("SELECT until FROM ratelimit WHERE sender = ? ", (ALICE,))
    return int(found) if found is not None else None


def view(ran_json: dict[str, list[dict[str, object]]]) -> dict[str, object]:
    (daily,) = [limit for limit in ran_json["limits"] if limit["limit"] == "daily"]
    return daily


def test_a_grant_until_a_time_is_shown_with_what_comes_after_and_survives_a_restart(
    daemon: Ratelimitd, ctl_of: Ctl
) -> None:
    ran = ctl_of(daemon, "set", ALICE, "--quota", "5", "--until", END, "--json")
    end = int(datetime(NEXT_YEAR, 12, 1, 18, tzinfo=UTC).timestamp())
    assert (ran.status, ran.json["until"], ran.json["was"], ran.json["quota"]) == (0, end, 3, 5)
    assert until(daemon) == end
    for _ in range(2):
        shown = view(ctl_of(daemon, "show", ALICE, "--json").json)
        source = f"database, until {NEXT_YEAR}-12-01 18:00 +0000, then 3 (limit daily)"
        assert (shown["quota"], shown["until"], shown["source"]) == (5, end, source)
        daemon.stop()
        assert view(ctl_of(daemon, "show", ALICE, "--json").json)["source"] == source
        daemon.start()
    with daemon.client() as client:
        assert [client.ask(ALICE)[:3] for _ in range(5)] == ["DUN"] * 4 + ["450"]


def test_a_grant_falls_back_by_itself(start: Start, ctl_of: Ctl) -> None:
    daemon = start(limit=LIMITS, store={"flush_interval_s": 3600})
    with daemon.client() as client:
        assert ctl_of(daemon, "set", ALICE, "--quota", "1000", "--for", "3s").status == 0
        assert [client.ask(ALICE) for _ in range(4)] == ["DUNNO"] * 4
        wait_until(lambda: client.ask(ALICE).startswith("450"), "the end of the grant")
    shown = view(ctl_of(daemon, "show", ALICE, "--json").json)
    assert (shown["quota"], shown["source"], shown["until"]) == (3, "limit daily", None)


def test_a_grant_ends_for_who_only_looks(start: Start, ctl_of: Ctl) -> None:
    daemon = start(limit=LIMITS)
    with daemon.client() as client:
        client.ask(ALICE)
    ctl_of(daemon, "set", ALICE, "--quota", "1000", "--for", "2s")

    def quota_of_top() -> object:
        (best,) = ctl_of(daemon, "top", "--once", "--limit", "daily", "--json").json["limits"][0]["accounts"]
        return best["quota"]

    assert quota_of_top() == 1000
    wait_until(lambda: quota_of_top() == 3, "the end of the grant")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--until", "2020-01-01"], "that is over; it is "),
        (["--until", "tomorrow"], 'write it as "2026-12-01 18:00"'),
        (["--until", "2200-01-01"], "--persist is for good"),
        (["--until", END, "--persist"], "not allowed with"),
        (["--for", "3d", "--persist"], "not allowed with"),
        (["--for", "3d", "--until", END], "not allowed with"),
        (["--for", "3"], "a number and a unit"),
        (["--for", "0d"], "a number and a unit"),
        (["--reason", "a\nb"], "one line of at most 200 characters"),
        (["--reason", "x" * 201], "one line of at most 200 characters"),
    ],
)
def test_an_end_or_a_reason_that_makes_no_sense_is_refused(
    untouched: Ratelimitd, ctl_of: Ctl, arguments: list[str], why: str
) -> None:
    ran = ctl_of(untouched, "set", ALICE, "--quota", "5", *arguments)
    assert (ran.status, ran.out) == (2, "")
    assert why in ran.err
    assert ctl_of(untouched, "show", ALICE).status == 1, "there is still no such account"


def test_times_are_of_the_limits_timezone_unless_they_say_another(start: Start, ctl_of: Ctl) -> None:
    daemon = start(limit=LIMITS, timezone="Europe/Zurich")
    day = datetime(NEXT_YEAR, 12, 1, tzinfo=UTC)
    wanted = {
        f"{NEXT_YEAR}-12-01": day - timedelta(hours=1),
        f"{NEXT_YEAR}-12-01T18:00:30": day + timedelta(hours=17, seconds=30),
        f"{NEXT_YEAR}-12-01T18:00Z": day + timedelta(hours=18),
        f"{NEXT_YEAR}-12-01 18:00-05:00": day + timedelta(hours=23),
    }
    for text, instant in wanted.items():
        ran = ctl_of(daemon, "set", ALICE, "--quota", "5", "--until", text, "--json")
        assert ran.json["until"] == int(instant.timestamp()), text


@pytest.mark.parametrize("given", [["--persist"], ["--until", END], []])
@pytest.mark.parametrize("running", [True, False])
def test_unset_takes_any_quota_back(daemon: Ratelimitd, ctl_of: Ctl, given: list[str], running: bool) -> None:
    if not running:
        daemon.stop()
    assert ctl_of(daemon, "set", ALICE, "--quota", "5", *given).status == 0
    ran = ctl_of(daemon, "unset", ALICE, "--json")
    assert (ran.status, [(v["limit"], v["was"], v["quota"], v["source"]) for v in ran.json["limits"]]) == (
        0, [("daily", 5, 3, "limit daily")],
    )  # fmt: skip
    assert view(ctl_of(daemon, "show", ALICE, "--json").json)["used"] == 1
    again = ctl_of(daemon, "unset", ALICE)
    assert (again.status, again.out) == (1, "")
    assert "no quota of its own is in force" in again.err


def test_a_persistent_quota_that_a_grant_replaces_is_said(daemon: Ratelimitd, ctl_of: Ctl) -> None:
    ctl_of(daemon, "set", ALICE, "--quota", "5", "--persist")
    assert "afterwards the configured one applies" in ctl_of(daemon, "set", ALICE, "--quota", "9", "--for", "3d").out


@pytest.mark.parametrize("running", [True, False])
def test_a_domain_s_quota(daemon: Ratelimitd, ctl_of: Ctl, running: bool) -> None:
    if not running:
        daemon.stop()
    assert ctl_of(daemon, "show", "@example.com").status == 1
    assert ctl_of(daemon, "set", "@Example.com", "--quota", "2", "--persist").status == 0
    shown = ctl_of(daemon, "show", "@example.com")
    assert shown.status == 0
    assert re.search(
        r"^daily +@example\.com +2 +- +- +- +database, persistent"
        r" \(each account of the domain that has none of its own\)$",
        shown.out,
        re.MULTILINE,
    )
    for login in (ALICE, "new@example.com"):
        found = view(ctl_of(daemon, "show", login, "--json").json)
        assert (found["quota"], found["source"]) == (2, "database, row @example.com")
    if not running:
        daemon.start()
    with daemon.client() as client:
        assert [client.ask(ALICE)[:3] for _ in range(2)] == ["DUN", "450"]
        assert [client.ask(BOB)[:3] for _ in range(3)] == ["DUN", "DUN", "450"]
        assert ctl_of(daemon, "unset", "@example.com").status == 0
        assert client.ask(BOB)[:3] == "450"  # 4 of 3: what was refused is counted
        ctl_of(daemon, "reset", BOB)
        assert [client.ask(BOB)[:3] for _ in range(4)] == ["DUN"] * 3 + ["450"]
    assert set(ctl_of(daemon, "status", "--json").json["accounts"].values()) <= {1, 2}


def test_a_panel_s_row_for_a_domain_holds_within_refresh_s(daemon: Ratelimitd, ctl_of: Ctl) -> None:
    with sql(daemon) as connection:
        connection.execute("INSERT INTO ratelimit (sender, quota, persist) VALUES ('@Example.com', 200, 1)")

    def quota() -> object:
        return view(ctl_of(daemon, "show", ALICE, "--json").json)["quota"]

    wait_until(lambda: quota() == 200, "the domain's quota")
    with sql(daemon) as connection:
        connection.execute("DELETE FROM ratelimit WHERE sender = '@example.com'")
    wait_until(lambda: quota() == 3, "the configured quota")


@pytest.mark.parametrize("running", [True, False])
def test_every_change_is_a_line_in_the_log_that_says_who_what_and_why(
    daemon: Ratelimitd, ctl_of: Ctl, running: bool
) -> None:
    if not running:
        daemon.stop()
    why = ["--reason", "ticket 4711, newsletter"]
    ctl_of(daemon, "set", ALICE, "--quota", "5", "--until", END, *why)
    ctl_of(daemon, "set", ALICE, "--quota", "unlimited", "--persist")
    ctl_of(daemon, "unset", ALICE, *why)
    ctl_of(daemon, "set", ALICE, "--quota", "7")
    ctl_of(daemon, "reset", ALICE, *why)
    ctl_of(daemon, "set", "@example.com", "--quota", "2", "--persist", *why)
    ctl_of(daemon, "unset", "@example.com")
    tomorrow = datetime.fromtimestamp((time.time() // 86400 + 1) * 86400, UTC)
    of_alice = f"{WHO}, key={ALICE}, limit=daily"
    of_domain = f"{WHO}, key=@example.com, limit=daily"
    assert [line for line in daemon.log() if line.startswith(("a quota ", "a count "))] == [
        f"a quota is set: {of_alice}, from=3, to=5, until={END} +0000, why=ticket 4711, newsletter",
        f"a quota is set: {of_alice}, from=5, to=unlimited, until=for good",
        f"a quota is unset: {of_alice}, from=unlimited, to=3, why=ticket 4711, newsletter",
        f"a quota is set: {of_alice}, from=3, to=7, until={tomorrow:%Y-%m-%d} 00:00 +0000",
        f"a count is reset: {of_alice}, from=1, to=0, why=ticket 4711, newsletter",
        f"a quota is set: {of_domain}, from=3, to=2, until=for good, why=ticket 4711, newsletter",
        f"a quota is unset: {of_domain}, from=2, to=3",
    ]


def test_who_asks_for_a_reload_is_said(daemon: Ratelimitd, ctl_of: Ctl) -> None:
    assert ctl_of(daemon, "reload").status == 0
    assert f"a reload is asked for: {WHO}" in daemon.log()


def test_a_reason_cannot_end_the_line(daemon: Ratelimitd) -> None:
    """As another program may send it over the socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(daemon.state / "control.sock"))
        client.sendall(b'{"verb":"reset","key":"alice@example.com","reason":"a\\nuid=7\\u202e"}\n')
        assert b"limits" in client.recv(65536)
    (line,) = [line for line in daemon.log() if line.startswith("a count is reset")]
    assert line.endswith("why=a\\nuid=7\\u202e")


def test_a_quota_until_a_time_that_no_calendar_has_is_seen_and_taken_back(daemon: Ratelimitd, ctl_of: Ctl) -> None:
    """As a panel writes it that counts in milliseconds: it ends with what the column can hold."""
    wait_until(lambda: ALICE in {row.key for row in daemon.rows()}, "a flush")
    with sql(daemon) as connection:
        connection.execute("UPDATE ratelimit SET quota = 500, until = 1795709030000 WHERE sender = ?", (ALICE,))
    wait_until(lambda: view(ctl_of(daemon, "show", ALICE, "--json").json)["quota"] == 500, "the quota")
    assert view(ctl_of(daemon, "show", ALICE, "--json").json)["until"] == 4_294_967_295
    assert "until 2106-02-07 06:28:15" in ctl_of(daemon, "show", ALICE).out
    assert ctl_of(daemon, "top", "--once").status == 0
    assert ctl_of(daemon, "reset", ALICE).status == 0
    assert ctl_of(daemon, "unset", ALICE).status == 0
    lines = [line for line in daemon.log() if line.startswith(("a quota ", "a count "))]
    assert [line.partition(":")[0] for line in lines] == ["a count is reset", "a quota is unset"]


PAGE = (Path(__file__).parents[2] / "contrib" / "doc" / "operations.md").read_text(encoding="utf-8")


def plain(text: str) -> str:
    """A text without what differs from machine to machine, and from year to year."""
    return re.sub(r"\d{4}-\d\d-\d\d", "DATE", re.sub(r"uid=\d+, user=[^ ,]+", "WHO", text))


def test_the_lines_of_the_log_are_as_documented(start: Start, ctl_of: Ctl) -> None:
    daemon = start(limit=[{"name": "daily", "quota": 1000}], timezone="UTC")
    with daemon.client() as client:
        client.ask(ALICE)
    why = ["--reason", "ticket 4711, newsletter"]
    ctl_of(daemon, "set", ALICE, "--quota", "5000", "--until", END, *why)
    ctl_of(daemon, "set", ALICE, "--quota", "unlimited", "--persist")
    ctl_of(daemon, "unset", ALICE)
    ctl_of(daemon, "reset", ALICE, *why)
    ctl_of(daemon, "set", "@example.com", "--quota", "200", "--persist")
    ctl_of(daemon, "reload")
    changes = ("a quota is ", "a count is ")
    printed = [plain(line) for line in daemon.log() if line.startswith(changes)]
    assert printed == [plain(line) for line in PAGE.splitlines() if line.startswith(changes)]
    assert "a reload is asked for: WHO" in plain(PAGE)


def test_sources_are_shown_as_documented(start: Start, ctl_of: Ctl) -> None:
    daemon = start(limit=[{"quota": 1000}], timezone="Europe/Zurich")
    ctl_of(daemon, "set", ALICE, "--quota", "5000", "--until", END)
    ctl_of(daemon, "set", "@example.com", "--quota", "200", "--persist")
    assert ctl_of(daemon, "show", BOB, "--json").json["limits"][0]["source"] in PAGE.splitlines()
    ctl_of(daemon, "unset", "@example.com")
    shown = ctl_of(daemon, "show", ALICE, "--json").json["limits"][0]["source"]
    assert plain(shown) in map(plain, PAGE.splitlines())
