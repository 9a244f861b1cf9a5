"""What the request reader, the decision, the journal's record and the log line must be, whatever a client sends."""

import json
import re

from ratelimitd.core.counters import Counter
from ratelimitd.core.policy import Policy
from ratelimitd.core.verdict import Waiting
from ratelimitd.errors import NotPostfix, RequestTooLong
from ratelimitd.log.log import json_line, policyd_line
from ratelimitd.request import Request, RequestReader
from ratelimitd.state.records import ends, sound, windows
from ratelimitd.text import read as escaped
from tests.core.build import NOON, arrived, limit, policy, record

MAX_BYTES = 600
MIN_QUOTA = 3

_REPLY = re.compile(rb"action=(DUNNO|450 4\.7\.1 [ -~]{1,200})\n\n")
_LINE = re.compile(
    r"[^,]*: client=[^,]*\[[^,]*\], sasl_method=[^,]*, sasl_username=[^,]*, "
    r"recipient_count=[0-9]+, curr_count=[0-9]+/[0-9]+, status=(INSERT|UPDATE|OVER_QUOTA), limit=(email|domain)"
)
_LINE_SENT = re.compile(rb"[!-<>-~]*=([^\n]*[^\r\n])?")
_LINE_BEGUN = re.compile(rb"[!-<>-~]*(=[^\n]*)?")


def check(data: bytes) -> None:
    """Read, decide and log the requests in these bytes; the first byte says how they are cut. Raises AssertionError."""
    size, stream = (data[0] if data else 0) + 1, data[1:]
    expected, ends_badly = _model(stream)
    given, too_long = _read(stream, size)
    assert (given, too_long) == (expected, ends_badly)
    asked = policy(limit(MIN_QUOTA, name="email"), limit(2 * MIN_QUOTA, name="domain", key="domain"))
    for text in given:
        _decide(asked, Request.of(text, "example.com"))
    used = {counter: counter.used for meter in asked.meters for counter in meter.counters.values() if counter.used}
    assert used == asked.pending.open.deltas


def _model(stream: bytes) -> tuple[list[str], bool]:
    """The requests' texts, as the protocol's description has them, and whether the connection is closed for one."""
    texts: list[str] = []
    if _begins_badly(stream):
        return texts, True
    while stream:
        if stream.startswith(b"\n"):
            texts.append("\n")
            stream = stream[1:]
            continue
        whole, end, rest = stream.partition(b"\n\n")
        if len(whole if end else whole.removesuffix(b"\n")) > MAX_BYTES:
            return texts, True
        if not end:
            break
        texts.append(escaped(whole) + "\n")
        stream = rest
    return texts, False


def _begins_badly(stream: bytes) -> bool:
    """Whether a line of the first request is none of Postfix's: it shows before the request is too long."""
    if stream.startswith(b"\n"):
        return True
    first, end, _ = stream.partition(b"\n\n")
    *whole, begun = (first + end[:1])[: MAX_BYTES + 1].split(b"\n")
    return any(not _LINE_SENT.fullmatch(line) for line in whole) or not _LINE_BEGUN.fullmatch(begun)


def _read(stream: bytes, size: int) -> tuple[list[str], bool]:
    texts: list[str] = []
    reader = RequestReader(MAX_BYTES)
    for start in range(0, len(stream), size):
        try:
            for request in arrived(reader, stream[start : start + size]):
                text = request.text.removesuffix("\n") if request.text.endswith("\n\n") else request.text
                _check_attributes(request, text)
                texts.append(text)
        except (RequestTooLong, NotPostfix):
            return texts, True
    return texts, False


def _check_attributes(request: Request, text: str) -> None:
    """Lines end at LF alone, names at the first "=", and the first of a name counts."""
    expected: dict[str, str] = {}
    for line in text.split("\n"):
        name, equals, value = line.partition("=")
        if equals:
            expected.setdefault(name, value)
    assert request.attributes == expected
    for name in ("request", "protocol_state", "sasl_username", "instance", "helo_name"):
        assert request[name] == expected.get(name, "")


def _decide(asked: Policy, request: Request) -> None:
    verdict = asked.decide(request, NOON)
    if isinstance(verdict, Waiting):
        for meter, key in verdict.missing(NOON):
            assert len(key.encode()) <= 255
            meter.accept(key, None, 0, NOON)
        verdict = asked.decide_waiting(verdict, NOON)
    assert _REPLY.fullmatch(verdict.reply)
    assert verdict.charge is not None or not verdict.charged
    if verdict.charge is not None:
        _check_record(record(verdict.charge), verdict.refused, _counters(asked, request))
    if verdict.status:
        line = policyd_line(verdict, True)
        assert line.isprintable()
        assert _LINE.fullmatch(line), line
        assert all(isinstance(value, str | int) for value in json.loads(json_line(verdict)).values())


def _counters(asked: Policy, request: Request) -> list[Counter]:
    keys = [(meter, meter.limit.key_of(request)) for meter in asked.meters]
    return [meter.counters[key] for meter, key in keys if key is not None]


def _check_record(record: str, refused: bool, counters: list[Counter]) -> None:
    """Lines whose fields are what was charged: nothing that a client says is another field."""
    lines = record.split("\n")
    assert lines.pop() == ""
    assert sound(lines) == (lines, [])
    assert {line[0] for line in lines} <= (set("rd") if refused else set("RDT"))
    names = {counter.window for counter in counters}
    assert all(windows(end)[0] and names.issuperset(windows(end)[1]) for end in ends(lines))
