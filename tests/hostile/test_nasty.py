"""60 nasty strings as HELO, sender, recipient and login through a real Postfix: counted exactly, a log line each."""

import sqlite3
from collections import Counter
from contextlib import closing

import pytest

from ratelimitd.keys import normalise
from ratelimitd.logins import AS_SENT
from ratelimitd.text import read
from tests.daemon.conftest import Start
from tests.daemon.process import Ratelimitd
from tests.hostile.nasty import NASTY
from tests.instances.postfix import Postfix
from tests.instances.smtp import Smtp

pytestmark = pytest.mark.real

HONEST = "honest@example.com"
MAX_XCLIENT = 255
"""Bytes of an attribute of XCLIENT, and all of them ASCII; who is longer or stranger has to log in."""


def wired(start: Start, postfix: Postfix) -> Ratelimitd:
    daemon = start(limit=[{"quota": 1000}])
    service = f"inet:127.0.0.1:{daemon.port}, timeout=60s, default_action=DUNNO"
    settings = {
        "smtpd_sender_restrictions": f"check_policy_service {{ {service} }}",
        "strict_rfc821_envelopes": "no",
        "smtpd_helo_required": "no",
        "resolve_numeric_domain": "yes",
    }
    postfix.start(settings, mynetworks="127.0.0.0/8", xclient=True)
    return daemon


def quoted(text: str) -> str:
    """A local part that may hold anything: RFC 5321, quoted-string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"@example.net'


def of_postfix(login: str) -> str:
    """The login as Postfix has it after XCLIENT: unprintable ASCII becomes "?"."""
    return "".join("?" if ord(character) < 32 or ord(character) == 127 else character for character in login)


def intact(daemon: Ratelimitd) -> None:
    """The database is whole, and memory, store and log agree on every key."""
    with closing(sqlite3.connect(daemon.database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    lines = daemon.decisions()
    assert sum(daemon.used().values()) == len(lines)
    for line in lines:
        assert line.isprintable()
        assert line.count(", sasl_username=") == line.count(", curr_count=") == line.count(", status=") == 1


def test_logins_are_counted_under_their_own_key_and_logged_in_one_line(start: Start, postfix: Postfix) -> None:
    daemon = wired(start, postfix)
    expected: Counter[str] = Counter()
    for login in NASTY:
        with Smtp(postfix.port) as smtp:
            if login.isascii() and len(login) < MAX_XCLIENT:
                assert smtp.xclient(login=login).code == 220
            else:
                name, _, realm = login.partition("@")
                postfix.add_user(name, realm or "mail.example.com", "secret")
                assert smtp.login(login, "secret").code == 235
            assert smtp.mail(HONEST).code == 250
            smtp.rcpt("friend@example.org")
            smtp.quit()
        expected[normalise(AS_SENT.login(read(of_postfix(login).encode())))] += 1
    in_memory = {line[0]: int(line[3]) for line in daemon.dump()[1:-1]}
    assert len(daemon.decisions()) == len(NASTY)
    assert daemon.stop() == 0
    assert daemon.used() == expected
    assert sorted(in_memory.values()) == sorted(expected.values())
    intact(daemon)


def test_helo_sender_and_recipient_change_nothing(start: Start, postfix: Postfix) -> None:
    daemon = wired(start, postfix)
    asked = 0
    for text in NASTY:
        for place in ("helo", "sender", "recipient"):
            with Smtp(postfix.port) as smtp:
                smtp.xclient(login=HONEST)
                if place == "helo":
                    smtp.command(f"EHLO {text}")
                sender = smtp.mail(quoted(text) if place == "sender" else HONEST)
                recipient = smtp.rcpt(quoted(text) if place == "recipient" else "friend@example.org")
                asked += sender.code == 250 and recipient.code == 250
                smtp.quit()
    assert asked > 2 * len(NASTY)
    assert daemon.stop() == 0
    assert daemon.used() == {HONEST: len(daemon.decisions())}
    assert daemon.used()[HONEST] >= asked
    assert all(f"sasl_username={HONEST}, recipient_count=1, " in line for line in daemon.decisions())
    intact(daemon)
