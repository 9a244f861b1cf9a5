"""What a key is, how every key is normalised, and the two built-in key plugins.

A key plugin is a factory of options to a function of the request; the built-in ones are registered in our
pyproject.toml exactly as a third party's would be, and nothing here or elsewhere treats them otherwise.
"""

import string
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ratelimitd.errors import UNKNOWN, shown
from ratelimitd.request import Request
from ratelimitd.text import MAX_BYTES, shorten


class KeyFunction(Protocol):
    """Gives the key that a request is counted under, or None: the limit does not apply to it.

    Called once for each request and limit that uses it, at RCPT, DATA and END-OF-MESSAGE; what it gives is kept for
    that request alone, unless it is declared `of_login`. `request["client_address"]` is an attribute's value, "" where
    Postfix sent none; `request.login` is the SASL login without outer blanks, with `keys.default_domain` added to a
    bare one.

    The key is a `str`, not blank, without LF and NUL; it is normalised afterwards (see `normalise`), so there is no
    need to lower or strip it. Two requests with the same attributes have the same key.

    All mail waits while it runs: it computes, in microseconds. No I/O, no lookup of names, no sleep, no lock, no
    task or thread, nothing kept that grows with what clients send. What is to be read is read by the factory.

    Where it raises or gives anything else, its limit alone is answered with `server.failure_action`; that is logged
    once a minute, as are calls of more than 10 ms.
    """

    def __call__(self, request: Request, /) -> str | None:
        """The key of a request."""
        ...


class KeyFactory(Protocol):
    """Makes the key function; this is what an entry point of the group `ratelimitd.keys` names.

    Called at the start, at each reload and by `--check`, once for each limit that uses the plugin. `options` is
    exactly the table `[keys.NAME]` as TOML has it, {} where there is none. It checks all of them, unknown ones
    included, and raises OptionError for the first that is wrong: nothing starts, or the reload changes nothing, and
    the administrator reads the path, what was found and what is allowed. It may read files. After a reload
    the new function is asked and the old one is dropped.
    """

    def __call__(self, options: Mapping[str, Any], /) -> KeyFunction:
        """The key function for these options. Raises OptionError, or any ValueError."""
        ...


class OptionError(ValueError):
    """An option of a key plugin is wrong: its name, what was found (any TOML value), what is allowed."""

    def __init__(self, option: str, found: object, allowed: str) -> None:
        super().__init__(option, found, allowed)
        self.option = option
        self.found = found
        self.allowed = allowed

    def __str__(self) -> str:
        return f"{self.option}: found {shown(self.found)}; allowed: {self.allowed}"


def of_login(function: Callable[[Request], str | None]) -> KeyFunction:
    """Declare that the key depends on `request.login` and nothing else; may be used as a decorator.

    Such a function is not called again for a login that has sent of late: its account is known.
    """

    def of_the_login(request: Request) -> str | None:
        return function(request)

    of_the_login.of_login = True  # type: ignore[attr-defined]  # a method, say, has no room for it
    return of_the_login


def only(options: Mapping[str, Any], *names: str) -> None:
    """Raise OptionError for the first option that has none of these names."""
    for name in options:
        if name not in names:
            raise OptionError(name, UNKNOWN, ", ".join(names) or "none: this plugin has no options")


_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def normalise(key: str, lowercase: bool = True) -> str:
    """The one form of a key that memory and every database use; "" for a blank one.

    Outer blanks go, ASCII letters become lower case, and beyond 255 bytes (UTF-8) the key is a prefix and a hash.
    """
    key = key.strip(" \t")
    if key.isascii():
        if lowercase:
            key = key.lower()
        return key if len(key) <= MAX_BYTES else shorten(key)
    if lowercase:
        key = key.translate(_LOWER)
    return key if len(key.encode()) <= MAX_BYTES else shorten(key)


def email(options: Mapping[str, Any]) -> KeyFunction:
    """Key plugin `email`: the SASL login, whole. No options. Unauthenticated mail is not counted."""
    only(options)
    return of_login(lambda request: request.login or None)


def domain(options: Mapping[str, Any]) -> KeyFunction:
    """Key plugin `domain`: the part of the SASL login after the last @. No options.

    A bare login has no key, rather than one that all bare logins would share.
    """
    only(options)

    @of_login
    def domain_of(request: Request) -> str | None:
        _, at, name = request.login.rpartition("@")
        return name if at and name else None

    return domain_of
