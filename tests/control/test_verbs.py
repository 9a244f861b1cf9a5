"""Each verb of ratelimitctl on a daemon under load, as text and as JSON."""

import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import datetime

import pytest

from ratelimitd import __version__
from tests.control.conftest import Ctl, Start
from tests.control.load import Load
from tests.daemon.process import Ratelimitd
from tests.instances.waiting import wait_until

LIMITS = [{"name": "daily", "quota": 1000}, {"name": "pool", "key": "domain", "quota": 100_000, "period": "monthly"}]
ALICE = "alice@example.com"

UnderLoad = Callable[[Ratelimitd], Load]


@pytest.fixture
def daemon(start: Start, under_load: UnderLoad) -> Ratelimitd:
    """A daemon with two limits, under load; alice has sent 3."""
    started = start(limit=LIMITS, store={"flush_interval_s": 0.2})
    under_load(started)
    with started.client() as client:
        for _ in range(3):
            assert client.ask(ALICE) == "DUNNO"
    return started


@pytest.fixture
def quiet(start: Start) -> Ratelimitd:
    """The same daemon without the load."""
    started = start(limit=LIMITS, store={"flush_interval_s": 0.2})
    with started.client() as client:
        for _ in range(3):
            assert client.ask(ALICE) == "DUNNO"
    return started


def stored(daemon: Ratelimitd, key: str = ALICE) -> tuple[int, int, int]:
    """An account's used, quota and persist in the database."""
    (row,) = [row for row in daemon.rows() if row.key == key]
    return row.used, row.quota, row.persist


def test_status_tells_how_the_daemon_is(daemon: Ratelimitd, ctl_of: Ctl) -> None:
    wait_until(lambda: ctl_of(daemon, "status", "--json").json["store"]["flushes"] > 0, "a flush")
    ran = ctl_of(daemon, "status", "--json")
    found = ran.json
    assert ran.status == 0
    assert (found["running"], found["version"], found["pid"]) == (True, __version__, daemon.process.pid)
    assert found["listen"] == daemon.listen
    assert found["store"]["up"]
    assert found["store"]["failures"] == 0
    assert found["accounts"] == {"daily": 11, "pool": 1}
    assert found["decisions"]["UPDATE"] > 40
    assert found["requests"] >= sum(found["decisions"].values())
    assert found["per_second"] > 0
    assert found["connections"] >= 2
    assert (found["timeouts"], found["errors"], found["log_lines_dropped"]) == (0, 0, 0)
    text = ctl_of(daemon, "status").out
    assert f"{__version__}, pid {daemon.process.pid}" in text
    assert "sqlite:" in text
    assert "daily 11, pool 1" in text


def test_show_gives_quota_use_and_reset_time_under_every_limit(daemon: Ratelimitd, ctl_of: Ctl) -> None:
    ran = ctl_of(daemon, "--json", "show", " Alice@EXAMPLE.com")
    assert ran.status == 0
    daily, pool = ran.json["limits"]
    assert (daily["key"], daily["quota"], daily["used"], daily["left"]) == (ALICE, 1000, 3, 997)
    assert daily["source"] == "limit daily"
    assert (pool["key"], pool["quota"]) == ("example.com", 100_000)
    assert pool["used"] >= 53
    assert pool["reset"] >= daily["reset"]
    shown = ctl_of(daemon, "show", ALICE)
    assert shown.table() == [{"LIMIT": "daily", "KEY": ALICE}, {"LIMIT": "pool", "KEY": "example.com"}]
    assert daily["reset_at"] in shown.out


def test_show_of_a_domain_gives_its_pool_alone(daemon: Ratelimitd, ctl_of: Ctl) -> None:
    assert [view["limit"] for view in ctl_of(daemon, "show", "example.com", "--json").json["limits"]] == ["pool"]


def test_show_of_somebody_unknown_gives_what_would_apply_and_status_1(daemon: Ratelimitd, ctl_of: Ctl) -> None:
    ran = ctl_of(daemon, "show", "bob@elsewhere.example", "--json")
    assert ran.status == 1
    assert [(view["used"], view["quota"], view["seen"]) for view in ran.json["limits"]] == [
        (0, 1000, False),
        (0, 100_000, False),
    ]
    assert "nothing sent yet" in ctl_of(daemon, "show", "bob@elsewhere.example").out


