"""What a key is, how every key is normalised, and the two built-in key plugins.

A key plugin is a factory of options to a function of the request; the built-in ones are registered in our
pyproject.toml exactly as a third party's would be, and nothing here or elsewhere treats them otherwise.
"""

import hashlib
import string
from collections.abc import Callable, Mapping
from typing import Any

from ratelimitd.request import Request

KeyFunction = Callable[[Request], str | None]
"""Gives the key that a request is counted under, or None: the limit does not apply to it."""

KeyFactory = Callable[[Mapping[str, Any]], KeyFunction]
"""Makes a KeyFunction of the table `[keys.NAME]`; raises ValueError that says which option is wrong."""

MAX_BYTES = 255
"""The width of the database's column: one longer key would lose the whole batch it is in."""

_HASH_DIGITS = 32
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def normalise(key: str, lowercase: bool = True) -> str:
    """The one form of a key that memory and every database use; "" for a blank one.

    Outer blanks go, ASCII letters become lower case, and beyond 255 bytes (UTF-8) the key is a prefix and a hash.
    """
    key = key.strip(" \t")
    if key.isascii():
        if lowercase:
            key = key.lower()
        return key if len(key) <= MAX_BYTES else _shorten(key)
    if lowercase:
        key = key.translate(_LOWER)
    return key if len(key.encode()) <= MAX_BYTES else _shorten(key)


def _shorten(key: str) -> str:
    whole = key.encode()
    digest = hashlib.sha256(whole).hexdigest()[:_HASH_DIGITS]
    return whole[: MAX_BYTES - 1 - _HASH_DIGITS].decode(errors="ignore") + "~" + digest


def email(options: Mapping[str, Any]) -> KeyFunction:
    """Key plugin `email`: the SASL login, whole. No options. Unauthenticated mail is not counted."""
    _no_options(options)
    return lambda request: request.login or None


def domain(options: Mapping[str, Any]) -> KeyFunction:
    """Key plugin `domain`: the part of the SASL login after the last @. No options.

    A bare login has no key, rather than one that all bare logins would share.
    """
    _no_options(options)

    def domain_of(request: Request) -> str | None:
        _, at, name = request.login.rpartition("@")
        return name if at and name else None

    return domain_of


def _no_options(options: Mapping[str, Any]) -> None:
    for name in options:
        raise ValueError(f"{name}: there is no such option; this plugin has none")
