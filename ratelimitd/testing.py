"""For the tests of key plugins: requests as Postfix sends them, and a check that a plugin keeps the contract.

The contract itself is the docstrings of KeyFactory and KeyFunction in ratelimitd.keys.
"""

import copy
import inspect
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ratelimitd.core.limits import KeyFailed, KeyHealth
from ratelimitd.keys import KeyFactory, KeyFunction
from ratelimitd.plugins import SLOW_S, normalised
from ratelimitd.request import POLICY_REQUEST, Request

__all__ = ["ATTRIBUTES", "REQUESTS", "check_key", "request"]

ATTRIBUTES: Mapping[str, str] = {
    "request": POLICY_REQUEST,
    "protocol_state": "RCPT",
    "protocol_name": "ESMTP",
    "client_address": "192.0.2.1",
    "client_name": "client.example.net",
    "client_port": "49152",
    "reverse_client_name": "client.example.net",
    "server_address": "203.0.113.25",
    "server_port": "587",
    "helo_name": "laptop.example.net",
    "sender": "alice@example.com",
    "recipient": "someone@example.org",
    "recipient_count": "0",
    "queue_id": "",
    "instance": "4b1f.6a3d2c10.a3b50.0",
    "size": "1234",
    "etrn_domain": "",
    "stress": "",
    "sasl_method": "PLAIN",
    "sasl_username": "alice@example.com",
    "sasl_sender": "",
    "ccert_subject": "",
    "ccert_issuer": "",
    "ccert_fingerprint": "",
    "ccert_pubkey_fingerprint": "",
    "encryption_protocol": "TLSv1.3",
    "encryption_cipher": "TLS_AES_256_GCM_SHA384",
    "encryption_keysize": "256",
    "policy_context": "",
    "compatibility_level": "3.6",
    "mail_version": "3.7.11",
}
"""A request at RCPT, of a client that is logged in (SMTPD_POLICY_README, "Protocol description")."""

_TIMES = 5
_EVENTS = ("open", "socket.", "subprocess.", "os.system", "os.exec", "os.fork", "sqlite3.connect")
_heard: list[str] | None = None


def request(*, default_domain: str = "", domains: Iterable[str] = (), **attributes: str | int) -> Request:
    """A request with these attributes, the others as in ATTRIBUTES; `default_domain`, `domains`: those of `[keys]`.

    Raises TypeError for an attribute that Postfix does not send, ValueError for a value that it cannot send.

    >>> request(sasl_username="bob", default_domain="example.com").login
    'bob@example.com'
    >>> request(sasl_username="bob@no.such.domain", domains=["example.com"]).login
    'bob'
    """
    for name, value in attributes.items():
        if name not in ATTRIBUTES:
            raise TypeError(f"{name}: Postfix sends no such attribute")
        if "\n" in str(value) or "\0" in str(value):
            raise ValueError(f"{name}: Postfix sends no LF and no NUL")
    values = {**ATTRIBUTES, **attributes}
    return Request.of("\n".join(f"{name}={value}" for name, value in values.items()), default_domain, domains)


REQUESTS: tuple[Request, ...] = (
    request(),
    request(protocol_state="DATA", recipient="", recipient_count=3, queue_id="4XyZ"),
    request(protocol_state="END-OF-MESSAGE", recipient="", recipient_count=3, queue_id="4XyZ", size=99),
    request(sasl_username="", sasl_method=""),
    request(sasl_username="alice"),
    request(sasl_username="alice", default_domain="example.com"),
    request(sasl_username=" ALICE@Example.COM "),
    request(sasl_username="alice@no.such.domain", domains=["example.com"]),
    request(sasl_username="@"),
    request(sasl_username="a@b@"),
    request(sasl_username="x" * 8900 + "@example.com"),
    request(sasl_username="a=b\u2028sasl_username=eve@example.com", sender="%s%n", helo_name="\x1b[2J\u202e"),
    request(sasl_username="alicé@exämple.com", sender="\\xff@example.com"),
    request(sender="", recipient="", client_name="unknown", reverse_client_name="unknown"),
    request(sender='"a b"@c@example.com.', recipient="postmaster"),
    request(client_address="2001:db8::1", server_address="2001:db8::25"),
    request(client_address="::ffff:192.0.2.1"),
    request(client_address="unknown", client_port="0"),
    Request.of(""),
)
"""Requests that every plugin must answer: ordinary ones, and those that a hostile client can cause."""


