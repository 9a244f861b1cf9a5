"""Logs as Postfix, ratelimitd and the Perl daemon write them, of mails that a test knows."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, tzinfo
from typing import NamedTuple


class Sent(NamedTuple):
    """A mail that was accepted."""

    at: int
    login: str
    recipients: Sequence[str]
    queue_id: str = "4XyZ0k1LmNz9q"
    host: str = "mx1"
    sender: str = "alice@example.com"


def mail(at: int, login: str, recipients: int = 1, queue_id: str = "", host: str = "mx1") -> Sent:
    """A mail to so many, with a queue id that no other mail of the second has."""
    names = [f"r{i}@example.org" for i in range(recipients)]
    return Sent(at, login, names, queue_id or f"4{at:x}{abs(hash((login, recipients))) % 10**6:x}", host, login)


def classic(at: int, zone: tzinfo = UTC) -> str:
    """A time as syslog writes it."""
    local = datetime.fromtimestamp(at, zone)
    return f"{local:%b} {local.day:2d} {local:%H:%M:%S}"


def iso(at: int, zone: tzinfo = UTC) -> str:
    """A time as rsyslog of Debian 12 writes it."""
    return datetime.fromtimestamp(at, zone).isoformat(timespec="microseconds")


def ctime(at: int, zone: tzinfo = UTC) -> str:
    """A time as ctime(3) writes it."""
    local = datetime.fromtimestamp(at, zone)
    return f"{local:%a %b} {local.day:2d} {local:%H:%M:%S %Y}"


def said(sent: Sent) -> Iterator[tuple[int, str, str]]:
    """What Postfix says of a mail: when, which program, what."""
    at, queue_id = sent.at, sent.queue_id
    yield at, "submission/smtpd[71]", "connect from laptop.example.net[192.0.2.7]"
    yield (
        at, "submission/smtpd[71]",
        f"{queue_id}: client=laptop.example.net[192.0.2.7], sasl_method=PLAIN, sasl_username={sent.login}",
    )  # fmt: skip
    yield at, "cleanup[72]", f"{queue_id}: message-id=<{queue_id}@laptop.example.net>"
    yield (
        at + 1, "qmgr[73]",
        f"{queue_id}: from=<{sent.sender}>, size=1234, nrcpt={len(sent.recipients)} (queue active)",
    )  # fmt: skip
    yield (
        at + 1,
        "submission/smtpd[71]",
        "disconnect from laptop.example.net[192.0.2.7] ehlo=1 auth=1 commands=6",
    )
    for recipient in sent.recipients:
        yield (
            at + 2, "smtp[74]",
            f"{queue_id}: to=<{recipient}>, relay=mx.example.org[198.51.100.1]:25, delay=1.2, delays=0.1/0/0.5/0.6, "
            "dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as 4XyZ)",
        )  # fmt: skip
    yield at + 2, "qmgr[73]", f"{queue_id}: removed"


def postfix(mails: Iterable[Sent], stamp: object = classic, zone: tzinfo = UTC) -> str:
    """The log of these mails, in the order of time."""
    assert callable(stamp)
    lines = [
        (at, f"{stamp(at, zone)} {sent.host} postfix/{program}: {message}\n")
        for sent in mails
        for at, program, message in said(sent)
    ]
    return "".join(line for _, line in sorted(lines, key=lambda each: each[0]))


def journal(mails: Iterable[Sent]) -> bytes:
    """The same as `journalctl -o export` gives it."""
    entries = sorted(((at, sent.host, program, text) for sent in mails for at, program, text in said(sent)))
    return b"".join(
        b"__CURSOR=s=5e6f;i=1\n__REALTIME_TIMESTAMP=%d\n__MONOTONIC_TIMESTAMP=1\n_BOOT_ID=5e6f\nPRIORITY=6\n"
        b"SYSLOG_IDENTIFIER=postfix/%b\n_HOSTNAME=%b\nMESSAGE=%b\n\n"
        % (at * 1_000_000 + 123_456, program.partition("[")[0].encode(), host.encode(), text.encode())
        for at, host, program, text in entries
    )