def test_show_finds_an_account_that_only_the_database_knows(start: Start, ctl_of: Ctl) -> None:
    daemon = start()
    with daemon.client() as client:
        client.ask(ALICE)
    daemon.stop()
    daemon.start()
    view = ctl_of(daemon, "show", ALICE, "--json").json["limits"][0]
    assert (view["used"], view["seen"]) == (1, True)
    assert ctl_of(daemon, "status", "--json").json["accounts"] == {"default": 0}


def test_set_holds_at_once_and_in_the_database(daemon: Ratelimitd, ctl_of: Ctl) -> None:
    ran = ctl_of(daemon, "set", ALICE, "--quota", "3", "--json")
    assert (ran.status, ran.json["quota"], ran.json["used"], ran.json["left"]) == (0, 3, 3, 0)
    assert ran.json["source"].startswith("database, until ")
    with daemon.client() as client:
        assert client.ask(ALICE).startswith("450 4.7.1 daily message quota exceeded, 4/3")
        assert stored(daemon)[1:] == (3, 0)
        text = ctl_of(daemon, "set", ALICE, "--quota", "unlimited", "--persist").out
        assert "unlimited" in text
        assert "database, persistent" in text
        assert client.ask(ALICE) == "DUNNO"
    assert stored(daemon)[1:] == (0, 1)
    daemon.wait_for_log(f"key={ALICE}, limit=daily, from=3, to=unlimited, until=for good")


def test_a_grant_survives_a_restart_and_flushes(daemon: Ratelimitd, ctl_of: Ctl, under_load: UnderLoad) -> None:
    ctl_of(daemon, "set", "load0@example.com", "--quota", "7777", "--limit", "daily")
    flushes = ctl_of(daemon, "status", "--json").json["store"]["flushes"]
    wait_until(lambda: ctl_of(daemon, "status", "--json").json["store"]["flushes"] > flushes + 1, "flushes")
    assert ctl_of(daemon, "show", "load0@example.com", "--json").json["limits"][0]["quota"] == 7777
    assert stored(daemon, "load0@example.com")[1:] == (7777, 0)


def test_set_gives_a_quota_to_one_who_has_not_sent_yet(daemon: Ratelimitd, ctl_of: Ctl) -> None:
    assert ctl_of(daemon, "set", "new@example.com", "--quota", "1").status == 0
    with daemon.client() as client:
        assert [client.ask("New@example.com")[:5] for _ in range(2)] == ["DUNNO", "450 4"]


def test_giving_up_a_persistent_quota_is_said(daemon: Ratelimitd, ctl_of: Ctl) -> None:
    ctl_of(daemon, "set", ALICE, "--quota", "5", "--persist")
    ran = ctl_of(daemon, "set", ALICE, "--quota", "6")
    assert ran.status == 0
    assert "was persistent" in ran.out


def test_set_never_takes_the_pool_for_the_account_nor_guesses(daemon: Ratelimitd, ctl_of: Ctl) -> None:
    ran = ctl_of(daemon, "set", ALICE, "--quota", "5", "--limit", "pool")
    assert (ran.status, ran.out) == (2, "")
    assert "counted as example.com" in ran.err
    assert ctl_of(daemon, "set", "example.com", "--quota", "5", "--limit", "pool").status == 0
    unknown = ctl_of(daemon, "set", ALICE, "--quota", "5", "--limit", "nightly")
    assert (unknown.status, unknown.err) == (2, "ratelimitctl: there is no limit nightly; there are: daily, pool\n")


def test_reset_sets_the_use_to_0_and_keeps_what_comes_later(quiet: Ratelimitd, ctl_of: Ctl) -> None:
    ran = ctl_of(quiet, "reset", ALICE, "--json")
    assert ran.status == 0
    assert [(view["limit"], view["used"]) for view in ran.json["limits"]] == [("daily", 0)]
    assert stored(quiet)[0] == 0
    with quiet.client() as client:
        client.ask(ALICE)
    assert ctl_of(quiet, "show", ALICE, "--json").json["limits"][0]["used"] == 1
    quiet.stop()
    assert stored(quiet)[0] == 1


