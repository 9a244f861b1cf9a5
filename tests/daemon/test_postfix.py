"""A real Postfix with SASL logins, wired to a running ratelimitd as the README says."""

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.conftest import require
from tests.daemon.conftest import Start
from tests.daemon.process import Ratelimitd
from tests.instances.components import program
from tests.instances.mariadb import MariaDB
from tests.instances.ports import free_port
from tests.instances.postfix import Postfix
from tests.instances.smtp import Reply, Smtp

pytestmark = pytest.mark.real

ACTION = "450 4.7.1 {period} message quota exceeded, {used}/{quota} for {key}"
LISTS = (
    "smtpd_sender_restrictions",
    "smtpd_recipient_restrictions",
    "smtpd_data_restrictions",
    "smtpd_end_of_data_restrictions",
)
THREE = ("a@example.org", "b@example.org", "c@example.org")


def wire(address: str) -> str:
    return f"check_policy_service {{ {address}, timeout=10s, default_action=DUNNO }}"


def at(daemon: Ratelimitd) -> str:
    return wire(f"inet:127.0.0.1:{daemon.port}")


def send(postfix: Postfix, login: str, *recipients: str, password: str = "secret") -> list[Reply]:
    """Log in, if there is a login, and send one message: the replies to MAIL, each RCPT, and DATA."""
    with Smtp(postfix.port) as smtp:
        if login:
            assert smtp.login(login, password).code == 235
        replies = smtp.message("alice@example.com", *recipients)
        smtp.quit()
    return replies


def codes(replies: list[Reply]) -> list[int]:
    return [reply.code for reply in replies]


@pytest.fixture
def alice(postfix: Postfix) -> Postfix:
    """A Postfix that knows alice@example.com."""
    postfix.add_user("alice", "example.com", "secret")
    return postfix


def client_of(postfix: Postfix) -> str:
    """How Postfix itself names the client, `name[address]`."""
    line = next(line for line in postfix.log().splitlines() if ": client=" in line)
    return line.partition(": client=")[2].partition(",")[0]


def queue_ids(postfix: Postfix) -> list[str]:
    """The queue ids of the messages with a login, in their order."""
    lines = [line for line in postfix.log().splitlines() if "sasl_username=" in line and ": client=" in line]
    return [line.partition(": client=")[0].rpartition(": ")[2] for line in lines]


def test_the_third_recipient_beyond_the_quota_is_refused_with_our_text(start: Start, alice: Postfix) -> None:
    require("sqlite3")
    daemon = start(limit=[{"quota": 5, "action": ACTION}])
    alice.start({"smtpd_sender_restrictions": at(daemon)})
    assert codes(send(alice, "alice@example.com", *THREE)) == [250, 250, 250, 250, 250]
    second = send(alice, "alice@example.com", *THREE)
    assert codes(second) == [250, 250, 250, 450, 250]
    assert second[3].text.endswith(": daily message quota exceeded, 6/5 for alice@example.com")
    assert daemon.stop() == 0
    alice.stop()
    first_id, second_id = queue_ids(alice)
    counts = [("", 1, "INSERT"), (first_id, 2, "UPDATE"), (first_id, 3, "UPDATE")]
    counts += [("", 4, "UPDATE"), (second_id, 5, "UPDATE"), (second_id, 6, "OVER_QUOTA")]
    assert daemon.decisions() == [
        f"{queue_id}: client={client_of(alice)}, sasl_method=PLAIN, sasl_username=alice@example.com, "
        f"recipient_count=1, curr_count={used}/5, status={status}"
        for queue_id, used, status in counts
    ]
    select = "SELECT sender, quota, used FROM ratelimit"
    found = subprocess.run([program("sqlite3"), daemon.database, select], capture_output=True, text=True, check=True)
    assert found.stdout == "alice@example.com|5|6\n"


def test_in_four_lists_at_once_three_recipients_are_charged_as_three(start: Start, alice: Postfix) -> None:
    daemon = start(limit=[{"quota": 5, "action": ACTION}])
    alice.start(dict.fromkeys(LISTS, at(daemon)))
    assert codes(send(alice, "alice@example.com", *THREE)) == [250, 250, 250, 250, 250]
    assert daemon.dump()[1][3] == "3"
    assert codes(send(alice, "alice@example.com", *THREE)) == [250, 250, 250, 450, 250]
    assert daemon.stop() == 0
    assert daemon.used() == {"alice@example.com": 6}
    assert len(daemon.decisions()) == 6


def test_counted_at_data_alone_the_whole_message_is_refused(start: Start, alice: Postfix) -> None:
    daemon = start(limit=[{"quota": 5, "action": ACTION}])
    alice.start({"smtpd_data_restrictions": at(daemon)})
    assert codes(send(alice, "alice@example.com", *THREE)) == [250, 250, 250, 250, 250]
    assert codes(send(alice, "alice@example.com", *THREE)) == [250, 250, 250, 250, 450]
    assert daemon.stop() == 0
    assert [line.partition("recipient_count=")[2] for line in daemon.decisions()] == [
        "3, curr_count=3/5, status=INSERT",
        "3, curr_count=6/5, status=OVER_QUOTA",
    ]


def test_mail_without_a_login_is_never_counted(start: Start, alice: Postfix) -> None:
    daemon = start(limit=[{"quota": 1}])
    alice.start(dict.fromkeys(LISTS, at(daemon)), mynetworks="127.0.0.0/8")
    assert codes(send(alice, "", *THREE)) == [250, 250, 250, 250, 250]
    with Smtp(alice.port) as smtp:
        assert smtp.login("alice@example.com", "wrong").code == 535
        assert codes(smtp.message("alice@example.com", *THREE)) == [250, 250, 250, 250, 250]
    totals = daemon.dump()[-1][0]
    assert totals.startswith("Accounts: 0, Not stored: 0, ")
    assert "Requests: 16," in totals  # it was asked: three recipients in two lists, and twice at the end, each time
    assert daemon.stop() == 0
    assert daemon.rows() == []
    assert daemon.decisions() == []


