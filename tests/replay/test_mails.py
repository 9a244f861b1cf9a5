"""What a daemon would be asked of a log: each mail once, in the order in which mails were begun."""

from collections.abc import Iterable

import pytest

from ratelimitd.ctl.replay.lines import Decided, Delivered, Event, Login, Queued, Removed
from ratelimitd.ctl.replay.mails import HELD_S, MAX_HELD, Mail, Mails

NOON = 1_795_694_400


def login(mail: str = "mx1 4A", username: str = "alice") -> Login:
    return Login(mail.encode(), b"laptop", b"192.0.2.7", b"PLAIN", username.encode())


def queued(mail: str = "mx1 4A", recipients: int = 1) -> Queued:
    return Queued(mail.encode(), b"alice@example.com", b"1234", recipients)


def decided(queue_id: str = "", username: str = "alice", recipients: int = 1, status: str = "UPDATE",
            instance: str = "") -> Decided:  # fmt: skip
    return Decided(login(f"mx1 {queue_id}", username), recipients, status.encode(), instance.encode())


def of(events: Iterable[tuple[int, Event]], *, with_recipients: bool = False) -> list[Mail]:
    mails = Mails(with_recipients=with_recipients)
    found = [mail for instant, event in events for mail in mails.take(instant, event)]
    return found + list(mails.finish())


def counts(*events: tuple[int, Event], with_recipients: bool = False) -> list[tuple[int, str, int]]:
    """When, whose, how many."""
    return [
        (mail.begun - NOON, mail.login.sasl_username.decode(), mail.recipients)
        for mail in of(events, with_recipients=with_recipients)
    ]


def test_a_mail_counts_at_its_beginning_with_the_recipients_of_its_end() -> None:
    assert counts((NOON, login()), (NOON + 9, queued(recipients=3))) == [(0, "alice", 3)]


def test_mails_come_in_the_order_in_which_they_were_begun() -> None:
    assert counts(
        (NOON, login("mx1 4A", "alice")), (NOON + 1, login("mx2 4A", "bob")),
        (NOON + 2, queued("mx2 4A", 2)), (NOON + 9, queued("mx1 4A", 3)),
    ) == [(0, "alice", 3), (1, "bob", 2)]  # fmt: skip


def test_a_deferred_mail_counts_once() -> None:
    later = [(NOON + 300 * i, queued(recipients=3)) for i in range(1, 99)]
    assert counts((NOON, login()), *later) == [(0, "alice", 3)]


def test_a_queue_id_that_is_given_again_is_another_mail() -> None:
    week = 7 * 86_400
    assert counts((NOON, login()), (NOON + 1, queued(recipients=3)), (NOON + week, login(username="bob")),
                  (NOON + week + 1, queued(recipients=2))) == [(0, "alice", 3), (week, "bob", 2)]  # fmt: skip


def test_a_mail_that_no_queue_manager_took_was_not_sent() -> None:
    assert counts((NOON, login()), (NOON + 1, login("mx1 4B", "bob")), (NOON + 2, queued("mx1 4B"))) == [(1, "bob", 1)]


def test_it_holds_up_others_for_an_hour_of_the_log_and_no_longer() -> None:
    mails = Mails(with_recipients=False)
    assert list(mails.take(NOON, login())) == []
    assert list(mails.take(NOON + 1, login("mx1 4B", "bob"))) == []
    assert list(mails.take(NOON + HELD_S, queued("mx1 4B"))) == []
    assert [mail.login.sasl_username for mail in mails.take(NOON + HELD_S + 6, login("mx1 4C"))] == [b"bob"]


def test_so_many_are_held_and_no_more() -> None:
    mails = Mails(with_recipients=False)
    list(mails.take(NOON, login()))
    for i in range(MAX_HELD):
        list(mails.take(NOON, login(f"mx1 5{i}")))
    assert list(mails.take(NOON, queued("mx1 4A"))) == []


def test_the_same_lines_in_two_files_are_one_mail() -> None:
    once: list[tuple[int, Event]] = [(NOON, login()), (NOON + 1, queued(recipients=3))]
    assert counts(once[0], once[0], once[1], once[1]) == [(0, "alice", 3)]
    assert counts(*once, *once) == [(0, "alice", 3)]


def test_mail_without_a_login_does_not_count() -> None:
    assert counts((NOON, queued())) == []


def test_recipients_are_waited_for_where_they_matter() -> None:
    events: list[tuple[int, Event]] = [
        (NOON, login()), (NOON + 1, queued(recipients=3)), (NOON + 2, Delivered(b"mx1 4A", b"a@example.org")),
        (NOON + 2, Delivered(b"mx1 4A", b"a@example.org")), (NOON + 3, Delivered(b"mx1 4A", b"b@example.org")),
        (NOON + 4, Removed(b"mx1 4A")), (NOON + 5, Delivered(b"mx1 4A", b"c@example.org")),
    ]  # fmt: skip
    (mail,) = of(events, with_recipients=True)
    assert (mail.recipients, mail.named) == (3, [b"a@example.org", b"b@example.org"])
    assert counts(*events[:3], with_recipients=True) == [(0, "alice", 3)]


def test_where_a_daemon_said_what_it_decided_that_alone_counts() -> None:
    assert counts(
        (NOON, decided()), (NOON, login()), (NOON, decided("4A")), (NOON + 1, queued(recipients=2)),
        (NOON + 7200, login("mx1 4B")), (NOON + 7201, queued("mx1 4B", 5)),
    ) == [(0, "alice", 1), (0, "alice", 1), (7200, "alice", 5)]  # fmt: skip


@pytest.mark.parametrize("as_postfix_writes", ["a, b", "?", "??"])
def test_a_login_that_postfix_does_not_write_as_it_is_counts_once_too(as_postfix_writes: str) -> None:
    name = {"a, b": "a, b", "?": "\x1b", "??": "é"}[as_postfix_writes]
    assert counts(
        (NOON, decided(username=name)), (NOON, login(username=as_postfix_writes)), (NOON + 1, queued())
    ) == [(0, name, 1)]  # fmt: skip


def test_the_daemon_s_log_may_be_a_file_of_its_own_and_a_little_behind() -> None:
    assert counts((NOON, login()), (NOON + 1, queued(recipients=2)), (NOON + 3, decided())) == [(3, "alice", 1)]


def test_a_daemon_that_logs_refusals_alone_leaves_the_rest_to_postfix() -> None:
    assert counts(
        (NOON, decided(status="OVER_QUOTA")), (NOON + 2, login()), (NOON + 3, queued(recipients=2))
    ) == [(0, "alice", 1), (2, "alice", 2)]  # fmt: skip


def test_lines_of_a_daemon_are_messages_by_instance_or_queue_id() -> None:
    def firsts(*events: Decided) -> list[bool]:
        return [mail.is_first for mail in of((NOON, event) for event in events)]

    assert firsts(decided(), decided("4A"), decided("4A"), decided(), decided("4B")) == [
        True,
        False,
        False,
        True,
        False,
    ]
    assert firsts(decided("4A", recipients=3), decided("4B", recipients=2)) == [True, True]
    assert firsts(decided(instance="1.a"), decided(instance="1.a"), decided(instance="1.b")) == [True, False, True]
    assert firsts(decided(), decided(username="bob"), decided("4A")) == [True, True, False]
