"""Keys: one form for memory and every database, and the built-in plugins."""

from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimitd.keys import KeyFunction, OptionError, domain, email, normalise, only
from ratelimitd.request import Request
from ratelimitd.text import MAX_BYTES

texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(texts, st.booleans(), st.integers(0, 300))
def test_normalising_twice_is_normalising_once(text: str, lowercase: bool, padding: int) -> None:
    once = normalise(text + "x" * padding, lowercase)
    assert normalise(once, lowercase) == once


@given(texts, st.integers(0, 400))
def test_a_key_fits_the_column(text: str, times: int) -> None:
    assert len(normalise(text * times).encode()) <= MAX_BYTES


@given(texts)
def test_nothing_but_ascii_letters_and_outer_blanks_changes(text: str) -> None:
    stripped = text.strip(" \t")
    expected = "".join(c.lower() if c.isascii() else c for c in stripped)
    if len(expected.encode()) <= MAX_BYTES:
        assert normalise(text) == expected
        assert normalise(text, lowercase=False) == stripped


@pytest.mark.parametrize(
    ("key", "normal"),
    [
        ("Alice@Example.COM", "alice@example.com"),
        (" \talice\t ", "alice"),
        ("alicé", "alicé"),
        ("ALICÉ", "alicÉ"),
        ("\u0130", "\u0130"),  # its lower case is two characters
        ("\u212a", "\u212a"),  # KELVIN SIGN, whose lower case is an ASCII k
        ("\u00a0alice\u2003", "\u00a0alice\u2003"),
        ("a b", "a b"),
        ("", ""),
        (" \t", ""),
    ],
)
def test_the_normal_form(key: str, normal: str) -> None:
    assert normalise(key) == normal


def test_upper_case_is_kept_where_it_is_configured_so() -> None:
    assert normalise(" Alice@X ", lowercase=False) == "Alice@X"
    assert normalise("A" * 300, lowercase=False) != normalise("a" * 300, lowercase=False)


@pytest.mark.parametrize("letter", ["x", "é", "€", "😀"])
def test_long_keys_stay_distinct_and_keep_their_beginning(letter: str) -> None:
    start = "alice-" + letter * 250
    keys = {normalise(start + end) for end in ("", "1", "2", "@a.example", "@b.example", letter)}
    assert len(keys) == 6
    assert all(key.startswith("alice-" + letter * 50) for key in keys)
    assert all(0 < len(key.encode()) <= MAX_BYTES for key in keys)


def test_a_key_of_exactly_the_column_is_kept_whole() -> None:
    assert normalise("x" * 255) == "x" * 255
    assert normalise("é" * 127 + "x") == "é" * 127 + "x"
    assert normalise("x" * 256) != "x" * 256
    assert normalise("é" * 128) != "é" * 128


def ask(function: KeyFunction, login: str, default_domain: str = "") -> str | None:
    return function(Request.of(f"sasl_username={login}\nsender=other@sender.example", default_domain))


@pytest.mark.parametrize(
    ("login", "by_email", "by_domain"),
    [
        ("alice@example.com", "alice@example.com", "example.com"),
        ("a=b@example.com", "a=b@example.com", "example.com"),
        ("a@b@x.example", "a@b@x.example", "x.example"),
        ("alice", "alice", None),
        ("alice@", "alice", None),
        ("@example.com", "@example.com", "example.com"),
        ("", None, None),
        ("  ", None, None),
        ("%s%n", "%s%n", None),
    ],
)
def test_the_built_in_keys(login: str, by_email: str | None, by_domain: str | None) -> None:
    assert ask(email({}), login) == by_email
    assert ask(domain({}), login) == by_domain


def test_a_bare_login_belongs_to_the_default_domain() -> None:
    assert ask(email({}), "alice", "example.com") == "alice@example.com"
    assert ask(domain({}), "alice", "example.com") == "example.com"
    assert ask(domain({}), "", "example.com") is None


@pytest.mark.parametrize("factory", [email, domain])
def test_the_built_in_keys_have_no_options(factory: Callable[[Mapping[str, object]], KeyFunction]) -> None:
    with pytest.raises(ValueError, match="width: found an unknown option; allowed: none: this plugin has no options"):
        factory({"width": 3})


def test_of_the_options_the_first_that_there_is_not_is_named() -> None:
    only({"b": 1, "a": 2}, "a", "b")
    with pytest.raises(OptionError, match="c: found an unknown option; allowed: a, b"):
        only({"b": 1, "c": 2, "d": 3}, "a", "b")
