"""The tenant that a login is counted under, by a map in a file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ratelimitd_key_tenant import tenant

from ratelimitd.keys import OptionError
from ratelimitd.testing import check_key, request

MAP = """\
[tenants]
acme = ["acme.example", "@ACME.test", "boss@mail.example"]
"Müller & Co" = ["mail.example", "webmaster"]
"""

Write = Callable[[str | bytes], dict[str, Any]]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes the map: the options that name it."""

    def written(text: str | bytes) -> dict[str, Any]:
        file = tmp_path / "tenants.toml"
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        return {"map": str(file)}

    return written


@pytest.mark.parametrize("more", [{}, {"others": "everyone else"}])
def test_it_keeps_the_contract(write: Write, more: dict[str, str]) -> None:
    check_key(tenant, {**write(MAP), **more})


@pytest.mark.parametrize(
    ("login", "name"),
    [
        ("alice@acme.example", "acme"),
        ("Bob@Acme.TEST", "acme"),
        ("boss@mail.example", "acme"),
        ("clerk@mail.example", "Müller & Co"),
        ("webmaster", "Müller & Co"),
        ("a@b@acme.example", "acme"),
        ("alice@sub.acme.example", None),
        ("acme", None),
        ("alice@", None),
        ("", None),
    ],
)
def test_a_login_belongs_to_the_tenant_that_lists_it_or_its_domain(write: Write, login: str, name: str | None) -> None:
    function = tenant(write(MAP))
    assert function(request(sasl_username=login)) == name


def test_logins_that_no_tenant_lists_may_have_one_of_their_own(write: Write) -> None:
    function = tenant({**write(MAP), "others": "others"})
    assert function(request(sasl_username="eve@example.net")) == "others"
    assert function(request(sasl_username="alice@acme.example")) == "acme"
    assert function(request(sasl_username="")) is None


def test_the_file_is_read_by_the_factory_alone(write: Write) -> None:
    options = write(MAP)
    before = tenant(options)
    write("[tenants]\nnew = ['acme.example']\n")
    asked = request(sasl_username="alice@acme.example")
    assert before(asked) == "acme"
    assert tenant(options)(asked) == "new"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[tenants", "tenants.toml: Expected ']'"),
        (b"\xff", "tenants.toml: 'utf-8' codec can't decode"),
        ("", 'tenants.toml"; allowed: a file with the table [tenants], and nothing else'),
        ("[tenants]\n[tenant]\n", 'tenants.toml"; allowed: a file with the table [tenants], and nothing else'),
        ("tenants = 5", 'tenants.toml"; allowed: a file with the table [tenants], and nothing else'),
        ("[tenants]\na = 'b'", 'tenants.toml: tenants.a"; allowed: a name, and for it a list of logins and domains'),
        ("[tenants]\n' ' = []", 'tenants.toml: tenants. "; allowed: a name, and for it a list of logins'),
        ("[tenants]\na = [5]", 'tenants.toml: tenants.a: 5"; allowed: a login'),
        ("[tenants]\na = ['b@']", "tenants.toml: tenants.a: 'b@'\"; allowed: a login"),
        ("[tenants]\na = ['b', '@B']", "tenants.a: '@B', which a has\"; allowed: each login and domain once"),
        ("[tenants]\na = ['x']\nb = ['X']", "tenants.b: 'X', which a has\"; allowed: each login and domain once"),
    ],
)
def test_a_wrong_map_is_an_error_that_names_the_place(write: Write, text: str | bytes, error: str) -> None:
    options = write(text)
    with pytest.raises(OptionError) as raised:
        tenant(options)
    assert str(raised.value).startswith('map: found "/')
    assert error in str(raised.value)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({}, "map: found nothing; allowed: the absolute path of a TOML file"),
        ({"map": "tenants.toml"}, 'map: found "tenants.toml"; allowed: the absolute path'),
        ({"map": "/no/such/file"}, 'map: found "/no/such/file: No such file or directory"; allowed: a file'),
        ({"map": "/", "file": 1}, "file: found an unknown option; allowed: map, others"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], error: str) -> None:
    with pytest.raises(OptionError) as raised:
        tenant(options)
    assert str(raised.value).startswith(error)


def test_others_is_a_text(write: Write) -> None:
    options = {**write(MAP), "others": 5}
    with pytest.raises(OptionError, match="others: found 5; allowed: a text"):
        tenant(options)
