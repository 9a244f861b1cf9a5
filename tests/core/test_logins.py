"""Which ways of writing a login are one account: blanks, and what is not in ASCII. Domains: see test_request.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimitd.logins import LoginRules
from ratelimitd.request import Request
from ratelimitd.text import read

PADDED = st.text(" \t", max_size=4)


@given(PADDED, PADDED, PADDED, PADDED)
def test_blanks_around_a_name_or_a_domain_make_no_other_account(a: str, b: str, c: str, d: str) -> None:
    for rules in (LoginRules(), LoginRules("example.com"), LoginRules("example.com", ["example.com"])):
        assert rules.login(f"{a}alice{b}@{c}example.com{d}") == "alice@example.com"
        assert rules.login(f"{a}alice{b}@{c}") == rules.login("alice")


def test_blanks_within_a_name_are_part_of_it() -> None:
    assert LoginRules().login("alice b@example.com") == "alice b@example.com"


@pytest.mark.parametrize(
    ("sent", "login"),
    [
        ("alice@example.com", "alice@example.com"),
        ("ALICE", "ALICE@example.com"),
        ("alicé@example.com", "?@example.com"),
        ("al\u200bice", "?@example.com"),
        ("al\x02ice@example.com", "?@example.com"),
        ("\uff41lice@example.com", "?@example.com"),
        ("alice@müller.example", "alice@müller.example"),
        ("alicé@müller.example", "?@müller.example"),
        ("alice@\u212aeal.example", "alice@example.com"),
        ("", ""),
    ],
)
def test_names_that_are_not_in_ascii_are_one_where_the_configuration_says_so(sent: str, login: str) -> None:
    rules = LoginRules("example.com", ["müller.example"], ascii_only=True)
    assert rules.login(sent) == login
    assert rules.login(login) == login
    assert Request.of(f"sasl_username={sent}", "example.com", ["müller.example"], ascii_only=True).login == login


def test_a_domain_that_is_not_in_ascii_is_one_with_all_others_unless_it_is_a_real_one() -> None:
    assert LoginRules(ascii_only=True).login("alicé") == "?"
    assert LoginRules(ascii_only=True).login("alice@exämple.com") == "alice@?"
    assert LoginRules(ascii_only=True).login("é@x@exämple.com") == "?@?"
    assert LoginRules("exämple.com", ascii_only=True).login("alice") == "alice@exämple.com"


def test_domains_are_for_password_checks_that_ignore_the_domain() -> None:
    """MySQL takes one domain for the other: that is bob of b.example, and without `domains` nobody else is charged."""
    assert (
        LoginRules("a.example", ["a.example", "b.example"], ascii_only=True).login("bob@ḃ.example") == "bob@a.example"
    )
    assert LoginRules("a.example", ascii_only=True).login("bob@ḃ.example") == "bob@?"


@given(st.binary(max_size=8))
def test_whatever_bytes_a_name_has_that_are_not_ascii_it_is_the_same_one(data: bytes) -> None:
    name = b"a" + data.translate(None, b"\n@\\") + b"z"
    readable = all(b" "[0] <= byte <= b"~"[0] for byte in name)
    expected = f"{name.decode()}@example.com" if readable else "?@example.com"
    assert LoginRules(ascii_only=True).login(read(name + b"@example.com")) == expected
