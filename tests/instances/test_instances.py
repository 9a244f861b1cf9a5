"""Do the components start, do what the tests need of them, and go?"""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE

import pytest

from tests.instances import guard, ports
from tests.instances.dovecot import Dovecot
from tests.instances.mariadb import MariaDB
from tests.instances.mysql9 import MySQL9
from tests.instances.policy import PolicyServer, Request
from tests.instances.ports import free_port
from tests.instances.postfix import Postfix
from tests.instances.postgresql import PostgreSQL
from tests.instances.processes import Process
from tests.instances.smtp import Smtp, xtext
from tests.instances.sqlclient import SQLError, parse_rows
from tests.instances.waiting import wait_until

ROOT = Path(__file__).parents[2]


def test_ports_are_never_given_twice() -> None:
    assert len({free_port() for _ in range(100)}) == 100


def test_a_port_is_given_to_no_other_test_run_until_that_one_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from tests.instances.ports import free_port; print(free_port(), flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdin=PIPE, stdout=PIPE) as other:
        assert other.stdout is not None
        port = int(other.stdout.readline())
        monkeypatch.setattr(ports, "_FIRST", port)
        monkeypatch.setattr(ports, "_LAST", port)
        with pytest.raises(RuntimeError, match="no free port"):
            free_port()
        other.kill()
    assert free_port() == port


def test_xtext() -> None:
    assert xtext("a+b=c é") == "a+2Bb+3Dc+20+C3+A9"


def test_rows_of_the_sql_client() -> None:
    assert parse_rows("a\\tb\tNULL\n\nc\\\\n\td\n") == [("a\tb", "NULL"), ("",), ("c\\n", "d")]


def test_stopping_a_server_takes_its_children_and_one_that_ignores_sigterm(folder: Path) -> None:
    script = "trap '' TERM; sleep 1000 & sleep 1000 & echo up; wait; wait"
    server = Process(["/bin/sh", "-c", script], folder / "log")
    wait_until(lambda: "up" in server.tail(), "the shell")
    assert len(guard.session_pids(server.pid)) == 3
    server.stop(timeout=0.1)
    assert guard.session_pids(server.pid) == []


