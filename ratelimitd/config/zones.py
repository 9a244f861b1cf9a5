"""A time zone by a rule as TZ may have it (POSIX): `CET-1CEST,M3.5.0,M10.5.0/3`, `<+03>-3`."""

import re
import struct
from datetime import tzinfo
from io import BytesIO
from zoneinfo import ZoneInfo

_NAME = r"(?:[A-Za-z]{3,}|<[A-Za-z0-9+-]{3,}>)"
_RULE = re.compile(rf"{_NAME}[+-]?[0-9]{{1,3}}(?::[0-9]{{2}}){{0,2}}(?P<summer>{_NAME}[^,]*)?(?P<changes>,.*)?")
USUAL_CHANGES = ",M3.2.0,M11.1.0"
"""Where a rule with a summer time does not say when it begins and ends, as the C library has it."""
_HEADER = struct.Struct(">4s1s15x6L")
_COUNTS = (0, 0, 0, 0, 1, 4)  # transitions: none; one kind of time, whose name takes four bytes
_KIND = struct.pack(">lbB", 0, 0, 0) + b"UTC\0"


def by_rule(rule: str) -> tzinfo:
    """The zone of a rule. Raises ValueError."""
    found = _RULE.fullmatch(rule)
    if found is None:
        raise ValueError(rule)
    if found["summer"] and not found["changes"]:
        rule += USUAL_CHANGES
    # A file of a zone ends in such a rule, which holds after its last transition: this one has no transition.
    part = _HEADER.pack(b"TZif", b"2", *_COUNTS) + _KIND
    return ZoneInfo.from_file(BytesIO(part + part + b"\n" + rule.encode() + b"\n"), key=rule)
