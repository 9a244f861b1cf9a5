"""Text of clients and administrators as it is kept and shown: escaped, cut, shortened."""

import hashlib

MAX_BYTES = 255
"""The width of the database's column: one longer key would lose the whole batch it is in."""
MAX_FIELD = 512
"""Characters of one field of a log line, where the whole is long."""

_HASH_DIGITS = 32


def escape(text: str) -> str:
    """The text with whatever is not printable (controls, line ends, bidi marks) as a Python escape."""
    if text.isprintable():
        return text
    return "".join([c if c.isprintable() else c.encode("unicode_escape").decode() for c in text])


def cut(text: str, length: int = MAX_FIELD) -> str:
    """The beginning of a text that is too long, and how long it was; `length` in characters."""
    return text if len(text) <= length else f"{text[:length]}... ({len(text)} characters)"


def shorten(text: str) -> str:
    """A prefix of a text and a hash of the whole, MAX_BYTES long in UTF-8."""
    whole = text.encode()
    digest = hashlib.sha256(whole).hexdigest()[:_HASH_DIGITS]
    return whole[: MAX_BYTES - 1 - _HASH_DIGITS].decode(errors="ignore") + "~" + digest