def test_resets_under_load_lose_and_double_nothing(start: Start, under_load: UnderLoad, ctl_of: Ctl) -> None:
    daemon = start(store={"flush_interval_s": 0.05})
    load = under_load(daemon)
    key = "load3@example.com"
    for _ in range(10):
        load.go_on(20)
        before = load.answered[key]
        left = ctl_of(daemon, "reset", key, "--json").json["limits"][0]["used"]
        reset_after = load.answered[key]
    load.stop()
    daemon.stop()
    answered = load.answered[key]
    assert answered - reset_after <= stored(daemon, key)[0] <= answered - before + 2
    assert left <= reset_after - before + 2
    others = [f"load{i}@example.com" for i in (0, 1, 2, 4, 5, 6, 7, 8, 9)]
    assert {other: daemon.used()[other] for other in others} == {other: load.answered[other] for other in others}


def test_check_names_what_counts_nobody(start: Start, ctl_of: Ctl) -> None:
    daemon = start(limit=[{"name": "daily", "quota": 10, "quotas": {"*@example.com": 5}}])
    with closing(sqlite3.connect(daemon.database, isolation_level=None)) as connection:
        connection.execute("INSERT INTO ratelimit (sender, limit_name, quota) VALUES ('alice', 'gone', 5)")
    ran = ctl_of(daemon, "check")
    assert ran.status == 0
    assert "1 row of a limit that does not exist: gone, for example alice" in ran.out
    assert 'quotas."*@example.com": there are no patterns' in ran.out


def test_reset_of_somebody_unknown_is_status_1(daemon: Ratelimitd, ctl_of: Ctl) -> None:
    ran = ctl_of(daemon, "reset", "bob@elsewhere.example")
    assert (ran.status, ran.out) == (1, "")
    assert "no limit has counted it" in ran.err


def test_dump_says_where_it_is(daemon: Ratelimitd, ctl_of: Ctl) -> None:
    ran = ctl_of(daemon, "dump")
    assert (ran.status, ran.out) == (0, f"{daemon.state / 'cache.dump'}\n")
    assert ALICE in (daemon.state / "cache.dump").read_text()
    assert ctl_of(daemon, "dump", "--json").json == {"file": str(daemon.state / "cache.dump")}


def test_the_dump_on_standard_output_is_the_file_s_with_those_first_that_used_most(start: Start, ctl_of: Ctl) -> None:
    daemon = start(limit=LIMITS, store={"flush_interval_s": 3600})  # nothing is stored between two dumps
    with daemon.client() as client:
        for _ in range(3):
            assert client.ask(ALICE) == "DUNNO"
        for login, recipients in (("bob@example.com", 30), ("carol@example.com", 20), ("dave@example.com", 1)):
            client.ask(login, protocol_state="DATA", recipient_count=recipients)
        ctl_of(daemon, "dump")
        printed = ctl_of(daemon, "dump", "-")
        few = ctl_of(daemon, "dump", "-", "--count", "2")
        answer = ctl_of(daemon, "dump", "-", "--json").json
    header, *accounts, totals = (daemon.state / "cache.dump").read_text().splitlines()
    assert (printed.status, printed.out.splitlines()[0], printed.out.splitlines()[-1]) == (0, header, totals)
    assert sorted(printed.out.splitlines()[1:-1]) == sorted(accounts)
    used = [int(line.split("\t:\t")[3]) for line in printed.out.splitlines()[1:-1]]
    assert used == sorted(used, reverse=True)
    assert few.out.splitlines() == [
        header,
        *printed.out.splitlines()[1:3],
        f"and {len(accounts) - 2} accounts more",
        totals,
    ]
    assert (answer["more"], answer["totals"]["Accounts"]) == (0, len(accounts))
    assert list(answer["accounts"][0]) == ["key", "limit", "quota", "used", "reset_at", "not_stored"]


def test_check_says_what_is_in_order(daemon: Ratelimitd, ctl_of: Ctl) -> None:
    ran = ctl_of(daemon, "check")
    assert ran.status == 0
    assert f"key email, of ratelimitd {__version__}" in ran.out
    assert ctl_of(daemon, "check", "--json").json["error"] is None


def test_check_of_a_broken_configuration_is_status_2_and_one_line(daemon: Ratelimitd, ctl_of: Ctl) -> None:
    daemon.file.write_text(daemon.file.read_text().replace("daily", "daaily", 1) + "\nquota = -1\n")
    ran = ctl_of(daemon, "check")
    assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert ctl_of(daemon, "check", "--json").json["exit"] == 2


