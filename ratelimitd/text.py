"""Texts of clients and administrators, made fit to be stored and shown: escaped, cut, shortened."""

import hashlib
import re
import string

MAX_BYTES = 255
"""The width of the database's column, in bytes: a longer key would fail the whole statement that it is in."""
MAX_FIELD = 512
"""How many characters of a field a long log line shows."""

_HASH_DIGITS = 32
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)(.*)", re.DOTALL)
_HOST = re.compile(
    r"(?P<user>[^/?#@]*@)?(?P<host>(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]+)?)(?P<more>$|[/?#].*)", re.DOTALL
)
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def lower(text: str) -> str:
    """The text with its ASCII letters in lower case, and no others: where names are compared, `K` is not U+212A."""
    return text.lower() if text.isascii() else text.translate(_LOWER)


def escape(text: str) -> str:
    """The text with all that is not printable (controls, line ends, bidi marks) as Python escapes."""
    if text.isprintable():
        return text
    return "".join([c if c.isprintable() else c.encode("unicode_escape").decode() for c in text])


def counted(number: int, thing: str) -> str:
    """How many of a thing there are, for people; what the thing is begins with its noun.

    >>> counted(1, "row"), counted(1003, "connection closed")
    ('1 row', '1,003 connections closed')
    """
    noun, blank, rest = thing.partition(" ")
    return f"{number:,} {noun}{'' if number == 1 else 's'}{blank}{rest}"


def cut(text: str, length: int = MAX_FIELD) -> str:
    """The text; of one longer than `length` characters the beginning, and how long it was."""
    return text if len(text) <= length else f"{text[:length]}... ({len(text)} characters)"


def shorten(text: str) -> str:
    """A prefix of a text and a hash of the whole, together at most MAX_BYTES long in UTF-8."""
    whole = text.encode()
    digest = hashlib.sha256(whole).hexdigest()[:_HASH_DIGITS]
    return whole[: MAX_BYTES - 1 - _HASH_DIGITS].decode(errors="ignore") + "~" + digest


def public(text: str) -> str:
    """The text; of a URL in it, scheme and host alone: user, password, path and query may be secrets.

    What follows the URL is left out, too. Where it is not certain which part is the host, so is the host.

    >>> public("https://user:password@hooks.example.com/services/TOKEN?key=1")
    'https://hooks.example.com/...'
    """
    url = _URL.search(text)
    if url is None or not url[2]:
        return text
    before, rest = text[: url.end(1)], url[2]
    found = _HOST.fullmatch(rest)
    if found is None or "@" in found["more"]:
        return before + "..."
    return text if not found["user"] and found["more"] in ("", "/") else f"{before}{found['host']}/..."
