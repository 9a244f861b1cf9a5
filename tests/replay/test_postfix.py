"""The log of a real Postfix: nothing of it is lost, and the daemon, asked about the same mails, refuses the same."""

import os
import time
from pathlib import Path

import pytest

from tests.control.conftest import Ctl, Ran
from tests.daemon.conftest import Start
from tests.instances.postfix import Postfix
from tests.instances.smtp import Smtp
from tests.instances.waiting import wait_until

pytestmark = pytest.mark.real

MAILS = (("alice", 3), ("bob", 1), ("alice", 4), ("bob", 2), ("alice", 2), ("", 1))
LIMIT = {"quota": 5, "period": "monthly", "key": "email"}
REFUSED = {"alice@example.com": 4}


def send(postfix: Postfix) -> None:
    """MAILS, each in a session of its own; "" is nobody's login."""
    for login in ("alice", "bob"):
        postfix.add_user(login, "example.com", "secret")
    for login, recipients in MAILS:
        with Smtp(postfix.port) as smtp:
            if login:
                assert smtp.login(f"{login}@example.com", "secret").code == 235
            smtp.message(f"{login}@example.com", *[f"r{i}@example.org" for i in range(recipients)])
            smtp.quit()


def settled(postfix: Postfix, mails: int) -> Path:
    """Its log, once so many mails have left it."""
    wait_until(lambda: postfix.log().count(": removed") == mails, "the end of all mails", 30)
    os.utime(postfix.log_file, (time.time(), time.time()))
    return postfix.log_file


def numbers(ran: Ran) -> tuple[int, int, int, dict[str, int]]:
    """Unreadable lines, messages, recipients, who was refused how much."""
    answer = ran.json
    refused = {each["key"]: each["refused"] for each in answer["limits"][0]["refused"]}
    return answer["unreadable"], answer["messages"], answer["recipients"], refused


@pytest.mark.parametrize("long_queue_ids", ["no", "yes"])
def test_a_log_of_a_postfix_without_the_daemon_tells_whom_it_would_refuse(
    start: Start, ctl_of: Ctl, postfix: Postfix, long_queue_ids: str
) -> None:
    daemon = start(limit=[LIMIT])
    postfix.start({"enable_long_queue_ids": long_queue_ids})
    send(postfix)
    log = settled(postfix, 5)
    assert numbers(ctl_of(daemon, "--json", "replay", str(log))) == (0, 5, 12, REFUSED)


def test_the_daemon_that_is_asked_refuses_the_same_and_its_log_says_so(
    start: Start, ctl_of: Ctl, postfix: Postfix
) -> None:
    daemon = start(limit=[LIMIT])
    service = f"check_policy_service {{ inet:127.0.0.1:{daemon.port}, timeout=10s, default_action=DUNNO }}"
    postfix.start({"smtpd_sender_restrictions": service})
    send(postfix)
    log = settled(postfix, 4)  # all recipients of alice's last one were refused
    assert daemon.stop() == 0
    assert daemon.log_file.read_text().count("OVER_QUOTA") == REFUSED["alice@example.com"]
    unreadable, _, recipients, refused = numbers(ctl_of(daemon, "--json", "replay", str(daemon.log_file)))
    assert (unreadable, recipients, refused) == (0, 12, REFUSED)
    both = [str(log), str(daemon.log_file)]  # what Postfix says of the same mails does not count twice
    unreadable, _, recipients, refused = numbers(ctl_of(daemon, "--json", "replay", *both))
    assert (unreadable, recipients, refused) == (0, 12, REFUSED)
