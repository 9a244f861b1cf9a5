"""What lines say of mails: of Postfix, of ratelimitd and of the Perl daemon; and that no line is an error."""

import contextlib
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ratelimitd.ctl.replay.lines import Decided, Delivered, Event, Login, Queued, Removed, Unreadable, of_syslog
from ratelimitd.ctl.replay.sources import MAX_LINE
from ratelimitd.ctl.replay.wrapped import after_second_time, unwrapped
from ratelimitd.log.log import json_line, policyd_line
from tests.core.build import ask, limit, policy, request

CLIENT = b"client=laptop.example.net[192.0.2.7]"
SASL = b"sasl_method=PLAIN, sasl_username=alice@example.com"
LOGIN = Login(b"mx1 4XyZ0k1Lm", b"laptop.example.net", b"192.0.2.7", b"PLAIN", b"alice@example.com")


def of(line: bytes) -> Event | None:
    return of_syslog(line)


@pytest.mark.parametrize("program", [b"postfix/smtpd[7]", b"postfix/submission/smtpd[712]", b"postfix-out/smtps/smtpd"])
def test_smtpd_says_who_began_a_mail(program: bytes) -> None:
    assert of(b"mx1 " + program + b": 4XyZ0k1Lm: " + CLIENT + b", " + SASL) == LOGIN


@pytest.mark.parametrize(
    "text",
    [
        CLIENT + b", " + SASL + b", sasl_sender=bob@example.com",
        CLIENT + b":49152, " + SASL,
        CLIENT + b", orig_queue_id=ABCDEF, orig_client=x[192.0.2.9], " + SASL,
        CLIENT + b", " + SASL + b"\r",
    ],
)
def test_what_else_smtpd_says_there_is_no_part_of_the_login(text: bytes) -> None:
    assert of(b"mx1 postfix/smtpd[7]: 4XyZ0k1Lm: " + text) == LOGIN


def test_qmgr_says_how_many_recipients_a_mail_has() -> None:
    line = b"mx1 postfix/qmgr[9]: 4XyZ0k1Lm: from=<alice@example.com>, size=1234, nrcpt=3 (queue active)"
    assert of(line) == Queued(b"mx1 4XyZ0k1Lm", b"alice@example.com", b"1234", 3)
    assert of(line.replace(b"alice@", b'"x>, size=1, nrcpt=9 (queue active)"@')) == Queued(
        b"mx1 4XyZ0k1Lm", b'"x>, size=1, nrcpt=9 (queue active)"@example.com', b"1234", 3
    )


def test_delivery_agents_say_who_the_recipients_are() -> None:
    line = b"mx1 postfix/%b[8]: 4XyZ0k1Lm: to=<bob@example.org>, %brelay=mx[198.51.100.1]:25, delay=1, status=sent (ok)"
    assert of(line % (b"smtp", b"")) == Delivered(b"mx1 4XyZ0k1Lm", b"bob@example.org")
    assert of(line % (b"lmtp", b"orig_to=<all@example.com>, ")) == Delivered(b"mx1 4XyZ0k1Lm", b"all@example.com")
    assert of(b"mx1 postfix/qmgr[9]: 4XyZ0k1Lm: removed") == Removed(b"mx1 4XyZ0k1Lm")


@pytest.mark.parametrize(
    "line",
    [
        b"mx1 postfix/smtpd[7]: 4XyZ0k1Lm: " + CLIENT,
        b"mx1 postfix/smtpd[7]: NOQUEUE: " + CLIENT + b", " + SASL,
        b"mx1 postfix/smtpd[7]: warning: x[192.0.2.7]: SASL LOGIN authentication failed: no, sasl_username=bob",
        b"mx1 postfix/smtpd[7]: NOQUEUE: reject: RCPT from x[192.0.2.7]: 450 4.7.1 over; from=<a> sasl_username=<bob>",
        b"mx1 postfix/qmgr[9]: 4XyZ0k1Lm: from=<a@b.example>, status=expired, returned to sender",
        b"mx1 dovecot: imap-login: Login: user=<alice>, method=PLAIN",
        b"mx1 ratelimitd[5]: serving: listen=127.0.0.1:10032",
        b"mx1",
        b"",
    ],
)
def test_other_lines_say_nothing(line: bytes) -> None:
    assert of(line) is None


@pytest.mark.parametrize(
    "line",
    [
        b"mx1 postfix/smtpd[7]: 4XyZ0k1Lm: client=x, " + SASL,
        b"mx1 postfix/qmgr[9]: 4XyZ0k1Lm: from=<a@b.example>, size=1, nrcpt=many (queue active)",
        b"mx1 ratelimitd[5]: : " + CLIENT + b", " + SASL + b", recipient_count=x, curr_count=1/2, status=UPDATE",
        b'mx1 ratelimitd[5]: {"sasl_username": "alice"',
    ],
)
def test_a_line_that_would_say_something_in_another_form_is_unreadable(line: bytes) -> None:
    with pytest.raises(Unreadable):
        of(line)


