"""Values of a server's answers, one by one. What a row of them means is known to core/rows.py."""

from collections.abc import Sequence

from ratelimitd.errors import StoreError


def text(value: object) -> object:
    """A name that was read as bytes, with surrogates for what is not UTF-8."""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def whole(values: Sequence[object]) -> int:
    """The one number that a server was asked for. Raises StoreError."""
    try:
        (value,) = values
        return int(str(value))
    except ValueError as error:
        raise StoreError("the server's answer makes no sense") from error