def test_a_bare_login_and_a_qualified_one_share_a_quota(start: Start, postfix: Postfix) -> None:
    realm = "mail.example.com"  # Postfix's myhostname, the realm of bare logins
    postfix.add_user("alice", realm, "secret")
    daemon = start(keys={"default_domain": realm}, limit=[{"quota": 2}])
    postfix.start({"smtpd_sender_restrictions": at(daemon)})
    assert codes(send(postfix, "alice", "a@example.org")) == [250, 250, 250]
    assert codes(send(postfix, f"alice@{realm}", "a@example.org", "b@example.org")) == [250, 250, 450, 250]
    assert daemon.stop() == 0
    logins = [line.partition("sasl_username=")[2].partition(",")[0] for line in daemon.decisions()]
    assert logins == ["alice", f"alice@{realm}", f"alice@{realm}"]
    assert daemon.used() == {f"alice@{realm}": 3}


MYSQL_CONF = """\
pwcheck_method: auxprop
auxprop_plugin: sql
sql_engine: mysql
sql_hostnames: 127.0.0.1:{port}
sql_user: cyrus
sql_passwd: secret
sql_database: {database}
sql_select: SELECT password FROM users WHERE name = '%u' AND domain = '%r'
mech_list: PLAIN LOGIN
"""


def test_whatever_mysql_takes_for_alice_has_no_quota_of_its_own(
    start: Start, postfix: Postfix, mariadb: MariaDB, database: str
) -> None:
    require("cyrus-mysql")
    mariadb.sql("CREATE TABLE users (name VARCHAR(64), domain VARCHAR(255), password VARCHAR(255))", database)
    mariadb.sql("INSERT INTO users VALUES ('alice', 'example.com', 'secret')", database)
    mariadb.sql(f"GRANT SELECT ON {database}.* TO cyrus@'127.0.0.1' IDENTIFIED BY 'secret'", database)
    postfix.sasl_conf = MYSQL_CONF.format(port=mariadb.port, database=database)
    keys = {"default_domain": "example.com", "domains": ["example.com"], "ascii": True}
    daemon = start(keys=keys, limit=[{"quota": 2}])
    postfix.start({"smtpd_sender_restrictions": at(daemon)})
    ways = ["alice@example.com", "ALICE@Example.COM", "alice  @example.com", " alice@example.com ", "alice@éxample.com"]
    passed = [codes(send(postfix, login, "b@example.org"))[1] for login in ways]
    assert passed == [250, 250, 450, 450, 450]
    others = ["alicé@example.com", "ÀLICE@example.com", "àlïce@éxample.com"]
    assert [codes(send(postfix, login, "b@example.org"))[1] for login in others] == [250, 250, 450]
    assert daemon.stop() == 0
    assert daemon.used() == {"alice@example.com": 5, "?@example.com": 3}


def test_a_unix_socket_of_postfixs_group_is_used(start: Start, alice: Postfix, folder: Path) -> None:
    path = folder / "policy"
    daemon = start(server={"listen": [f"unix:{path}"], "unix_group": "postfix"}, limit=[{"quota": 1}])
    alice.start({"smtpd_recipient_restrictions": wire(f"unix:{path}")})
    assert codes(send(alice, "alice@example.com", "a@example.org", "b@example.org")) == [250, 250, 450, 250]
    assert daemon.stop() == 0
    assert daemon.used() == {"alice@example.com": 2}


class LosesFirstReply:
    """A proxy before the daemon: the first reply is lost with its connection."""

    def __init__(self, port: int) -> None:
        self.lost = threading.Event()
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", free_port()))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, client: socket.socket) -> None:
        with closing(client), closing(socket.create_connection(self._target, 60)) as service:
            while data := client.recv(65536):
                while not data.endswith(b"\n\n"):
                    data += client.recv(65536)
                service.sendall(data)
                reply = service.recv(65536)
                if not self.lost.is_set():
                    self.lost.set()
                    return
                client.sendall(reply)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(60)


@pytest.fixture
def proxied(start: Start) -> Iterator[tuple[Ratelimitd, LosesFirstReply]]:
    daemon = start(limit=[{"quota": 5}])
    proxy = LosesFirstReply(daemon.port)
    yield daemon, proxy
    proxy.close()


def test_a_request_that_postfix_resends_is_charged_once(
    proxied: tuple[Ratelimitd, LosesFirstReply], alice: Postfix
) -> None:
    daemon, proxy = proxied
    alice.start({"smtpd_sender_restrictions": wire(f"inet:127.0.0.1:{proxy.port}")})
    assert codes(send(alice, "alice@example.com", *THREE)) == [250, 250, 250, 250, 250]
    alice.stop()
    assert proxy.lost.is_set()
    assert "Requests: 4," in daemon.dump()[-1][0]
    assert daemon.stop() == 0
    assert daemon.used() == {"alice@example.com": 3}
    assert len(daemon.decisions()) == 3


def test_while_the_daemon_is_away_mail_passes(start: Start, alice: Postfix) -> None:
    daemon = start(limit=[{"quota": 1}])
    assert daemon.stop() == 0
    alice.start({"smtpd_sender_restrictions": at(daemon)})
    assert codes(send(alice, "alice@example.com", "a@example.org")) == [250, 250, 250]
    daemon.start()
    assert codes(send(alice, "alice@example.com", "a@example.org", "b@example.org")) == [250, 250, 450, 250]
    assert daemon.stop() == 0
