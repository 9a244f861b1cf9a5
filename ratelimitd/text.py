"""Texts of clients and administrators, made fit to be stored and shown: escaped, cut, shortened."""

import hashlib
import string

MAX_BYTES = 255
"""The width of the database's column, in bytes: a longer key would fail the whole statement that it is in."""
MAX_FIELD = 512
"""How many characters of a field a long log line shows."""

_HASH_DIGITS = 32
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def lower(text: str) -> str:
    """The text with its ASCII letters in lower case, and no others: where names are compared, `K` is not U+212A."""
    return text.lower() if text.isascii() else text.translate(_LOWER)


def escape(text: str) -> str:
    """The text with all that is not printable (controls, line ends, bidi marks) as Python escapes."""
    if text.isprintable():
        return text
    return "".join([c if c.isprintable() else c.encode("unicode_escape").decode() for c in text])


def cut(text: str, length: int = MAX_FIELD) -> str:
    """The text; of one longer than `length` characters the beginning, and how long it was."""
    return text if len(text) <= length else f"{text[:length]}... ({len(text)} characters)"


def shorten(text: str) -> str:
    """A prefix of a text and a hash of the whole, together at most MAX_BYTES long in UTF-8."""
    whole = text.encode()
    digest = hashlib.sha256(whole).hexdigest()[:_HASH_DIGITS]
    return whole[: MAX_BYTES - 1 - _HASH_DIGITS].decode(errors="ignore") + "~" + digest