@pytest.mark.parametrize("key", ["", "   ", "a\nsasl_username=b", "\x1b[31m", "a\0b"])
def test_what_is_no_key_is_refused(untouched: Ratelimitd, ctl_of: Ctl, key: str) -> None:
    for verb in ("show", "reset"):
        ran = ctl_of(untouched, verb, key)
        assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)
        assert "\x1b" not in ran.err


@pytest.mark.parametrize("quota", ["-1", "many", "4294967296", "1.5", "٣"])
def test_what_is_no_quota_is_refused(untouched: Ratelimitd, ctl_of: Ctl, quota: str) -> None:
    assert ctl_of(untouched, "set", ALICE, f"--quota={quota}").status == 2


def test_without_default_domain_bare_logins_are_accounts_of_their_own(start: Start, ctl_of: Ctl) -> None:
    daemon = start(keys={"default_domain": "example.com"})
    with daemon.client() as client:
        client.ask("alice")
    view = ctl_of(daemon, "show", "alice", "--json").json["limits"][0]
    assert (view["key"], view["used"]) == (ALICE, 1)
    assert ctl_of(daemon, "set", "alice", "--quota", "1", "--json").json["key"] == ALICE


def test_quotas_of_the_configuration_are_named_as_the_source(start: Start, ctl_of: Ctl) -> None:
    daemon = start(limit=[{"quota": 10, "quotas": {ALICE: 20, "@example.com": "unlimited"}}])
    sources = {
        login: ctl_of(daemon, "show", login, "--json").json["limits"][0]
        for login in (ALICE, "bob@example.com", "bob@example.org")
    }
    assert [(view["quota"], view["source"]) for view in sources.values()] == [
        (20, 'limit default, quotas."alice@example.com"'),
        (None, 'limit default, quotas."@example.com"'),
        (10, "limit default"),
    ]


def test_the_policy_port_answers_no_administrative_word(daemon: Ratelimitd) -> None:
    with daemon.client() as client:
        for line in (b"verb=reset\nkey=alice@example.com\n\n", b'{"verb":"status"}\n\n', b"printshm\n\n"):
            client.send(line)
            assert client.reply() == "DUNNO"
    for line in (b'{"verb":"status"}\n\n', b"printshm\n\n"):
        with daemon.client() as client:
            client.send(line)
            assert client.at_end()


def test_the_control_socket_is_the_owners_alone_and_gone_at_the_end(quiet: Ratelimitd) -> None:
    path = quiet.state / "control.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    quiet.stop()
    assert not path.exists()


def test_a_control_socket_left_by_a_killed_daemon_is_replaced(start: Start, ctl_of: Ctl) -> None:
    daemon = start()
    daemon.kill()
    assert (daemon.state / "control.sock").exists()
    daemon.start()
    wait_until(lambda: ctl_of(daemon, "status").status == 0, "an answer")


def test_what_is_no_command_is_answered_with_an_error_and_harms_nobody(daemon: Ratelimitd, ctl_of: Ctl) -> None:
    words = [b"\n", b"printshm\n", b"{}\n", b'{"verb":"quit"}\n', b'{"verb":"show"}\n', b'{"verb":"top","count":1e9}\n']
    words += [b'{"verb":"show","key":"' + b"a" * 70_000 + b'"}\n', b"[" * 10_000 + b"\n", b"\xff\xfe\n"]
    for word in words:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(60)
            client.connect(str(daemon.state / "control.sock"))
            client.sendall(word)
            assert b'"error"' in client.recv(4096)
    for word in (b"", b'{"verb"'):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(daemon.state / "control.sock"))
            client.sendall(word)
    assert ctl_of(daemon, "status").status == 0


def test_status_says_since_when_with_the_zone_s_offset(daemon: Ratelimitd, ctl_of: Ctl) -> None:
    (line,) = (line for line in ctl_of(daemon, "status").out.splitlines() if line.startswith("running"))
    began = datetime.strptime(line.partition("since ")[2], "%Y-%m-%d %H:%M:%S %z").timestamp()
    assert began == ctl_of(daemon, "status", "--json").json["started"]
