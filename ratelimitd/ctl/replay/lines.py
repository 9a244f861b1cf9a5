"""What a line says of a mail, once its time is read: who began it, how many recipients it has, what was decided on it.

    postfix/submission/smtpd[7]: 4XyZ: client=mx.example.net[192.0.2.1], sasl_method=PLAIN, sasl_username=alice
    postfix/qmgr[9]: 4XyZ: from=<alice@example.com>, size=1234, nrcpt=2 (queue active)
    postfix/smtp[8]: 4XyZ: to=<bob@example.org>, orig_to=<...>, relay=...        and: postfix/qmgr[9]: 4XyZ: removed
    ratelimitd[5]: 4XyZ: client=..., sasl_method=..., sasl_username=..., recipient_count=1, curr_count=6/1000, status=S

Of whatever else a log holds nothing is said. Lines are not trusted: every search takes time in proportion to the line,
and texts may hold anything.
"""

import re

import msgspec
from msgspec import Struct

from ratelimitd.request import MAX_RECIPIENTS
from ratelimitd.text import unspelled

_QUEUE_ID = rb"([0-9A-Za-z]{5,30}): "
_LEVEL = rb"(?:<?[a-z0-9]{1,8}\.[a-z]{1,7}>? )?"  # of busybox and syslog-ng; Solaris has it in brackets
_PROGRAM = re.compile(
    rb"(?:<[a-z0-9]{1,8}\.[a-z0-9]{1,7}> )?([^ ]{0,254}[^ :]) " + _LEVEL + rb"([^ :\[]{1,255})(?:\[[0-9]{1,10}\])?: "
    rb"(?:\[ID [0-9]{1,10} [^\]]{1,32}\] )?"
)
_NUMBERED = re.compile(rb"(?:([^ ]{0,254}[^ :]) )?([^ ]{1,255})\[[0-9]{1,10}\]: ")
"""A program without a host, or one whose name has a colon."""
_RFC_5424 = re.compile(
    rb"([^ ]{1,255}) ([^ ]{1,48}) [^ ]{1,128} [^ ]{1,32} "
    rb'(?:-|(?:\[(?:[^\]"]|"(?:[^"\\]|\\.)*+")*+\])++)(?: (?:\xef\xbb\xbf)?|$)'
)
_CLIENT = rb"client=([^\[, ]{0,255})\[([^\], ]{1,255})\]"
_LOGIN = re.compile(
    _QUEUE_ID + _CLIENT + rb"(?::[0-9]{1,5})?(?:, orig_[^,]{0,255}){0,3}(?:, sasl_method=([^,]{0,255}))?, "
    rb"sasl_username=(.*)", re.DOTALL
)  # fmt: skip
_QUEUED = re.compile(
    _QUEUE_ID + rb"from=<(.*)>, size=([0-9]{1,20}), nrcpt=([0-9]{1,10}) \([a-z ]{1,40}\)\r?", re.DOTALL
)
_DECIDED = re.compile(
    rb"([0-9A-Za-z]{0,30}): " + _CLIENT + rb", sasl_method=([^,]{0,255}), sasl_username=(.*), recipient_count="
    rb"([0-9]{1,10}), curr_count=-?[0-9]{1,20}/-?[0-9]{1,20}, status=([A-Z_]{1,20})(?:, limit=[A-Za-z0-9_.-]{1,64})?",
    re.DOTALL,
)  # fmt: skip
_TO = re.compile(_QUEUE_ID + rb"to=<")
_REMOVED = re.compile(_QUEUE_ID + rb"removed")
_BEGINS = re.compile(rb"[0-9A-Za-z]{0,30}: client=")
_MAX_COUNT = MAX_RECIPIENTS
"""More than that is nothing that Postfix says, and a daemon is never asked about more."""


class Unreadable(Exception):
    """A line that would say something of a mail, but not in a form that is known."""


class Login(Struct, gc=False):
    """A mail was begun by somebody who has logged in. `mail` names it: its host and its queue id."""

    mail: bytes
    client_name: bytes
    client_address: bytes
    sasl_method: bytes
    sasl_username: bytes


class Queued(Struct, gc=False):
    """A mail was accepted, with so many recipients."""

    mail: bytes
    sender: bytes
    size: bytes
    recipients: int


class Delivered(Struct, gc=False):
    """One of a mail's recipients, as the client named it, was tried."""

    mail: bytes
    recipient: bytes


