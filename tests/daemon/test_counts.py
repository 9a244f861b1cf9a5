"""What was answered is what is stored; requests arrive cut, joined and strange."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.bench import load
from tests.daemon.client import PolicyClient, request
from tests.daemon.conftest import Start
from tests.daemon.process import Ratelimitd
from tests.instances.waiting import wait_until


@pytest.mark.real
def test_after_20000_requests_every_account_is_stored_as_it_was_answered(
    start: Start, load_program: Path, folder: Path
) -> None:
    daemon = start(limit=[{"quota": 50}])
    out = folder / "accounts"
    options = ["-n", "20000", "-k", "200", "-c", "20", "-o", str(out)]
    figures = load.run(load_program, daemon.listen[0], *options, timeout=300)
    assert figures.answered == 20_000
    assert daemon.stop() == 0
    asked = load.accounts(out)
    assert len(asked) == 200
    assert daemon.used() == {name: account.answered for name, account in asked.items()}
    assert {account.dunno for account in asked.values()} == {50}
    assert len(daemon.decisions()) == 20_000


@pytest.mark.real
def test_messages_counted_at_data_are_stored_as_they_were_answered(
    start: Start, load_program: Path, folder: Path
) -> None:
    daemon = start(limit=[{"name": "a", "quota": 0}, {"name": "d", "key": "domain", "period": "monthly", "quota": 0}])
    out = folder / "accounts"
    options = ["-n", "2000", "-k", "150", "-c", "5", "-z", "1", "-d", "DATA", "-r", "3", "-o", str(out)]
    load.run(load_program, daemon.listen[0], *options, timeout=300)
    assert daemon.stop() == 0
    asked = load.accounts(out)
    assert daemon.used("a") == {name: 3 * account.answered for name, account in asked.items()}
    by_domain: dict[str, int] = {}
    for name, account in asked.items():
        domain = name.partition("@")[2]
        by_domain[domain] = by_domain.get(domain, 0) + 3 * account.answered
    assert daemon.used("d") == by_domain


def test_a_request_may_be_cut_at_every_byte(start: Start) -> None:
    daemon = start(server={"request_timeout_s": 60})
    data = request("cut@example.com")
    with daemon.client() as client:
        for position in range(1, len(data)):
            again = _again(data, position)
            client.send(again[:position])
            client.send(again[position:])
            assert client.reply() == "DUNNO"
    assert daemon.stop() == 0
    assert daemon.used() == {"cut@example.com": len(data) - 1}


def _again(data: bytes, number: int) -> bytes:
    """The same request of another transaction, of the same length."""
    before, name, rest = data.partition(b"instance=")
    old, _, after = rest.partition(b"\n")
    return before + name + b"%0*d" % (len(old), number) + b"\n" + after


def test_many_requests_in_one_write_are_answered_in_their_order(start: Start) -> None:
    daemon = start(limit=[{"quota": 3, "action": "450 4.7.1 {used}"}])
    with daemon.client() as client:
        client.send(b"".join(request("many@example.com") for _ in range(100)))
        replies = [client.reply() for _ in range(100)]
    assert replies == ["DUNNO"] * 3 + [f"450 4.7.1 {used}" for used in range(4, 101)]
    assert daemon.stop() == 0
    assert daemon.used() == {"many@example.com": 100}


NASTY = [
    "x\u2028sasl_username=victim@example.com",
    "x\u0085sasl_username=victim@example.com",
    "x\x0bsasl_username=victim@example.com",
    "sasl_username=victim@example.com",
    "printshm",
    "\x1b[2J\u202e",
    "%s%n",
    "",
]


def test_nothing_that_a_client_says_changes_whose_quota_is_charged(start: Start) -> None:
    daemon = start()
    with daemon.client() as client:
        for text in NASTY:
            assert client.ask("me@example.com", helo_name=text, sender=text, recipient=text) == "DUNNO"
    assert daemon.stop() == 0
    assert daemon.used() == {"me@example.com": len(NASTY)}


def test_strange_logins_are_counted_under_their_own_key(start: Start) -> None:
    daemon = start()
    long = "l" * 9000 + "@example.com"
    logins = ["a=b@example.com", "%s@example.com", "é@example.com", "Upper@Example.COM", " blanks@example.com ", long]
    with daemon.client() as client:
        for login in logins:
            assert client.ask(login) == "DUNNO"
        client.send(request("x").replace(b"sasl_username=x", b"sasl_username=bad\xff@example.com"))
        assert client.reply() == "DUNNO"
    assert daemon.stop() == 0
    used = daemon.used()
    assert set(used.values()) == {1}
    shortened = {key for key in used if len(key) > 200}
    assert len(shortened) == 1
    assert all(len(key.encode()) == 255 and key.startswith("lll") for key in shortened)
    assert used.keys() - shortened == {
        "a=b@example.com",
        "%s@example.com",
        "é@example.com",
        "upper@example.com",
        "blanks@example.com",
        "bad\\xff@example.com",
    }


def test_bytes_that_are_not_utf8_and_the_text_that_stands_for_them_are_counted_apart(start: Start) -> None:
    """As recipients of one transaction, and as accounts: in memory, journal, log and database."""
    daemon = start(limit=[{"quota": 100}])
    texts = [b"\xff", rb"\xff", rb"\\xff", b"\\\xff"]
    with daemon.client() as client:
        for recipient in texts:
            client.send(request(recipient="TO@example.org", instance="1.apart").replace(b"TO", recipient))
            assert client.reply() == "DUNNO"
        for login in texts:
            client.send(request("LOGIN@example.com").replace(b"LOGIN", login))
            assert client.reply() == "DUNNO"
    wait_until(lambda: len(daemon.decisions()) == 2 * len(texts), "the log lines, which are written after the replies")
    daemon.kill()
    daemon.start()
    assert daemon.stop() == 0
    keys = [rf"{name}@example.com" for name in (r"\xff", r"\\xff", r"\\\\xff", r"\\\xff")]
    assert daemon.used() == {"alice@example.com": 4, **dict.fromkeys(keys, 1)}
    logged = [line.split("sasl_username=")[1].split(",")[0] for line in daemon.decisions()]
    assert logged == ["alice@example.com"] * 4 + keys


def test_what_is_not_counted_is_answered_dunno_and_leaves_nothing(start: Start) -> None:
    daemon = start(limit=[{"quota": 1}])
    with daemon.client() as client:
        assert client.ask("") == "DUNNO"
        for state in ("CONNECT", "EHLO", "MAIL", "VRFY", "ETRN", "XXX", ""):
            assert client.ask("a@example.com", protocol_state=state) == "DUNNO"
        assert client.ask("a@example.com", request="junk_policy") == "DUNNO"
        client.send(b"\n")
        assert client.reply() == "DUNNO"
        client.send(b"no attribute at all\n\n")
        assert client.reply() == "DUNNO"
    assert daemon.stop() == 0
    assert daemon.rows() == []
    assert daemon.decisions() == []


def test_counts_go_on_where_the_last_run_ended(start: Start) -> None:
    daemon = start(limit=[{"quota": 3, "action": "450 4.7.1 {used}/{quota}"}])
    with daemon.client() as client:
        assert [client.ask(), client.ask()] == ["DUNNO", "DUNNO"]
    assert daemon.stop() == 0
    daemon.start()
    with daemon.client() as client:
        assert [client.ask(), client.ask()] == ["DUNNO", "450 4.7.1 4/3"]
    assert daemon.stop() == 0
    assert daemon.used() == {"alice@example.com": 4}


def test_a_kill_loses_no_count_and_forgets_no_transaction(start: Start) -> None:
    daemon = start()
    with daemon.client() as client:
        for recipient in ("a@example.org", "b@example.org"):
            assert client.ask(instance="killed.1", recipient=recipient) == "DUNNO"
    daemon.kill()
    daemon.start()
    daemon.wait_for_log("replayed from the journal: records=2")
    with daemon.client() as client:
        assert client.ask(instance="killed.1", recipient="b@example.org") == "DUNNO"
        assert client.ask(instance="killed.1", protocol_state="DATA", recipient_count=2) == "DUNNO"
        assert client.ask(instance="killed.1", protocol_state="END-OF-MESSAGE", recipient_count=3) == "DUNNO"
    assert daemon.stop() == 0
    assert daemon.used() == {"alice@example.com": 3}


def test_several_limits_are_all_charged_and_the_log_names_the_one_that_decided(start: Start) -> None:
    daemon = start(
        limit=[
            {"name": "hour", "period": "hourly", "quota": 2, "action": "450 4.7.1 {period} {key} {used}/{quota}"},
            {"name": "pool", "key": "domain", "quota": 3, "action": "550 5.7.1 {period} {key} {used}/{quota}"},
        ]
    )
    with daemon.client() as client:
        replies = [client.ask(login) for login in ["a@x.example"] * 3 + ["b@x.example"] * 2]
    assert replies == ["DUNNO", "DUNNO", "450 4.7.1 hourly a@x.example 3/2", "DUNNO", "550 5.7.1 daily x.example 4/3"]
    assert daemon.stop() == 0
    assert daemon.used("hour") == {"a@x.example": 3, "b@x.example": 1}
    assert daemon.used("pool") == {"x.example": 4}
    assert [line.rpartition("curr_count=")[2] for line in daemon.decisions()] == [
        "1/2, status=INSERT, limit=hour",
        "2/2, status=UPDATE, limit=hour",
        "3/2, status=OVER_QUOTA, limit=hour",
        "1/2, status=INSERT, limit=hour",
        "4/3, status=OVER_QUOTA, limit=pool",
    ]


def test_a_bare_login_and_a_qualified_one_are_one_account(start: Start) -> None:
    daemon = start(keys={"default_domain": "example.com"}, limit=[{"name": "d", "key": "domain"}, {"name": "e"}])
    with daemon.client() as client:
        for login in ("alice", "alice@example.com", "ALICE"):
            assert client.ask(login) == "DUNNO"
    assert daemon.stop() == 0
    assert daemon.used("e") == {"alice@example.com": 3}
    assert daemon.used("d") == {"example.com": 3}


def test_a_quota_changed_in_the_database_is_obeyed_without_a_reload(start: Start) -> None:
    daemon = start(store={"flush_interval_s": 0.1, "refresh_s": 0.2}, limit=[{"quota": 2}])
    with daemon.client() as client:
        assert [client.ask(), client.ask()] == ["DUNNO", "DUNNO"]
        _wait_stored(daemon, "alice@example.com", 2)
        assert client.ask().startswith("450 ")
        _sql(daemon, "UPDATE ratelimit SET quota = 100, persist = 1")
        _wait_in_dump(daemon, "100")
        assert client.ask() == "DUNNO"
    assert daemon.stop() == 0
    (row,) = daemon.rows()
    assert (row.used, row.quota, row.persist) == (4, 100, 1)


def test_a_panel_gives_an_account_its_quota_before_it_has_sent_and_may_delete_its_row(start: Start) -> None:
    """As sql/README.md says."""
    daemon = start(store={"flush_interval_s": 0.1}, limit=[{"quota": 100}])
    _sql(daemon, "INSERT INTO ratelimit (sender, limit_name, quota) VALUES ('alice@example.com', 'default', 2)")
    with daemon.client() as client:
        assert [client.ask()[:4] for _ in range(3)] == ["DUNN", "DUNN", "450 "]
        _wait_stored(daemon, "alice@example.com", 3)
        _sql(daemon, "DELETE FROM ratelimit")
        client.ask()
        wait_until(lambda: "alice@example.com" in daemon.used(), "the row")
    assert daemon.stop() == 0


def _wait_stored(daemon: Ratelimitd, key: str, used: int) -> None:
    wait_until(lambda: daemon.used().get(key) == used, "the flush")


def _wait_in_dump(daemon: Ratelimitd, quota: str) -> None:
    wait_until(lambda: daemon.dump()[1][2] == quota, "the new quota", poll=0.1)


def _sql(daemon: Ratelimitd, statement: str) -> None:
    with closing(sqlite3.connect(daemon.database, timeout=30)) as connection, connection:
        connection.execute(statement)


def test_two_clients_at_once_have_their_own_replies(start: Start) -> None:
    daemon = start(limit=[{"quotas": {"none@example.com": 1}, "action": "450 4.7.1 {key}"}])
    with daemon.client() as one, PolicyClient(daemon.port) as other:
        one.send(request("none@example.com"))
        other.send(request("some@example.com"))
        assert (one.reply(), other.reply()) == ("DUNNO", "DUNNO")
        other.send(request("some@example.com"))
        one.send(request("none@example.com"))
        assert (one.reply(), other.reply()) == ("450 4.7.1 none@example.com", "DUNNO")
    assert daemon.stop() == 0
