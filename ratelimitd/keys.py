"""The API of key plugins: what a key is, how every key is normalised, and the built-in key plugins.

A key plugin is a factory: it takes options and gives a function of the request. The built-in plugins are registered in
pyproject.toml exactly as a third party's would be; but their names are theirs, whoever else registers one.

>>> from ratelimitd.keys import KeyFunction, OptionError, only
>>> from ratelimitd.testing import check_key, request
>>> def helo(options):
...     only(options, "begins")
...     begins = options.get("begins", "")
...     if not isinstance(begins, str):
...         raise OptionError("begins", begins, "a text")
...
...     def key(request):
...         return request["helo_name"] if request["client_address"].startswith(begins) else None
...
...     return key
>>> check_key(helo, {"begins": "192.0.2."}, request(helo_name="MX1"), request(client_address="203.0.113.7"))
['mx1', None]
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ratelimitd.errors import UNKNOWN as _UNKNOWN
from ratelimitd.errors import shown as _shown
from ratelimitd.request import Request
from ratelimitd.text import MAX_BYTES as _MAX_BYTES
from ratelimitd.text import lower as _lower
from ratelimitd.text import shorten as _shorten

__all__ = ["KeyFactory", "KeyFunction", "OptionError", "domain", "email", "everybody", "normalise", "of_login", "only"]

EVERYBODY = "all"
"""The one key of the key plugin `all`."""


class KeyFunction(Protocol):
    """Gives the key that a request is counted under, or None: the limit does not apply to the request.

    Called once for each request and each limit that uses it, at RCPT, DATA and END-OF-MESSAGE. The key is kept for that
    request alone, unless the function is declared `of_login`. `request["client_address"]` is the value of an attribute,
    "" where Postfix sent none; `request.login` is the SASL login without blanks around its parts, with
    `keys.default_domain` added to a bare one, and a domain that is not in `keys.domains`, where these are set, cut off.
    With `keys.ascii` what is not in ASCII is `?`.

    >>> from ratelimitd.testing import request
    >>> key: KeyFunction = lambda request: request["client_address"] or None
    >>> key(request(client_address="192.0.2.7"))
    '192.0.2.7'

    The key is a `str`, not blank, without LF and NUL. It is normalised afterwards (see `normalise`): there is no need
    to strip it or to make it lower case. Two requests with the same attributes have the same key.

    All mail waits while it runs: it computes, in microseconds. No I/O, no name lookup, no sleep, no lock, no task or
    thread, nothing kept that grows with what clients send. Files are read by the factory.

    Where it raises or gives anything else, its limit alone is answered with `server.failure_action`; the log has a line
    a minute about it, as about calls of more than 10 ms.
    """

    def __call__(self, request: Request, /) -> str | None:
        """The key of a request."""
        ...


class KeyFactory(Protocol):
    """Makes the key function; an entry point of the group `ratelimitd.keys` names it.

    Called at the start, at each reload and by `--check`, once for each limit that uses the plugin. `options` is the
    table `[keys.NAME]` exactly as TOML has it, {} where there is none. It may read files. After a reload the new
    function is called and the old one is dropped.

    It checks all options, unknown ones included, and raises OptionError for the first that is wrong. Then nothing
    starts, or the reload changes nothing, and the administrator reads the path, what was found and what is allowed.

    >>> from ratelimitd.testing import request
    >>> def attribute(options):
    ...     only(options, "name")
    ...     name = options.get("name", "client_address")
    ...     if name not in ("client_address", "client_name"):
    ...         raise OptionError("name", name, '"client_address" or "client_name"')
    ...     return lambda request: request[name] or None
    >>> attribute({"name": "client_name"})(request(client_name="mx.example.com"))
    'mx.example.com'
    >>> attribute({"name": 5})
    Traceback (most recent call last):
    ratelimitd.keys.OptionError: name: found 5; allowed: "client_address" or "client_name"
    """

    def __call__(self, options: Mapping[str, Any], /) -> KeyFunction:
        """The key function for these options. Raises OptionError, or any ValueError."""
        ...


class OptionError(ValueError):
    """An option of a key plugin is wrong: its name, what was found (any TOML value), what is allowed.

    >>> str(OptionError("prefix", 40, "a whole number from 0 to 32"))
    'prefix: found 40; allowed: a whole number from 0 to 32'
    """

    def __init__(self, option: str, found: object, allowed: str) -> None:
        super().__init__(option, found, allowed)
        self.option = option
        self.found = found
        self.allowed = allowed

    def __str__(self) -> str:
        return f"{self.option}: found {_shown(self.found)}; allowed: {self.allowed}"


def of_login(function: Callable[[Request], str | None]) -> KeyFunction:
    """Declare that the key depends on `request.login` and nothing else; may be used as a decorator.

    Such a function is not called again for a login that has sent recently: its account is known.

    >>> from ratelimitd.testing import request
    >>> @of_login
    ... def local_part(request):
    ...     return request.login.partition("@")[0] or None
    >>> local_part(request(sasl_username="alice@example.com"))
    'alice'
    """

    def of_the_login(request: Request) -> str | None:
        return function(request)

    of_the_login.of_login = True  # type: ignore[attr-defined]  # set on a wrapper: a bound method takes no attributes
    return of_the_login


def only(options: Mapping[str, Any], *names: str) -> None:
    """Raise OptionError for the first option that has none of these names.

    >>> only({"prefix": 24}, "prefix", "networks")
    >>> only({"prefx": 24}, "prefix", "networks")
    Traceback (most recent call last):
    ratelimitd.keys.OptionError: prefx: found an unknown option; allowed: prefix, networks
    """
    for name in options:
        if name not in names:
            raise OptionError(name, _UNKNOWN, ", ".join(names) or "none: this plugin has no options")


def normalise(key: str, lowercase: bool = True) -> str:
    """The one form of a key that memory and every database use; "" for a blank one.

    Outer blanks are stripped, ASCII letters become lower case where `lowercase` is true (`keys.lowercase`), and a key
    of more than 255 bytes in UTF-8 becomes a prefix and a hash.

    >>> normalise(" Alice@Example.COM ")
    'alice@example.com'
    >>> len(normalise("x" * 9000))
    255
    """
    key = key.strip(" \t")
    if lowercase:
        key = _lower(key)
    if key.isascii():
        return key if len(key) <= _MAX_BYTES else _shorten(key)
    return key if len(key.encode()) <= _MAX_BYTES else _shorten(key)


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


def everybody(options: Mapping[str, Any]) -> KeyFunction:
    """Key plugin `all`: one key, "all", for everybody who has logged in. No options.

    Unauthenticated mail is not counted.

    >>> from ratelimitd.testing import check_key, request
    >>> check_key(everybody, {}, request(sasl_username="alice"), request(sasl_username=""))
    ['all', None]
    """
    only(options)
    return of_login(lambda request: EVERYBODY if request.login else None)
