"""Key plugins: loaded from what is installed, and kept from doing harm."""

import sys
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from ratelimitd.core.limits import KeyFailed
from ratelimitd.errors import ConfigError
from ratelimitd.keys import KeyFunction
from ratelimitd.plugins import BUILT_IN, MAX_KEY_CHARACTERS, installed, load, normalised
from ratelimitd.request import Request

MODULE = """
import collections

def factory(options):
    prefix = options.get("prefix", "")
    if not isinstance(prefix, str):
        raise ValueError("prefix: a text")
    return lambda request: prefix + request["client_address"]

def raises(options):
    raise RuntimeError("no\\n  such thing")

def nothing(options):
    return None

constant = 5

def keyed(options):
    from ratelimitd.keys import OptionError, only
    only(options, "token")
    raise OptionError("token", options.get("token"), "a text of 32 letters")
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a distribution for this test: `install("name", entry_point="module:attribute", ...)`."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(distribution: str, source: str = MODULE, **points: str) -> None:
        module = distribution.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        lines = "".join(f"{name} = {value}\n" for name, value in points.items())
        (info / "entry_points.txt").write_text(f"[ratelimitd.keys]\n{lines}")
        monkeypatch.delitem(sys.modules, module, raising=False)

    return make


def failure(name: str, options: Mapping[str, Any] | None = None) -> ConfigError:
    with pytest.raises(ConfigError) as raised:
        load(name, options or {}, "limit[0].key")
    assert str(raised.value).isprintable()
    return raised.value


def test_the_built_in_keys_are_found_as_everyone_s_are() -> None:
    assert {"email", "domain"} <= set(installed())
    assert load("email", {}, "limit[0].key")(Request.of("sasl_username=alice")) == "alice"


def test_the_built_in_keys_are_those_that_are_registered() -> None:
    ours = {name: point.load() for name in BUILT_IN for point in installed()[name]}
    assert ours == BUILT_IN


def test_a_built_in_key_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ratelimitd.plugins.metadata.entry_points", lambda group: ())
    monkeypatch.setattr("ratelimitd.plugins._seen", {})
    assert load("email", {}, "limit[0].key")(Request.of("sasl_username=alice")) == "alice"
    assert str(failure("address")) == 'limit[0].key: found "address"; allowed: no key plugin is installed'


def test_what_root_has_found_is_found_again_where_the_daemons_user_may_not_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = installed()
    assert "email" in before
    monkeypatch.setattr("ratelimitd.plugins.metadata.entry_points", lambda group: ())
    assert installed() == before
    other = EntryPoint("other", "elsewhere:other", "ratelimitd.keys")
    monkeypatch.setattr("ratelimitd.plugins.metadata.entry_points", lambda group: (other,))
    assert installed() == {**before, "other": [other]}


def test_a_plugin_that_is_installed_is_loaded_with_its_options(install: Install) -> None:
    install("stranger-key", address="stranger_key:factory")
    function = load("address", {"prefix": "ip:"}, "limit[0].key")
    assert function(Request.of("client_address=192.0.2.1")) == "ip:192.0.2.1"


def test_an_unknown_plugin_is_answered_with_those_that_there_are(install: Install) -> None:
    install("stranger-key", address="stranger_key:factory")
    error = failure("mail")
    assert (error.path, error.found) == ("limit[0].key", '"mail"')
    assert error.allowed == "an installed key plugin: address, all, domain, email"


@pytest.mark.parametrize(
    ("source", "value", "why"),
    [
        ("import no_such_module_anywhere", "broken_key:factory", "ModuleNotFoundError"),
        ("def broken(:", "broken_key:factory", "SyntaxError"),
        ("raise OSError('two\\nlines')", "broken_key:factory", "OSError: two lines"),
        ("", "broken_key:factory", "AttributeError"),
        ("", "no_such_module_anywhere:factory", "ModuleNotFoundError"),
    ],
)
def test_a_plugin_that_does_not_import_names_itself(install: Install, source: str, value: str, why: str) -> None:
    install("broken-key", source, broken=value)
    error = failure("broken")
    assert error.path == "limit[0].key"
    assert f'"broken" ({value}), which cannot be loaded' in error.found
    assert why in error.found
    assert "reinstall" in error.allowed


def test_a_broken_plugin_that_no_limit_uses_stops_nothing(install: Install) -> None:
    install("broken-key", "import no_such_module_anywhere", broken="broken_key:factory")
    load("email", {}, "limit[0].key")


def test_an_option_that_the_plugin_refuses_names_its_table(install: Install) -> None:
    install("stranger-key", address="stranger_key:factory")
    error = failure("address", {"prefix": 5})
    assert (error.path, error.found) == ("keys.address", "ValueError: prefix: a text")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"token": "s3cret"}, "keys.keyed.token: found a secret; allowed: a text of 32 letters"),
        ({}, "keys.keyed.token: found nothing; allowed: a text of 32 letters"),
        ({"tokn": "s3cret"}, "keys.keyed.tokn: found an unknown option; allowed: token"),
    ],
)
def test_a_secret_option_is_not_shown_when_it_is_refused(install: Install, options: dict[str, Any], line: str) -> None:
    install("stranger-key", keyed="stranger_key:keyed")
    assert str(failure("keyed", options)) == line


def test_a_factory_that_raises_is_an_error_on_one_line(install: Install) -> None:
    install("stranger-key", bad="stranger_key:raises")
    assert failure("bad").found == "RuntimeError: no such thing"


def test_a_factory_that_gives_no_function_is_an_error(install: Install) -> None:
    install("stranger-key", bad="stranger_key:nothing")
    assert failure("bad").found == '"bad", whose factory gave an object of type NoneType'


def test_an_entry_point_that_is_no_factory_is_an_error(install: Install) -> None:
    install("stranger-key", bad="stranger_key:constant")
    error = failure("bad")
    assert error.path == "limit[0].key"
    assert error.found == '"bad" (stranger_key:constant), which is an object of type int'


@pytest.mark.parametrize("value", ["one_key:factory", "two_keys:factory"])
def test_two_distributions_with_one_name_are_an_error_that_names_both(install: Install, value: str) -> None:
    install("one-key", address="one_key:factory")
    install("two-keys", address=value)
    error = failure("address")
    assert error.found == '"address", a plugin of one-key and two-keys'
    assert error.path == "limit[0].key"


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


class Text(str):
    __slots__ = ()


def raising(error: Exception) -> KeyFunction:
    def function(request: Request) -> str | None:
        raise error

    return function


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (raising(ValueError("two\nlines")), "key plugin bad raised ValueError: two lines"),
        (raising(KeyError("x" * 5000)), "key plugin bad raised KeyError: 'xxx"),
        (raising(Unspeakable()), "key plugin bad raised Unspeakable: an error without a text"),
        (lambda request: 5, "key plugin bad gave no key but an object of type int"),
        (lambda request: b"alice", "key plugin bad gave no key but an object of type bytes"),
        (lambda request: Text("alice"), "key plugin bad gave no key but an object of type Text"),
        (lambda request: False, "key plugin bad gave no key but an object of type bool"),
        (lambda request: "a\nb", "key plugin bad gave no key but a text with a newline or NUL"),
        (lambda request: "a\0b", "key plugin bad gave no key but a text with a newline or NUL"),
        (lambda request: "x" * 1_000_000, "key plugin bad gave no key but 1000000 characters"),
        (lambda request: "", "key plugin bad gave an empty key"),
        (lambda request: " \t", "key plugin bad gave an empty key"),
        (lambda request: "\ud800", "key plugin bad gave a key with a lone surrogate"),
        (lambda request: "\ud800" * 300, "key plugin bad gave a key with a lone surrogate"),
    ],
)
def test_nonsense_of_a_plugin_is_a_failure_that_says_which(function: KeyFunction, why: str) -> None:
    with pytest.raises(KeyFailed) as failed:
        normalised("bad", function, True)(Request.of(""))
    text = str(failed.value)
    assert text.startswith(why)
    assert len(text) < 400
    assert "\n" not in text


def test_no_key_means_that_the_limit_does_not_apply() -> None:
    assert normalised("none", lambda request: None, True)(Request.of("")) is None


def test_a_plugin_s_key_is_normalised() -> None:
    assert normalised("loud", lambda request: " ALICE ", True)(Request.of("")) == "alice"
    assert normalised("loud", lambda request: " ALICE ", False)(Request.of("")) == "ALICE"
    longest = normalised("long", lambda request: "x" * MAX_KEY_CHARACTERS, True)(Request.of(""))
    assert longest is not None
    assert len(longest) == 255
