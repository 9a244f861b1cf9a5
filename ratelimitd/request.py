"""The policy protocol: bytes in, requests out; no sockets.

`Request` is part of the API of key plugins; `RequestReader` is the daemon's own.

A request is lines of `name=value`, each ended by LF, and an empty line
(http://www.postfix.org/SMTPD_POLICY_README.html, "Protocol description"). Nothing in it is trusted: lines are
split at LF alone (U+2028 in a HELO is no line end), a value may contain `=`, and of a repeated attribute the
first counts, as in Postfix's own attr_scan.

A program that can be made to connect here (a browser, a web application that fetches URLs) begins in a protocol of its
own, and requests that somebody has put into what it sends come behind that. So a connection must begin with a request
as Postfix sends it; who may write whole requests of his own is only kept away by the permissions of a unix socket.
"""

import re
from collections.abc import Iterable
from typing import Self

from msgspec import Struct

from ratelimitd.errors import NotPostfix, RequestTooLong
from ratelimitd.logins import AS_SENT, LoginRules
from ratelimitd.text import read

__all__ = ["POLICY_REQUEST", "Request"]

POLICY_REQUEST = "smtpd_access_policy"
"""The value of the attribute `request` in what Postfix asks of a policy service."""
MAX_RECIPIENTS = 1_000_000
"""No mail has more recipients; a forged count beyond it is charged as this many."""


def recipient_count(text: str) -> int:
    """The number of an attribute recipient_count; 0 for what is none."""
    if not (text.isascii() and text.isdigit()):
        return 0
    digits = text.lstrip("0")
    return min(int(digits or 0), MAX_RECIPIENTS) if len(digits) < 10 else MAX_RECIPIENTS


class Request(Struct, frozen=True, eq=False, gc=False):
    """One request: `request["sasl_username"]` is the attribute's value, "" where Postfix sent none.

    Values never contain LF or NUL. Bytes that are not UTF-8 appear as `\\xNN`, and a text that looks like that has
    its backslash doubled. What every decision and its log line need has a field; all other attributes are searched for
    when they are asked for.

    >>> request = Request.of("sasl_username=alice\\nclient_address=192.0.2.1\\n", default_domain="example.com")
    >>> request["client_address"], request["helo_name"], request.login
    ('192.0.2.1', '', 'alice@example.com')
    """

    text: str  # the lines, each ended by LF
    rules: LoginRules
    request: str
    protocol_state: str
    client_address: str
    client_name: str
    recipient: str
    recipient_count: str
    queue_id: str
    instance: str
    sasl_method: str
    sasl_username: str

    @classmethod
    def of(cls, text: str, default_domain: str = "", domains: Iterable[str] = (), *, ascii_only: bool = False) -> Self:
        """The request of these lines, in any order, without the empty line that ends them.

        `default_domain`, `domains` and `ascii_only` (`ascii`) are those of `[keys]`.
        """
        return cls.under(LoginRules(default_domain, domains, ascii_only), text)

    @classmethod
    def under(cls, rules: LoginRules, text: str) -> Self:
        """The request of these lines, with what the daemon has made of `[keys]` already."""
        text = text if text.endswith("\n") else text + "\n"
        return cls(text, rules, *[_find(text, name) for name in _ESSENTIALS])

    def __getitem__(self, name: str) -> str:
        return getattr(self, name) if name in _ESSENTIALS else _find(self.text, name)

    @property
    def login(self) -> str:
        """The SASL login as it counts, with `keys.default_domain` added to a bare one; "" if there is none.

        Cyrus SASL delivers both `alice` and `alice@example.com` for one account. Where `keys.domains` are set, the
        domain is one of them: any other one is cut off. There are no blanks around name and domain, and with
        `keys.ascii` what is not in ASCII is `?`.
        """
        return self.rules.login(self.sasl_username)

    @property
    def attributes(self) -> dict[str, str]:
        """Every attribute by name, the first of each."""
        found: dict[str, str] = {}
        for line in self.text.split("\n"):
            name, separator, value = line.partition("=")
            if separator:
                found.setdefault(name, value)
        return found

    def __repr__(self) -> str:
        return f"Request({self.attributes!r})"


_ESSENTIALS = Request.__struct_fields__[2:]


def _find(text: str, name: str) -> str:
    begin = name + "="
    if text.startswith(begin):
        start = len(begin)
    else:
        start = text.find("\n" + begin) + len(begin) + 1
        if start == len(begin):
            return ""
    return text[start : text.index("\n", start)]


def _in_order(*names: str) -> re.Pattern[str]:
    """The lines of these attributes, of which `name?` may be missing, and of whatever follows, up to the empty one.

    A group for each that is essential. Nothing is tried twice (`*+`, Python 3.11): a long text takes no longer.
    """
    lines = []
    for name in names:
        plain = name.rstrip("?")
        value = "([^\n]*+)" if plain in _ESSENTIALS else "[^\n]*+"
        lines.append(f"(?:{plain}={value}\n)?+" if name.endswith("?") else f"{plain}={value}\n")
    return re.compile("".join(lines) + "(?:[^\n]++\n)*+\n")


