"""Which types of PostgreSQL's columns have room for all that is written to them, as it is."""

import re

from ratelimitd.stores import MAX_USED

KEY_LENGTH, LIMIT_LENGTH = 255, 64
"""The longest key and name of a limit, in characters."""
_DIGITS = len(str(MAX_USED))
_TEXT = re.compile(r"text|character varying(?:\((\d+)\))?")
_NUMERIC = re.compile(r"numeric(?:\((\d+),(-?\d+)\))?")
_WHOLE = ("bigint", "double precision")
_SMALL = ("smallint", "integer")


def for_text(kind: str, length: int) -> bool:
    """Whether a column holds any text of that many characters."""
    found = _TEXT.fullmatch(kind)
    return found is not None and int(found[1] or length) >= length


def for_numbers(kind: str) -> bool:
    """Whether a column holds all counts and times."""
    if found := _NUMERIC.fullmatch(kind):
        return found[1] is None or (int(found[2]) >= 0 and int(found[1]) - int(found[2]) >= _DIGITS)
    return kind in _WHOLE or for_text(kind, _DIGITS)


def for_a_flag(kind: str) -> bool:
    """Whether a column holds 0 and 1, as numbers."""
    return kind in _SMALL or for_text(kind, 1) or kind in _WHOLE or kind.startswith("numeric")