def test_a_killed_test_run_leaves_no_server_behind(folder: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from tests.instances.processes import Process\n"
        f"server = Process(['/bin/sleep', '1000'], Path({str(folder / 'log')!r}))\n"
        "print(server.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == -9, run.stderr
    wait_until(lambda: not guard.session_pids(int(run.stdout)), "the server's end", timeout=10)


def test_a_wait_has_an_end() -> None:
    with pytest.raises(TimeoutError, match=r"nothing: not within 0\.05 s"):
        wait_until(lambda: False, "nothing", timeout=0.05)


@pytest.mark.real
def test_postfix_asks_and_tells_the_client(postfix: Postfix) -> None:
    def answer(request: Request) -> str:
        over = request["recipient"] == "second@example.net"
        return "450 4.7.1 Quota of 1 recipient exceeded" if over else "DUNNO"

    postfix.add_user("alice", "example.com", "secret")
    with PolicyServer(answer) as policy:
        postfix.start({"smtpd_sender_restrictions": policy.restriction})
        with Smtp(postfix.port) as smtp:
            assert smtp.login("alice@example.com", "wrong").code == 535
            assert smtp.login("alice@example.com", "secret").code == 235
            assert smtp.mail("alice@example.com").code == 250
            assert smtp.rcpt("first@example.net").code == 250
            refused = smtp.rcpt("second@example.net")
            assert refused.code == 450
            assert refused.text.endswith(": Quota of 1 recipient exceeded")
            assert smtp.data("Subject: test\r\n\r\n.dot\r\n").code == 250
            assert smtp.quit().code == 221
        asked = [(r["protocol_state"], r["sasl_username"], r["recipient"]) for r in policy.requests]
        postfix.stop()
    assert asked == [
        ("RCPT", "alice@example.com", "first@example.net"),
        ("RCPT", "alice@example.com", "second@example.net"),
    ]
    assert "sasl_username=alice@example.com" in postfix.log()


@pytest.mark.real
def test_postfix_takes_a_login_by_xclient_and_starts_again(postfix: Postfix) -> None:
    with PolicyServer() as policy:
        restrictions = {"smtpd_end_of_data_restrictions": policy.restriction}
        for login in ("bob", "ü+x"):
            postfix.start(restrictions, xclient=True)
            with Smtp(postfix.port) as smtp:
                assert smtp.xclient(login=login, addr="192.0.2.1").code == 220
                replies = smtp.message("bob@example.com", "a@example.net", "b@example.net")
                assert [reply.code for reply in replies] == [250, 250, 250, 250]
            postfix.stop()
        asked = [(r["sasl_username"], r["client_address"], r["recipient_count"]) for r in policy.requests]
    assert asked == [("bob", "192.0.2.1", "2"), ("ü+x", "192.0.2.1", "2")]


@pytest.mark.real
def test_postfix_relays_for_nobody_else(postfix: Postfix) -> None:
    postfix.start()
    with Smtp(postfix.port) as smtp:
        assert [reply.code for reply in smtp.message("a@example.com", "b@example.net")] == [250, 554]
    postfix.stop()
    postfix.start(mynetworks="127.0.0.0/8")
    with Smtp(postfix.port) as smtp:
        assert [reply.code for reply in smtp.message("a@example.com", "b@example.net")] == [250, 250, 250]


@pytest.mark.real
def test_dovecot_checks_passwords_for_postfix_and_starts_again(dovecot: Dovecot, postfix: Postfix) -> None:
    dovecot.add_user("alice", "secret")
    postfix.start(dovecot.main_cf)
    for _ in range(2):
        dovecot.start()
        with Smtp(postfix.port) as smtp:
            assert smtp.login_in_steps("alice", "wrong").code == 535
            assert smtp.login_in_steps("alice", "secret").code == 235
            assert [reply.code for reply in smtp.message("a@example.com", "b@example.net")] == [250, 250, 250]
        dovecot.stop()
    postfix.stop()
    assert "sasl_method=LOGIN, sasl_username=alice" in postfix.log()


@pytest.mark.real
def test_shared_mariadb(mariadb: MariaDB, database: str) -> None:
    mariadb.sql("CREATE TABLE t (a VARCHAR(9)); INSERT INTO t VALUES ('x\\ty'), (NULL)", database)
    assert mariadb.sql("SELECT a FROM t ORDER BY a IS NULL", database) == [("x\ty",), ("NULL",)]
    with pytest.raises(SQLError, match="1146"):
        mariadb.sql("SELECT 1 FROM missing", database)


@pytest.mark.real
def test_mariadb_accounts_and_lives(make_mariadb: Callable[..., MariaDB]) -> None:
    server = make_mariadb("--max-connections=20", tls=True)
    server.add_user("native", "it's\\")
    server.add_user("modern", "secret", "ed25519", require="SSL")
    plugins = server.sql("SELECT user, plugin FROM mysql.user WHERE host = '%' ORDER BY user")
    assert plugins == [("modern", "ed25519"), ("native", "mysql_native_password")]
    assert server.sql("SELECT @@have_ssl, @@max_connections, @@port") == [("YES", "20", str(server.port))]
    server.restart()
    server.kill()
    assert not server.running()
    server.start()
    server.freeze()
    with pytest.raises(subprocess.TimeoutExpired):
        server.sql("SELECT 1", timeout=0.3)
    server.thaw()
    assert server.sql("SELECT COUNT(*) FROM mysql.user WHERE host = '%'") == [("2",)]
    server.freeze()
    begun = time.monotonic()
    server.stop()
    assert time.monotonic() - begun < 20


@pytest.mark.real
def test_mysql9_accounts_and_files(mysql9: MySQL9) -> None:
    mysql9.add_user("app", "it's\\")
    found = mysql9.sql("SELECT plugin FROM mysql.user WHERE user = 'app'; SELECT VERSION() LIKE '9.%'")
    assert found == [("caching_sha2_password",), ("1",)]
    assert mysql9.socket.is_socket()
    assert mysql9.ca.exists()
    assert mysql9.public_key.exists()


@pytest.mark.real
def test_postgresql_accounts_and_lives(make_postgresql: Callable[..., PostgreSQL]) -> None:
    server = make_postgresql("max_connections=20", tls=True)
    server.add_user("app", "it's\\", database="mail")
    server.sql("CREATE TABLE t (a TEXT); INSERT INTO t VALUES ('x\ty\n\\n'), (NULL)", "mail")
    assert server.sql("SELECT a FROM t ORDER BY a", "mail") == [("x\ty\n\\n",), ("NULL",)]
    assert server.sql("SELECT left(rolpassword, 13) FROM pg_authid WHERE rolname = 'app'") == [("SCRAM-SHA-256",)]
    assert server.sql("SHOW ssl; SHOW max_connections") == [("on",), ("20",)]
    with pytest.raises(SQLError, match="does not exist"):
        server.sql("SELECT 1 FROM missing", "mail")
    server.restart()
    server.kill()
    assert not server.running()
    server.start()
    server.freeze()
    with pytest.raises(subprocess.TimeoutExpired):
        server.sql("SELECT 1", timeout=0.3)
    server.thaw()
    assert server.sql("SELECT COUNT(*) FROM t", "mail") == [("2",)]
    server.freeze()
    begun = time.monotonic()
    server.stop()
    assert time.monotonic() - begun < 20


@pytest.mark.real
def test_postgresql_standby_is_read_only_until_it_is_promoted(make_postgresql: Callable[..., PostgreSQL]) -> None:
    primary = make_postgresql()
    standby = make_postgresql(of=primary)
    assert standby.sql("SHOW transaction_read_only") == [("on",)]
    primary.kill()
    standby.promote()
    wait_until(lambda: standby.sql("SHOW transaction_read_only") == [("off",)], "the promotion")