# Postfix sends its attributes in one order (smtpd_check.c, check_policy_service): one match finds all essentials of a
# whole request. Whatever comes in another order is read attribute by attribute, with the same result.
_POSTFIX_ORDER = _in_order(
    *("request", "protocol_state", "protocol_name", "client_address", "client_name", "client_port?"),
    *("reverse_client_name", "server_address?", "server_port?", "helo_name", "sender", "recipient", "recipient_count"),
    *("queue_id", "instance", "size", "etrn_domain", "stress?", "sasl_method", "sasl_username"),
)


# What Postfix sends: names are printable ASCII, and no value ends in CR.
_NAME = re.compile(rb"[!-<>-~]*+")
_LINES = re.compile(rb"(?:[!-<>-~]*+=[^\n]*+(?<!\r)\n)*+")


class RequestReader:
    """Turns the bytes of one connection into requests, at whatever places they are cut.

    Call `receive` with what arrived, then `next` until it gives None or `buffer` is empty. `max_bytes` bounds a request
    (`server.max_request_bytes`), so that an endless one cannot fill the memory; logins of 8,900 bytes were seen. Both
    raise NotPostfix, as soon as that is known, where the first request of the connection is none that Postfix sends,
    and RequestTooLong; then the connection is of no more use.
    """

    __slots__ = ("_checked", "_in_value", "_known", "_searched", "_start", "buffer", "max_bytes", "rules")

    def __init__(self, max_bytes: int, rules: LoginRules = AS_SENT) -> None:
        self.max_bytes = max_bytes
        self.rules = rules
        self.buffer = b""  # empty where all that has arrived was read
        self._start = 0  # where the next request begins
        self._searched = 0  # no end of it lies before here
        self._known = False  # a request has been read: this is Postfix, or somebody who speaks as it does
        self._checked = 0  # until one has: so many bytes are as Postfix sends them
        self._in_value = False  # and they end behind the "=" of a line

    def receive(self, data: bytes) -> Request | None:
        """Take what arrived; the next whole request, or None: more bytes are needed."""
        if not self.buffer:
            if len(data) <= self.max_bytes:
                request = self._usual(data)
                if request is not None:
                    return request
            self.buffer = data
        else:
            self.buffer = self.buffer[self._start :] + data
            self._searched -= self._start
            self._start = 0
        return self.next()

    def _usual(self, data: bytes) -> Request | None:
        """What Postfix sends: one whole request, its attributes in Postfix's order; None for anything else."""
        text = read(data)
        found = _POSTFIX_ORDER.fullmatch(text)
        if found is None:
            return None
        if not self._known:
            if not _LINES.fullmatch(data, 0, len(data) - 1):
                return None
            self._known = True
        return Request(text, self.rules, *found.groups())

    def next(self) -> Request | None:
        """The next whole request, or None: more bytes are needed."""
        buffer, start = self.buffer, self._start
        if not buffer:
            return None
        if self._known and buffer.startswith(b"\n", start):  # an empty request is one without attributes
            self._take(start + 1)
            return Request.under(self.rules, "")
        end = buffer.find(b"\n\n", self._searched)
        if not self._known:
            self._check(buffer, min(end + 1 if end >= 0 else len(buffer), self.max_bytes + 1))
        length = (end if end >= 0 else len(buffer) - buffer.endswith(b"\n")) - start  # that LF may be half of its end
        if length > self.max_bytes:
            raise RequestTooLong(f"a request of more than {self.max_bytes} bytes")
        if end < 0:
            self._searched = max(start, len(buffer) - 1)
            return None
        self._known = True
        self._take(end + 2)
        text = read(buffer[start : end + 1])
        return Request.under(self.rules, text)

    def _check(self, buffer: bytes, end: int) -> None:
        """Check what has arrived of the first request, up to `end`. No byte is looked at twice."""
        at = self._checked
        while at < end:
            if not self._in_value:
                for expected in (_LINES, _NAME):
                    if found := expected.match(buffer, at, end):
                        at = found.end()
                if at == end:
                    break
                if buffer[at : at + 1] != b"=":
                    raise NotPostfix('a line that is not "name=value"')
                self._in_value = True
            at = buffer.find(b"\n", at, end) + 1 or end
            if buffer.endswith(b"\n", 0, at):
                if buffer.endswith(b"\r\n", 0, at):
                    raise NotPostfix("a line that ends in CR")
                self._in_value = False
        self._checked = at

    def _take(self, end: int) -> None:
        """The buffer was read up to `end`; an idle connection keeps nothing of what it has sent."""
        if end == len(self.buffer):
            self.buffer, end = b"", 0
        self._start = self._searched = end
