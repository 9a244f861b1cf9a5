"""Values of PostgreSQL's answers, by their types; a row that is one JSON array is that row.

Nothing nested is read, however deep: a column of ours that somebody made JSON has one value more that is no number.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

_BOOL, JSON = 16, 114
_WHOLE = (20, 21, 23)
_SHOWN = 80
"""Bytes that are kept of a value that is none."""

_Scalar = str | int | float | bool | None
_scalar = msgspec.json.Decoder(_Scalar).decode
_scalars = msgspec.json.Decoder(list[_Scalar]).decode
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{},]|[^\[\]{},"]+', re.DOTALL)


def row(data: bytes) -> list[Any]:
    """The values of a row. Raises ValueError for what is no array."""
    try:
        return _scalars(data)
    except msgspec.ValidationError:  # one of them is nested, or beyond all numbers
        return _one_by_one(data)


def _one_by_one(data: bytes) -> list[Any]:
    values: list[Any] = []
    depth = begin = 0
    for token in _TOKEN.finditer(data):
        sign = token[0]
        if depth == 1 and sign in (b",", b"]"):
            values.append(_value(data[begin : token.start()]))
            begin = token.end()
        if sign in (b"[", b"{"):
            depth += 1
            begin = token.end() if depth == 1 else begin
        elif sign in (b"]", b"}"):
            depth -= 1
    return values


def _value(data: bytes) -> Any:
    """A value, or the beginning of its text."""
    try:
        return _scalar(data)
    except msgspec.DecodeError:
        return data.strip()[:_SHOWN].decode("utf-8", "replace")


READERS: Mapping[int, Callable[[bytes], Any]] = {
    JSON: row,
    _BOOL: lambda value: value == b"t",
    **dict.fromkeys(_WHOLE, int),
}
"""How a value is read, by its type; what is not here is a text."""