def check_key(factory: KeyFactory, options: Mapping[str, Any] | None = None, *requests: Request) -> list[str | None]:
    """Check that a key plugin keeps the contract with these options; the normalised keys of `requests`.

    Raises AssertionError, which says what is wrong. The function is called with each of REQUESTS, too.

    >>> from ratelimitd.keys import domain, only
    >>> check_key(domain, {}, request(sasl_username="Bob@Example.com"), request(sasl_username="bob"))
    ['example.com', None]
    >>> check_key(lambda options: only(options) or (lambda request: ""))
    Traceback (most recent call last):
    AssertionError: key plugin under test gave an empty key, for ...
    """
    options = dict(options or {})
    before = copy.deepcopy(options)
    function, again = _function(factory, options), _function(factory, options)
    assert options == before, f"the factory changes its options: {before} to {options}"
    _check_unknown(factory, options)
    for asked in REQUESTS:
        _check_request(function, again, asked)
    return [_check_request(function, again, asked) for asked in requests]


def _function(factory: KeyFactory, options: Mapping[str, Any]) -> KeyFunction:
    function = factory(options)
    assert callable(function), f"the factory gives an object of type {type(function).__name__}, not a function"
    assert not inspect.iscoroutinefunction(function), "the key function is async; it must be an ordinary one"
    return function


def _check_unknown(factory: KeyFactory, options: Mapping[str, Any]) -> None:
    text = "no error"
    try:
        factory({**options, "no_such_option": 1})
    except ValueError as error:
        text = str(error)
    wanted = "raise OptionError, or call ratelimitd.keys.only"
    assert "no_such_option" in text, f"an unknown option is not refused by its name ({text}): {wanted}"


def _check_request(function: KeyFunction, again: KeyFunction, asked: Request) -> str | None:
    health = KeyHealth()
    key_of = normalised("under test", function, True, health, time.perf_counter)
    with _listening() as heard:
        try:
            keys = {key_of(asked) for _ in range(_TIMES)} | {normalised("under test", again, True)(asked)}
        except KeyFailed as error:
            raise AssertionError(f"{error}, for {asked}") from error
    assert not heard, f"the key function does I/O ({', '.join(heard)}), for {asked}"
    assert health.slow < _TIMES, f"the key function takes more than {SLOW_S * 1000:.0f} ms, for {asked}"
    assert len(keys) == 1, f"one request has several keys ({', '.join(sorted(map(str, keys)))}): {asked}"
    if getattr(function, "of_login", False):
        alone = Request.under(asked.rules, f"sasl_username={asked['sasl_username']}")
        assert {key_of(alone)} == keys, f"the key function is declared of_login, but uses more than the login: {asked}"
    return keys.pop()


@contextmanager
def _listening() -> Iterator[list[str]]:
    """The names of the I/O that is done inside; modules that are imported do not count."""
    global _heard
    if _heard is None:
        sys.addaudithook(_hear)  # for good: an audit hook cannot be removed
    heard: list[str] = []
    _heard = heard
    try:
        yield heard
    finally:
        _heard = []


def _hear(event: str, arguments: tuple[Any, ...]) -> None:  # pragma: no cover: the interpreter does not trace it
    if _heard is not None and event.startswith(_EVENTS):
        module = event == "open" and str(arguments[0]).endswith((".py", ".pyc", ".so"))
        if not module and event not in _heard:
            _heard.append(event)
