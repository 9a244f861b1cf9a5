"""What ratelimitd.testing gives to the authors of plugins, and what it finds in theirs."""

import itertools
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from ratelimitd.keys import KeyFunction, OptionError, domain, email, of_login, only
from ratelimitd.request import Request
from ratelimitd.testing import ATTRIBUTES, check_key, request

Function = Callable[[Request], Any]


def factory(function: Function) -> Callable[[Mapping[str, Any]], KeyFunction]:
    def made(options: Mapping[str, Any]) -> KeyFunction:
        only(options)
        return function

    return made


def test_a_request_has_postfix_s_attributes_and_those_given() -> None:
    asked = request(client_address="2001:db8::1", recipient_count=3)
    assert asked.attributes == {**ATTRIBUTES, "client_address": "2001:db8::1", "recipient_count": "3"}
    assert asked["no_such"] == ""
    assert request(sasl_username="alice", default_domain="example.com").login == "alice@example.com"


def test_an_attribute_that_postfix_does_not_send_is_refused() -> None:
    with pytest.raises(TypeError, match="sasl_user: Postfix sends no such attribute"):
        request(sasl_user="alice")


@pytest.mark.parametrize("value", ["a\nb", "a\0b"])
def test_a_value_that_postfix_cannot_send_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="sender: Postfix sends no LF and no NUL"):
        request(sender=value)


@pytest.mark.parametrize("built_in", [email, domain])
def test_the_built_in_plugins_keep_the_contract(built_in: Callable[[Mapping[str, Any]], KeyFunction]) -> None:
    check_key(built_in)


def test_the_keys_of_the_requests_given_are_returned_normalised() -> None:
    assert check_key(email, {}, request(sasl_username="Bob"), request(sasl_username="")) == ["bob", None]


def look_up(_: Request) -> str:
    return str(socket.getaddrinfo("127.0.0.1", 25)[0][0])


def read(_: Request) -> str:
    return Path("/etc/passwd").read_text()[:1]


def sleep(_: Request) -> str:
    time.sleep(0.011)
    return "key"


async def later(_: Request) -> str:
    return "key"


counter = itertools.count()


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda r: 5, "gave no key but an object of type int"),
        (lambda r: "", "gave an empty key"),
        (lambda r: r["sasl_username"].split("@")[1], "raised IndexError"),
        (lambda r: "x" * 1_000_000, "gave no key but 1000000 characters"),
        (lambda r: f"key{next(counter)}", "one request has several keys"),
        (look_up, r"does I/O \(socket\."),
        (read, r"does I/O \(open"),
        (sleep, "takes more than 10 ms"),
        (later, "the key function is async"),
        (None, "the factory gives an object of type NoneType"),
    ],
)
def test_a_function_that_breaks_the_contract_is_found(function: Function, why: str) -> None:
    with pytest.raises(AssertionError, match=why):
        check_key(factory(function))


def test_a_function_that_says_of_login_and_uses_more_is_found() -> None:
    with pytest.raises(AssertionError, match="declared of_login, but uses more than the login"):
        check_key(factory(of_login(lambda r: r.login + r["client_address"] or None)))


@pytest.mark.parametrize(("function", "why"), [(sleep, "takes more"), (lambda r: f"key{next(counter)}", "several")])
def test_what_a_function_that_says_of_login_does_wrong_is_found(function: Function, why: str) -> None:
    with pytest.raises(AssertionError, match=why):
        check_key(factory(of_login(lambda r: function(r))))


def test_a_factory_that_takes_any_option_is_found() -> None:
    with pytest.raises(AssertionError, match=r"an unknown option is not refused by its name \(no error\)"):
        check_key(lambda options: lambda r: None)


def test_a_factory_that_does_not_name_the_unknown_option_is_found() -> None:
    def grumpy(options: Mapping[str, Any]) -> KeyFunction:
        if options:
            raise ValueError("no")
        return lambda r: None

    with pytest.raises(AssertionError, match=r"not refused by its name \(no\)"):
        check_key(grumpy)


def test_a_factory_that_changes_its_options_is_found() -> None:
    def greedy(options: Any) -> KeyFunction:
        options.pop("a", None)
        only(options)
        return lambda r: None

    with pytest.raises(AssertionError, match="changes its options"):
        check_key(greedy, {"a": 1})


def test_a_module_that_the_function_imports_is_no_io() -> None:
    check_key(factory(lambda r: "exämple.com".encode("idna").decode()))


def test_an_option_error_says_what_was_found() -> None:
    found: list[tuple[object, str]] = [("x", '"x"'), (True, "true"), (3, "3"), ([], "a list"), ({}, "a table")]
    for value, text in [*found, (None, "nothing")]:
        assert str(OptionError("colour", value, "blue")) == f"colour: found {text}; allowed: blue"
