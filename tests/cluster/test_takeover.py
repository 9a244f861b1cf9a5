"""The Perl daemon is stopped, its table migrated, ours started: mail goes on being counted where it was."""

import itertools
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ratelimitd.ctl import main as ctl
from tests.cluster.conftest import MakeNode
from tests.cluster.nodes import Node, ask
from tests.instances.mariadb import MariaDB
from tests.instances.mysql9 import MySQL9
from tests.instances.postfix import Postfix
from tests.instances.smtp import Smtp
from tests.stores.perl_table import SEED, no_perl_daemon

pytestmark = pytest.mark.real
_numbers = itertools.count(1)


@pytest.fixture
def fresh(mysql9: MySQL9) -> Iterator[str]:
    """A fresh database in the shared MySQL 9."""
    name = f"takeover{next(_numbers)}"
    mysql9.sql(f"CREATE DATABASE {name}")
    yield name
    mysql9.sql(f"DROP DATABASE {name}")


def test_ten_thousand_accounts_in_mid_period_go_on(
    mariadb: MariaDB, database: str, make_node: MakeNode, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    no_perl_daemon(monkeypatch, tmp_path)
    midnight = int(time.time()) // 86400 * 86400 + 86400
    values = ", ".join(f"('user{n}@example.com', {n % 2}, {50 + n % 7}, {n % 50}, {midnight})" for n in range(10_000))
    mariadb.sql(f"{SEED} INSERT INTO ratelimit (sender, persist, quota, used, expiry) VALUES {values}", database)
    store = f'unix_socket = "{mariadb.socket}"\nuser = "root"\ndatabase = "{database}"\ntimeout_s = 10\n'
    node = make_node(store, quota=1000, more='timezone = "UTC"')
    refused = start_expecting_exit(node)
    assert refused.count("\n") == 1
    assert "the table ratelimit is not migrated: run `ratelimitctl migrate`" in refused
    assert ctl.main(["-c", str(node.file), "migrate"]) == 0

    node.start()
    numbers = [0, 1, 49, 99, 777, 9999]
    answers = {}
    with socket.create_connection(("127.0.0.1", node.port), 60) as link:
        for n in numbers:
            answers[n] = [ask(link, f"User{n}@Example.com")[:3] for _ in range(60)].count("DUN")
        assert ask(link, "newcomer@example.com") == "DUNNO"
    node.stop()
    assert answers == {n: 50 + n % 7 - n % 50 for n in numbers}
    senders = ", ".join(f"'user{n}@example.com'" for n in numbers)
    rows = mariadb.sql(f"SELECT sender, quota, used, persist FROM ratelimit WHERE sender IN ({senders})", database)
    assert sorted(rows) == sorted(
        (f"user{n}@example.com", str(50 + n % 7), str(n % 50 + 60), str(n % 2)) for n in numbers
    )
    assert mariadb.sql("SELECT COUNT(*) FROM view_ratelimit WHERE expirytime > NOW()", database) == [("10001",)]
    assert len(mariadb.sql("SELECT sender, quota, used FROM ratelimit", database)) == 10_001


def test_the_way_back_waits_for_what_a_killed_daemon_has_left_in_its_journal(
    mariadb: MariaDB, database: str, make_node: MakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    store = f'unix_socket = "{mariadb.socket}"\nuser = "root"\ndatabase = "{database}"\ntimeout_s = 10\n'
    node = make_node(f"{store}flush_interval_s = 3600\n", quota=1000)
    node.start()
    with socket.create_connection(("127.0.0.1", node.port), 60) as link:
        for _ in range(7):
            ask(link, "alice@example.com")
    node.kill()
    journal = node.folder / "state" / "journal"
    assert ctl.main(["-c", str(node.file), "migrate", "--back"]) == 1
    said = capsys.readouterr().err
    assert f"7 charges in {journal} (1.segment) are not in the database: start ratelimitd and stop it again" in said
    node.start()
    node.stop()
    assert ctl.main(["-c", str(node.file), "migrate", "--back"]) == 0
    assert capsys.readouterr().out.endswith("now start the Perl daemon, with Postfix asking it where it counts "
                                            "(at DATA, or at RCPT in its fork)\n")  # fmt: skip
    select = "SELECT used FROM ratelimit WHERE sender = 'alice@example.com' AND quota > 0"
    assert mariadb.sql(select, database) == [("7",)]
    assert "is not migrated: run `ratelimitctl migrate`" in start_expecting_exit(node)


def start_expecting_exit(node: Node) -> str:
    """What it says when it does not start."""
    with pytest.raises(RuntimeError, match="ended with 2"):
        node.start()
    return (node.folder / "output").read_text()


@pytest.mark.parametrize("way", ["unix socket", "tls", "plain tcp with the server's key"])
def test_postfix_is_answered_from_a_mysql_9_with_caching_sha2_password(
    mysql9: MySQL9, fresh: str, postfix: Postfix, make_node: MakeNode, way: str
) -> None:
    user = f"policyd_{fresh}"
    mysql9.add_user(user, "it's secret", grant=f"SELECT, INSERT, UPDATE, CREATE, CREATE VIEW, DROP ON {fresh}.*")
    how = {
        "unix socket": f'unix_socket = "{mysql9.socket}"',
        "tls": f'tls_ca = "{mysql9.ca}"\ntls_verify_name = false',
        "plain tcp with the server's key": f'server_public_key = "{mysql9.public_key}"',
    }[way]
    store = f'{how}\nport = {mysql9.port}\nuser = "{user}"\npassword_file = "secret"\ndatabase = "{fresh}"\n'
    node = make_node(store + "timeout_s = 10", quota=5)
    (node.folder / "secret").write_text("it's secret\n")
    node.start()
    postfix.add_user("alice", "example.com", "secret")
    service = f"check_policy_service {{ inet:127.0.0.1:{node.port}, timeout=10s, default_action=DUNNO }}"
    postfix.start({"smtpd_sender_restrictions": service})
    recipients = [[f"r{n}@example.net" for n in range(3)], [f"s{n}@example.net" for n in range(3)]]
    codes = []
    with Smtp(postfix.port) as smtp:
        assert smtp.login("alice@example.com", "secret").code == 235
        for message in recipients:
            smtp.mail("alice@example.com")
            codes += [smtp.rcpt(recipient).code for recipient in message]
            smtp.data("Subject: test\r\n\r\ntest\r\n")
    postfix.stop()
    node.stop()
    assert codes == [250, 250, 250, 250, 250, 450]
    assert mysql9.sql("SELECT sender, quota, used FROM ratelimit", fresh) == [("alice@example.com", "5", "6")]
    assert [node.said(f"status={status}") for status in ("INSERT", "UPDATE", "OVER_QUOTA")] == [1, 4, 1]


def test_a_password_in_the_clear_is_refused_at_the_start(mysql9: MySQL9, fresh: str, make_node: MakeNode) -> None:
    mysql9.add_user(f"policyd_{fresh}", "secret", grant=f"ALL ON {fresh}.*")
    node = make_node(
        f'port = {mysql9.port}\nuser = "policyd_{fresh}"\npassword = "secret"\ndatabase = "{fresh}"\ntimeout_s = 10\n'
    )
    said = start_expecting_exit(node)
    assert said.count("\n") == 1
    assert "would travel in the clear: set store.tls_ca, store.unix_socket or store.server_public_key" in said


def test_logins_that_are_one_account_are_one_bucket_everywhere(
    mariadb: MariaDB, database: str, make_node: MakeNode, folder: Path
) -> None:
    store = f'unix_socket = "{mariadb.socket}"\nuser = "root"\ndatabase = "{database}"\ntimeout_s = 10\n'
    node = make_node(store, more='[keys]\ndefault_domain = "default"\n')
    logins = ["alice", "Alice", "alicé", "alice ", "alice@default"]
    for _ in range(2):  # from memory, and after a restart from the database
        node.start()
        with socket.create_connection(("127.0.0.1", node.port), 60) as link:
            for login in logins:
                ask(link, login)
        node.stop()
    assert sorted(mariadb.sql("SELECT sender, used FROM ratelimit", database)) == [
        ("alice@default", "8"),
        ("alicé@default", "2"),
    ]