def test_the_perl_daemon_s_line_is_read() -> None:
    text = (
        b"07F452AC009F: client=4-3.2-1.cust.example.com[192.0.2.4], sasl_method=PLAIN, sasl_username=demo@example.com, "
        b"recipient_count=1, curr_count=6/1000, status=UPDATE"
    )
    login = Login(b"07F452AC009F", b"4-3.2-1.cust.example.com", b"192.0.2.4", b"PLAIN", b"demo@example.com")
    login.mail = b"mx1 07F452AC009F"
    assert of(b"mx1 ratelimit-policyd[2552]: " + text) == Decided(login, 1, b"UPDATE")
    login.mail = b" 07F452AC009F"
    assert of(text) == Decided(login, 1, b"UPDATE")  # its own log file


@pytest.mark.parametrize("several", [False, True])
def test_ratelimitd_s_lines_are_read(several: bool) -> None:
    verdict = ask(policy(limit(1)), request("DATA", "a, b@example.com", recipient_count=3, queue_id="4XyZ0k1Lm",
                  client_name="laptop.example.net", client_address="192.0.2.7", sasl_method="PLAIN"))  # fmt: skip
    login = Login(b"mx1 4XyZ0k1Lm", b"laptop.example.net", b"192.0.2.7", b"PLAIN", b"a, b@example.com")
    assert of(b"mx1 ratelimitd[5]: " + policyd_line(verdict, several).encode()) == Decided(login, 3, b"OVER_QUOTA")
    assert of(b"mx1 ratelimitd[5]: " + json_line(verdict).encode()) == Decided(login, 3, b"OVER_QUOTA", b"1.a", b"")


PIECES = [
    *(b"mx1 ", b"postfix/smtpd[7]: ", b"postfix/qmgr[9]: ", b"postfix/smtp[8]: ", b"ratelimitd[5]: "),
    *(b"4XyZ0k1Lm: ", b": ", CLIENT, b", ", b"sasl_method=PLAIN", b"sasl_username=", b"from=<", b">, size=1"),
    *(b", nrcpt=1", b" (queue active)", b"to=<", b">, orig_to=<", b">, relay=", b"removed", b", recipient_count=1"),
    *(b", curr_count=1/2", b", status=UPDATE", b'{"sasl_username": "', b"[" * 200, b'"}', b"\xff\x00\x1b[2J"),
    b"9" * 40,
]


@given(st.one_of(st.binary(max_size=300), st.lists(st.sampled_from(PIECES), max_size=20).map(b"".join)))
@example(b'mx1 ratelimitd[5]: {"sasl_username":' + b"[" * 10_000)
def test_a_line_says_something_or_nothing_or_is_unreadable(line: bytes) -> None:
    try:
        event = of(line)
    except Unreadable:
        return
    assert event is None or isinstance(event, Login | Queued | Delivered | Removed | Decided)


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize(
    "begin",
    [
        b"mx1 postfix/smtpd[7]: 4XyZ0k1Lm: client=a[1], sasl_username=",
        b"mx1 postfix/qmgr[9]: 4XyZ0k1Lm: from=<",
        b"mx1 postfix/smtp[8]: 4XyZ0k1Lm: to=<",
        b"mx1 ratelimitd[5]: : client=a[1], sasl_method=, sasl_username=",
        b"mx1 x",
        b"",
    ],
)
def test_no_line_takes_long(begin: bytes, piece: bytes) -> None:
    line = (begin + piece * MAX_LINE)[:MAX_LINE]
    began = time.process_time()
    for _ in range(5):
        with contextlib.suppress(Unreadable):
            of(line)
    assert time.process_time() - began < 0.25


@pytest.mark.parametrize("piece", [*PIECES, b"a |", b" ", b"|", b"1:", b"{", b'{"log": "', b'"__REALTIME_TIMESTAMP"'])
@pytest.mark.parametrize(
    "begin", [b"", b"\x1b[36m", b"[pod/", b"{", b'{"__REALTIME_TIMESTAMP": "1", "MESSAGE": ', b"a:"]
)
def test_nothing_around_a_line_takes_long(begin: bytes, piece: bytes) -> None:
    line = (begin + piece * MAX_LINE)[:MAX_LINE]
    began = time.process_time()
    for _ in range(5):
        unwrapped(line)
        after_second_time(line)
    assert time.process_time() - began < 1


@given(st.binary(max_size=300))
@example(b'{"__REALTIME_TIMESTAMP":"1795600000123456","MESSAGE":[300]}')
@example(b'{"__REALTIME_TIMESTAMP":"99999999999999999","MESSAGE":"x"}')
@example(b'{"log":"\\ud800","time":"x"}')
@example(b'{"__REALTIME_TIMESTAMP":' + b"[" * 10_000)
def test_nothing_around_a_line_is_an_error(line: bytes) -> None:
    for whole in (line, b"{" + line, b"9999999999.1 " + line):
        assert isinstance(unwrapped(whole), bytes | None)
