"""contrib/doc/recipients.md with a daemon and a real Postfix: what it says is printed as it says."""

import re
from pathlib import Path

import pytest

from tests.daemon.client import DUNNO
from tests.daemon.conftest import Start
from tests.daemon.process import Ratelimitd
from tests.daemon.test_postfix import at, codes, send
from tests.instances.postfix import Postfix
from tests.instances.smtp import Reply

PAGE = (Path(__file__).parents[2] / "contrib" / "doc" / "recipients.md").read_text(encoding="utf-8")
PRINTED = re.findall(r"^```\n(.*)\n```$", PAGE, flags=re.MULTILINE)
ALICE = "alice@example.com"
TEN = [f"r{i}@example.org" for i in range(1, 11)]
MESSAGE = {"name": "message", "period": "message", "quota": 5}
FREE = {"quota": 2, "free_recipients": ["@example.org", "list@example.net"]}


@pytest.fixture
def alice(postfix: Postfix) -> Postfix:
    """A Postfix that knows alice@example.com."""
    postfix.add_user("alice", "example.com", "secret")
    return postfix


def documented(line: str) -> bool:
    """Whether the page has a line, with another mail and client."""
    return re.sub(r"^\w*: client=[^,]*", "07F452AC009F: client=host.example.com[192.0.2.7]", line) in PRINTED


def said(reply: Reply) -> bool:
    return f"{reply.code} {reply.text}" in PRINTED


def test_the_page_has_two_replies_and_three_lines() -> None:
    assert len(PRINTED) == 5


@pytest.mark.real
def test_at_rcpt_postfix_refuses_the_recipients_beyond_the_quota_of_a_message(start: Start, alice: Postfix) -> None:
    daemon = start(limit=[MESSAGE])
    alice.start({"smtpd_sender_restrictions": at(daemon), "smtpd_end_of_data_restrictions": at(daemon)})
    for _ in range(2):
        replies = send(alice, ALICE, *TEN)
        assert codes(replies) == [250, *[250] * 5, *[452] * 5, 250]
        assert said(replies[6])
    assert daemon.stop() == 0
    statuses = [line.rpartition("=")[2] for line in daemon.decisions()]
    assert statuses == [*["UPDATE"] * 5, *["OVER_QUOTA"] * 5] * 2
    assert documented(daemon.decisions()[5])
    assert daemon.rows() == []


@pytest.mark.real
def test_at_the_end_of_data_postfix_refuses_the_whole_message(start: Start, alice: Postfix) -> None:
    daemon = start(limit=[MESSAGE])
    alice.start({"smtpd_end_of_data_restrictions": at(daemon)})
    replies = send(alice, ALICE, *TEN)
    assert codes(replies) == [250, *[250] * 10, 452]
    assert said(replies[-1])
    assert codes(send(alice, ALICE, *TEN[:5])) == [250] * 7
    assert daemon.stop() == 0
    assert documented(daemon.decisions()[0])
    assert daemon.rows() == []


@pytest.mark.real
def test_postfix_s_free_recipients_are_counted_neither_at_rcpt_nor_at_data(start: Start, alice: Postfix) -> None:
    daemon = start(limit=[FREE])
    lists = ("smtpd_sender_restrictions", "smtpd_data_restrictions", "smtpd_end_of_data_restrictions")
    alice.start(dict.fromkeys(lists, at(daemon)))
    mixed = ("a@example.org", "x@other.example", "List@example.net", "y@other.example", "b@example.org")
    assert codes(send(alice, ALICE, *mixed)) == [250] * 7
    assert codes(send(alice, ALICE, "c@example.org", "z@other.example", "d@EXAMPLE.org")) == [250, 250, 450, 250, 250]
    assert daemon.stop() == 0
    statuses = [line.rpartition("=")[2] for line in daemon.decisions()]
    assert statuses == ["FREE", "INSERT", "FREE", "UPDATE", "FREE", "FREE", "OVER_QUOTA", "FREE"]
    assert documented(daemon.decisions()[4])
    assert daemon.used() == {ALICE: 3}


def at_rcpt(daemon: Ratelimitd, *recipients: str, instance: str = "1.a") -> list[str]:
    """The actions that it answers, DUNNO or the first word."""
    with daemon.client() as client:
        return [client.ask(recipient=recipient, instance=instance).split()[0] for recipient in recipients]


def test_a_kill_in_the_middle_of_a_message_forgets_nothing_of_it(start: Start) -> None:
    message = MESSAGE | {"quota": 2, "free_recipients": ["@free.example"]}
    daemon = start(limit=[message, FREE | {"quota": 9}])
    assert at_rcpt(daemon, "a@free.example", "b@example.org", "list@example.net") == [DUNNO] * 3
    daemon.kill()
    daemon.start()
    assert at_rcpt(daemon, "c@example.org", "d@free.example", "b@example.org") == ["452", DUNNO, DUNNO]
    with daemon.client() as client:
        assert client.ask(instance="1.a", protocol_state="DATA", recipient="", recipient_count=4) == DUNNO
    assert daemon.stop() == 0
    assert daemon.used() == {ALICE: 2}
    assert {row.limit for row in daemon.rows()} == {"default"}


def test_everybody_shares_the_key_all(start: Start) -> None:
    daemon = start(limit=[{"name": "server", "key": "all", "quota": 3}])
    with daemon.client() as client:
        logins = ("alice", "bob@example.com", "", "carol")
        assert [client.ask(login) for login in logins] == [DUNNO] * 4
        assert client.ask("dave").startswith("450 4.7.1 daily message quota exceeded, 4/3, ")
    assert daemon.stop() == 0
    assert daemon.used("server") == {"all": 4}
