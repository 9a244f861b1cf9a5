"""What contrib/doc/windows.md says, with a real Postfix and the real clock: three periods of a limit pass."""

import random
import re
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import datetime
from typing import NamedTuple

import pytest

from ratelimitd.settings import StoreSettings
from tests.daemon.conftest import Start
from tests.daemon.process import Ratelimitd
from tests.daemon.test_postfix import at
from tests.instances.mariadb import MariaDB
from tests.instances.postfix import Postfix
from tests.instances.smtp import Reply, Smtp
from tests.instances.waiting import wait_until

pytestmark = pytest.mark.real

LENGTH_S, PART_S, QUOTA = 6, 1, 5
LASTS_S = 3 * (LENGTH_S + PART_S) + 1
REFRESH_S = 1.0
PAUSES_S = {"alice@example.com": (0.05, 0.3), "bob@example.com": (0.2, 1.2)}
"""Between an account's mails: one is refused again and again, the other's five are spread over the period."""


class Mail(NamedTuple):
    """A mail of one recipient: the times around the reply to RCPT, and the reply."""

    before: float
    after: float
    reply: Reply

    @property
    def admitted(self) -> bool:
        return self.reply.code == 250

    @property
    def reset(self) -> float:
        """When one recipient is admitted again, as the reply says."""
        found = re.search(r"resets at (\S+ \d+:\d+)(:\d+)? (\S+)", self.reply.text)
        assert found is not None, self.reply
        minute, seconds, zone = found.groups(":00")  # a whole minute has none
        return datetime.strptime(f"{minute}{seconds} {zone}", "%Y-%m-%d %H:%M:%S %z").timestamp()


def mail(session: Smtp) -> Mail:
    """Send one; a refused one is given up."""
    assert session.mail("sender@example.com").code == 250
    before = time.time()
    reply = session.rcpt("r@example.org")
    after = time.time()
    assert session.command("RSET").code == 250
    return Mail(before, after, reply)


def logged_in(postfix: Postfix, login: str) -> Smtp:
    session = Smtp(postfix.port)
    assert session.login(login, "secret").code == 235
    return session


def send_for_a_while(postfix: Postfix) -> dict[str, list[Mail]]:
    """One mail after the other, each account's at its own pace."""
    chance = random.Random(15)
    sent: dict[str, list[Mail]] = {login: [] for login in PAUSES_S}
    end = time.time() + LASTS_S
    due = dict.fromkeys(PAUSES_S, 0.0)
    with logged_in(postfix, "alice@example.com") as alice, logged_in(postfix, "bob@example.com") as bob:
        sessions = {"alice@example.com": alice, "bob@example.com": bob}
        while min(due.values()) < end:
            login = min(due, key=lambda one: due[one])
            time.sleep(max(0.0, due[login] - time.time()))
            sent[login].append(mail(sessions[login]))
            due[login] = time.time() + chance.uniform(*PAUSES_S[login])
    return sent


def check(mails: Sequence[Mail]) -> None:
    """Never too many, and never refused for what has left."""
    admitted = [one for one in mails if one.admitted]
    for first, beyond in zip(admitted, admitted[QUOTA:], strict=False):
        assert beyond.after - first.before >= LENGTH_S
    for refused in (one for one in mails if not one.admitted):
        earlier = [one for one in admitted if refused.before - LENGTH_S - PART_S < one.after <= refused.before]
        assert len(earlier) >= QUOTA
        assert not any(one.admitted for one in mails if refused.before < one.before and one.after < refused.reset)
        following = next((one for one in mails if one.before >= refused.reset), None)
        assert following is None or following.admitted
    assert len(admitted) >= 3 * QUOTA


def test_in_no_6_seconds_are_more_than_5_admitted_and_each_leaves_in_time(start: Start, postfix: Postfix) -> None:
    for name in ("alice", "bob"):
        postfix.add_user(name, "example.com", "secret")
    limit = {"period": f"{LENGTH_S}s", "window": "sliding", "quota": QUOTA, "count_rejected": False}
    daemon = start(timezone="UTC", limit=[limit], store={"flush_interval_s": 2})
    postfix.start({"smtpd_recipient_restrictions": at(daemon)})
    sent = send_for_a_while(postfix)
    assert daemon.stop() == 0
    for mails in sent.values():
        check(mails)
    admitted = sum(one.admitted for mails in sent.values() for one in mails)
    statuses = [line.rpartition("=")[2] for line in daemon.decisions()]
    assert sum(status in ("INSERT", "UPDATE") for status in statuses) == admitted
    assert len(statuses) == sum(len(mails) for mails in sent.values())


Sql = Callable[[str], object]


def sqlite_of(daemon: Ratelimitd) -> Sql:
    """What an administrator does with sqlite3."""

    def run(statement: str) -> None:
        with closing(sqlite3.connect(daemon.database, timeout=30)) as connection, connection:
            connection.execute(statement)

    return run


def check_domain_row(daemon: Ratelimitd, postfix: Postfix, sql: Sql) -> None:
    """A row of the domain is inserted, changed and deleted: mails follow, of accounts in memory and of new ones."""
    for name in ("alice", "bob", "carol"):
        postfix.add_user(name, "example.com", "secret")
    postfix.start({"smtpd_recipient_restrictions": at(daemon)})
    with logged_in(postfix, "alice@example.com") as alice, logged_in(postfix, "bob@example.com") as bob:
        assert [mail(alice).admitted for _ in range(3)] == [True, True, False]
        assert mail(bob).admitted
        sql("INSERT INTO ratelimit (sender, limit_name, persist, quota) VALUES ('@example.com', 'daily', 1, 4)")
        follows(lambda: mail(alice).admitted)
        assert [mail(alice).admitted for _ in range(2)] == [True, False]
        assert [mail(bob).admitted for _ in range(4)] == [True, True, True, False]
        with logged_in(postfix, "carol@example.com") as carol:
            assert [mail(carol).admitted for _ in range(5)] == [True, True, True, True, False]
            sql("UPDATE ratelimit SET quota = 5 WHERE sender = '@example.com'")
            follows(lambda: mail(carol).admitted)
            assert not mail(carol).admitted
            sql("UPDATE ratelimit SET quota = 100 WHERE sender = '@example.com'")
            follows(lambda: mail(carol).admitted)
        assert all(mail(alice).admitted for _ in range(3))
        sql("DELETE FROM ratelimit WHERE sender = '@example.com'")
        follows(lambda: not mail(bob).admitted)
        assert not mail(alice).admitted
    assert daemon.stop() == 0


def follows(holds: Callable[[], bool]) -> None:
    """Wait for what the next refresh brings, by far sooner than without `refresh_s`."""
    wait_until(holds, "the row of the domain", timeout=StoreSettings().refresh_s / 2)


DAILY = {"name": "daily", "quota": 2, "count_rejected": False}
STORE = {"refresh_s": REFRESH_S, "flush_interval_s": 0.2}


def test_a_row_of_a_domain_that_is_changed_while_all_runs_holds_for_the_next_mails(
    start: Start, postfix: Postfix
) -> None:
    daemon = start(limit=[DAILY], store=STORE)
    check_domain_row(daemon, postfix, sqlite_of(daemon))


def test_a_row_of_a_domain_in_mariadb_holds_for_the_next_mails(
    start: Start, postfix: Postfix, mariadb: MariaDB, database: str
) -> None:
    access = {"backend": "mysql", "unix_socket": str(mariadb.socket), "user": "root", "database": database}
    daemon = start(limit=[DAILY], store={**STORE, **access})
    check_domain_row(daemon, postfix, lambda statement: mariadb.sql(statement, database))
