"""Errors are one line each."""

from hypothesis import given
from hypothesis import strategies as st

from ratelimitd.errors import ConfigError
from ratelimitd.text import escape


def test_a_configuration_error_names_the_place_what_is_there_and_what_may_be() -> None:
    error = ConfigError("limit[0].quota", "-1", "a whole number")
    assert str(error) == "limit[0].quota: found -1; allowed: a whole number"


@given(st.text(), st.text())
def test_an_error_is_one_printable_line_whatever_the_file_holds(path: str, found: str) -> None:
    text = str(ConfigError(path, found, "anything"))
    assert text.isprintable()
    assert len(text.splitlines()) == 1


def test_what_is_not_printable_is_escaped() -> None:
    assert escape("a\nb\x1b[0m\u202eé") == "a\\nb\\x1b[0m\\u202eé"