class Removed(Struct, gc=False):
    """All recipients of a mail have been named."""

    mail: bytes


class Decided(Struct, gc=False):
    """A daemon decided on so many recipients. `mail` ends in a blank where the mail had no queue id yet."""

    login: Login
    recipients: int
    status: bytes
    instance: bytes = b""
    sender: bytes = b""


Event = Login | Queued | Delivered | Removed | Decided


def of_syslog(text: bytes) -> Event | None:
    """What the rest of a line says that has host and program in front of its message. Raises Unreadable."""
    found = _PROGRAM.match(text) or _RFC_5424.match(text) or _NUMBERED.match(text)
    if found is None:
        if not _BEGINS.match(text) and _is_of_mail(text):
            raise Unreadable
        return of_message(b"", b"", text)
    return of_message(found[1] or b"", found[2], text[found.end() :])


def _is_of_mail(text: bytes) -> bool:
    """Whether a line holds what smtpd, qmgr or a daemon say of a mail, wherever that begins."""
    return (b": client=" in text and b", sasl_username=" in text) or (b">, size=" in text and b", nrcpt=" in text)


def of_message(host: bytes, program: bytes, message: bytes) -> Event | None:
    """What a program's message says of a mail; None: nothing. Raises Unreadable."""
    name = program.rpartition(b"/")[2]
    if name == b"smtpd":
        return _login(host, message)
    if name == b"qmgr" or name == b"nqmgr" or name == b"oqmgr":
        return _queued(host, message)
    if message.startswith(b"{"):
        return _decided_json(host, message) if b'"sasl_username"' in message else None
    if _BEGINS.match(message):
        return _decided(host, message) if b", sasl_username=" in message else None
    return _delivered(host, message)


def _login(host: bytes, message: bytes) -> Login | None:
    found = _LOGIN.fullmatch(message)
    if found is None:
        if _is_of_mail(message):
            raise Unreadable
        return None
    queue_id, name, address, method, username = found.groups()
    username = username.partition(b", sasl_sender=")[0].rstrip(b"\r")
    if queue_id == b"NOQUEUE" or not username:  # a proxy's: it is not known what became of it
        return None
    return Login(host + b" " + queue_id, name, address, method or b"", username)


def _queued(host: bytes, message: bytes) -> Queued | Removed | None:
    found = _QUEUED.fullmatch(message)
    if found is not None:
        return Queued(host + b" " + found[1], found[2], found[3], min(int(found[4]), _MAX_COUNT))
    if _is_of_mail(message):
        raise Unreadable
    found = _REMOVED.match(message)
    return Removed(host + b" " + found[1]) if found is not None else None


def _delivered(host: bytes, message: bytes) -> Delivered | None:
    found = _TO.match(message)
    if found is None:
        if _is_of_mail(message):
            raise Unreadable
        return None
    addresses, relay, _ = message[found.end() :].partition(b">, relay=")
    if not relay:
        return None
    to, _, original = addresses.partition(b">, orig_to=<")
    return Delivered(host + b" " + found[1], original or to)


def _decided(host: bytes, message: bytes) -> Decided:
    found = _DECIDED.fullmatch(message.rstrip(b"\r"))
    if found is None:
        raise Unreadable
    queue_id, name, address, method, username, count, status = found.groups()
    if b"\\" in username:
        username = unspelled(username.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
    login = Login(host + b" " + queue_id, name, address, method, username)
    return Decided(login, min(int(count), _MAX_COUNT), status)


class _Json(Struct):
    """A line of ratelimitd with `format = "json"`."""

    status: str
    queue_id: str
    instance: str
    client_name: str
    client_address: str
    sasl_method: str
    sasl_username: str
    sender: str
    recipient_count: int


_decode = msgspec.json.Decoder(_Json).decode


def _decided_json(host: bytes, message: bytes) -> Decided:
    try:
        line = _decode(message)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable from error
    queue_id, name, address, method, username, sender = [
        text.encode("utf-8", "backslashreplace")
        for text in (
            line.queue_id, line.client_name, line.client_address, line.sasl_method, line.sasl_username, line.sender
        )
    ]  # fmt: skip
    if not 0 <= line.recipient_count <= _MAX_COUNT:
        raise Unreadable
    login = Login(host + b" " + queue_id, name, address, method, username)
    instance = line.instance.encode("utf-8", "backslashreplace")
    return Decided(login, line.recipient_count, line.status.encode("utf-8", "backslashreplace"), instance, sender)
