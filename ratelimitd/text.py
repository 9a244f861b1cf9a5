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
# What `read` makes of a byte, in any case of letters (keys are in lower case), and what `spell` makes of a character.
_LIKE_A_BYTE = re.compile(r"(?<!\\)\\++(?=[xX](?:00|[89a-fA-F][0-9a-fA-F])|[\0\udc80-\udcff])")
_LIKE_A_CHARACTER = re.compile(r"x[0-7][0-9a-f]|u[0-9a-f]{4}|U[0-9a-f]{8}")
_SPELLED = re.compile(r"(?<!\\)(\\++)(x[0-7][0-9a-f]|u[0-9a-f]{4}|U[0-9a-f]{8})")
_RUN_AND_NEXT = re.compile(r"(\\*+)([^\\]?)", re.DOTALL)
_LAST, _SURROGATES = 0x10FFFF, range(0xD800, 0xE000)
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def lower(text: str) -> str:
    """The text with its ASCII letters in lower case, and no others: where names are compared, `K` is not U+212A."""
    return text.lower() if text.isascii() else text.translate(_LOWER)


def escape(text: str) -> str:
    """The text with all that is not printable (controls, line ends, bidi marks) as Python escapes."""
    if text.isprintable():
        return text
    return "".join([c if c.isprintable() else c.encode("unicode_escape").decode() for c in text])


def read(data: bytes) -> str:
    """The text of a client's bytes: what is not UTF-8, and NUL, as `\\xNN`.

    No two are read alike: backslashes that stand before such an escape, or before a text that looks like one, are
    doubled. All others stay: `DOMAIN\\user` is itself.
    """
    text = data.decode("utf-8", "backslashreplace")
    if "\\" not in text and "\0" not in text:  # as a rule
        return text
    text = _LIKE_A_BYTE.sub(lambda run: run[0] * 2, data.decode("utf-8", "surrogateescape"))
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace").replace("\0", "\\x00")


def spell(text: str, but: str = "") -> str:
    """The text in printable characters, and none of `but`: the others as escapes. No two texts are spelled alike.

    As in `read`, backslashes before an escape are doubled; its own escapes are none of `spell`, and stay.
    """
    if text.isprintable() and "\\" not in text and not any(c in text for c in but):
        return text

    def spelled(found: re.Match[str]) -> str:
        run, char = found.groups()
        if char and (not char.isprintable() or char in but):
            return run * 2 + _code(ord(char))
        return (run * 2 if run and _LIKE_A_CHARACTER.match(text, found.end(1)) else run) + char

    return _RUN_AND_NEXT.sub(spelled, text)


def unspelled(text: str) -> str:
    """The text that `spell` has spelled so."""

    def read(found: re.Match[str]) -> str:
        run, code = found.groups()
        point, slashes = int(code[1:], 16), "\\" * (len(run) // 2)
        if len(run) % 2 == 0:
            return slashes + code
        return slashes + chr(point) if point <= _LAST and point not in _SURROGATES else found[0]

    return _SPELLED.sub(read, text)


def _code(point: int) -> str:
    return f"\\x{point:02x}" if point < 0x80 else f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"


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
