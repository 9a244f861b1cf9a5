"""Lines of a log that something else has put into its own: what containers, journald and grep write around them.

    mail-1  | Nov 26 10:00:00 mx ...                            docker compose logs
    [pod/mail-0/postfix] Nov 26 10:00:00 mx ...                 kubectl logs --prefix
    2026-11-26T10:00:00.123456789Z Nov 26 10:00:00 mx ...       docker logs -t, kubectl logs --timestamps
    2026-11-26T10:00:00.123456789Z stdout F Nov 26 ...          the files of containerd and CRI-O
    {"log":"Nov 26 10:00:00 mx ...\\n","stream":"stdout","time":"2026-11-26T10:00:00.123456789Z"}       of Docker
    {"__REALTIME_TIMESTAMP":"1795600000123456","_HOSTNAME":"mx", ...                journalctl -o json
    1795600000.123456 mx ...                                    journalctl -o short-unix
    /var/log/mail.log.1:Nov 26 10:00:00 mx ...                  grep, zgrep
    113 <22>1 2026-11-26T10:00:00Z mx ...                       RFC 6587

Of two times the outer one counts: it names its offset and its year. What a time says is not known here.
"""

import re
from datetime import UTC, datetime

import msgspec
from msgspec import Struct

_BEGINS_ANEW = rb"(?=<[0-9]|[A-Z][a-z]{2} |[0-9]{4}-|\{|[0-9]{10}\.)"
_PREFIX = re.compile(
    rb"(?:\xef\xbb\xbf)?(?:"
    rb"(?:\x1b\[[0-9;]{1,12}m)?[^ |\x1b]{1,128} {1,64}\| (?:\x1b\[0m)?"
    rb"|\[pod/[^ \]]{1,300}\] "
    rb"|[0-9]{1,6} (?=<)"
    rb"|\x1e|data: "  # journalctl -o json-seq, json-sse
    rb"|(?:[^ :{]{1,255}:)?(?:[0-9]{1,9}:)?"
    rb")" + _BEGINS_ANEW
)  # fmt: skip
_UNIX = re.compile(rb"([0-9]{9,10})\.[0-9]{1,9} ")
_SECOND_TIME = re.compile(
    rb"(?:std(?:out|err) [FP] )?"
    rb"(?:[A-Z][a-z]{2} [ 0-3][0-9] [0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})? "
    rb"|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:[.,][0-9]{1,9})?(?:Z|[+-][0-9]{2}:?[0-9]{2})? )?"
)
_MICROSECONDS = 1_000_000
_LATEST = 1 << 33
"""Instants of entries are below it: the year 2242."""


_Field = str | list[int | str] | None
"""What is not UTF-8 is a list of bytes, and a field that an entry has several times a list of texts."""


class _Entry(Struct):
    """An entry of a journal."""

    time: str = msgspec.field(name="__REALTIME_TIMESTAMP")
    host: _Field = msgspec.field(name="_HOSTNAME", default=None)
    program: _Field = msgspec.field(name="SYSLOG_IDENTIFIER", default=None)
    message: _Field = msgspec.field(name="MESSAGE", default=None)


class _Printed(Struct):
    """What a container printed."""

    log: str
    time: str


_entry = msgspec.json.Decoder(_Entry).decode
_printed = msgspec.json.Decoder(_Printed).decode


def unwrapped(line: bytes) -> bytes | None:
    """The line as it would stand in a log; None: it is in nothing that is known."""
    found = _PREFIX.match(line)
    if found is not None:
        line = line[found.end() :]
    if line.startswith(b"{"):
        return _of_json(line)
    unix = _UNIX.match(line)
    if unix is not None:
        return b"%b %b" % (_iso(int(unix[1])), line[unix.end() :])
    return line if found is not None and found.end() else None


def after_second_time(rest: bytes) -> bytes:
    """What follows a line's time, without what a container has put between, and without a time of its own."""
    found = _SECOND_TIME.match(rest)
    return rest[found.end() :] if found is not None else rest


def exported(text: bytes) -> int | None:
    """The instant of a journal's time."""
    text = text.strip()
    if not text.isdigit() or len(text) > 18:
        return None
    instant = int(text) // _MICROSECONDS
    return instant if 0 < instant < _LATEST else None


def _of_json(line: bytes) -> bytes | None:
    try:
        if b'"__REALTIME_TIMESTAMP"' in line:
            entry = _entry(line)
            instant = exported(entry.time.encode())
            if instant is None:
                return None
            host, program, message = map(_bytes, (entry.host or "-", entry.program, entry.message))
            return b"%b %b %b: %b" % (_iso(instant), host, program, message)
        if b'"log"' in line and b'"time"' in line:
            printed = _printed(line)
            return f"{printed.time} {printed.log.rstrip()}".encode("utf-8", "surrogateescape")
    except (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError):
        pass
    return None


def _bytes(value: _Field) -> bytes:
    """A field's bytes; of one that an entry has several times the first."""
    if isinstance(value, list):
        if value and all(isinstance(each, int) for each in value):
            return bytes(each for each in value if isinstance(each, int))
        value = next((each for each in value if isinstance(each, str)), None)
    return value.encode("utf-8", "surrogateescape") if value is not None else b""


def _iso(instant: int) -> bytes:
    return datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%dT%H:%M:%SZ").encode()
