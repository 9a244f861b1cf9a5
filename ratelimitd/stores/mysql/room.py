"""Which types of MySQL's columns have room for all that is written to them, as it is."""

import re

from ratelimitd.stores import MAX_USED

NO_INT = re.compile(r"(tinyint|smallint|mediumint|decimal|double|float|bit)\b(?:\((\d+)(?:,(\d+))?\))?")
_DIGITS = len(str(MAX_USED))
_TEXT = re.compile(r"(?:var)?(?:char|binary)\((\d+)\)")
_LENGTHS = {"sender": 255, "limit_name": 64}
"""How many characters a key and the name of a limit have at most."""


def is_short(kind: str) -> bool:
    """Whether a column of texts cannot hold all numbers."""
    return _length(kind, _DIGITS) < _DIGITS


def lacks_room(name: str, kind: str) -> bool:
    """Whether a column of texts cannot hold all keys, or names of limits."""
    length = _LENGTHS.get(name, 0)
    return _length(kind, length) < length


def is_narrow(name: str, kind: str) -> bool:
    """Whether a column of numbers cannot hold all that may be written to it, or rounds it."""
    found = NO_INT.match(kind)
    if found is None or found[1] == "double":
        return False
    if found[1] == "decimal":
        return int(found[2] or 10) - int(found[3] or 0) < _DIGITS
    return found[1] != "mediumint" or name == "expiry"


def _length(kind: str, otherwise: int) -> int:
    """How long a text may be, in a column that is short of some."""
    found = _TEXT.match(kind)
    return int(found[1]) if found else otherwise
