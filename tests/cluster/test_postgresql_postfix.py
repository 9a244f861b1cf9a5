"""A real Postfix, whose accounts are counted in a PostgreSQL: over its socket, TCP and TLS."""

from collections.abc import Callable

import pytest

from ratelimitd.ctl import main as ctl
from ratelimitd.daemon import main as daemon
from tests.cluster.conftest import MakeNode
from tests.instances.postfix import Postfix
from tests.instances.postgresql import PostgreSQL
from tests.instances.smtp import Smtp

pytestmark = pytest.mark.real
PASSWORD = "it's secret"


@pytest.mark.parametrize("way", ["unix socket", "tcp", "tls"])
def test_postfix_is_answered_from_a_postgresql(
    make_postgresql: Callable[..., PostgreSQL], postfix: Postfix, make_node: MakeNode, way: str
) -> None:
    server = make_postgresql(tls=way == "tls")
    server.add_user("policyd", PASSWORD, database="mail")
    how = {
        "unix socket": f'unix_socket = "{server.socket}"',
        "tcp": 'host = ["127.0.0.1:1", "127.0.0.1"]',
        "tls": f'tls_ca = "{server.folder}/ca.pem"',
    }[way]
    store = f'backend = "postgresql"\n{how}\nport = {server.port}\npassword_file = "secret"\ndatabase = "mail"\n'
    node = make_node(store + "timeout_s = 10", quota=5)
    (node.folder / "secret").write_text(PASSWORD + "\n")
    assert daemon.main(["-c", str(node.file), "--check"]) == 0
    node.start()
    postfix.add_user("alice", "example.com", "secret")
    service = f"check_policy_service {{ inet:127.0.0.1:{node.port}, timeout=10s, default_action=DUNNO }}"
    postfix.start({"smtpd_sender_restrictions": service})
    codes = []
    with Smtp(postfix.port) as smtp:
        assert smtp.login("alice@example.com", "secret").code == 235
        for message in ([f"{letter}{n}@example.net" for n in range(3)] for letter in "rs"):
            smtp.mail("alice@example.com")
            codes += [smtp.rcpt(recipient).code for recipient in message]
            smtp.data("Subject: test\r\n\r\ntest\r\n")
    postfix.stop()
    node.stop()
    assert codes == [250, 250, 250, 250, 250, 450]
    assert server.sql("SELECT sender, quota, used FROM ratelimit", "mail") == [("alice@example.com", "5", "6")]
    assert [node.said(f"status={status}") for status in ("INSERT", "UPDATE", "OVER_QUOTA")] == [1, 4, 1]


def test_ratelimitctl_looks_and_changes_while_no_daemon_runs(
    make_postgresql: Callable[..., PostgreSQL], make_node: MakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    server = make_postgresql()
    server.add_user("policyd", PASSWORD, database="mail")
    store = (
        f'backend = "postgresql"\nport = {server.port}\npassword = "{PASSWORD}"\ndatabase = "mail"\ntimeout_s = 10\n'
    )
    node = make_node(store, quota=5)
    node.start()
    node.stop()
    assert ctl.main(["-c", str(node.file), "set", "alice@example.com", "--quota", "50", "--persist"]) == 0
    assert server.sql("SELECT sender, quota, persist FROM ratelimit", "mail") == [("alice@example.com", "50", "1")]
    capsys.readouterr()
    assert ctl.main(["-c", str(node.file), "show", "alice@example.com"]) == 0
    assert "50" in capsys.readouterr().out
    assert ctl.main(["-c", str(node.file), "check"]) == 0
    assert ctl.main(["-c", str(node.file), "migrate"]) == 2
    assert 'store.backend: found "postgresql"; allowed: "mysql"' in capsys.readouterr().err
