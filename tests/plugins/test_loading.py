"""What is loaded, and what the administrator reads where it cannot be."""

from pathlib import Path
from typing import Any

import pytest

from ratelimitd.config import read as config
from ratelimitd.daemon.check import check
from ratelimitd.errors import ConfigError
from ratelimitd.plugins import installed, load
from ratelimitd.testing import request
from tests.plugins.distributions import install

SOURCE = """\
from ratelimitd.keys import OptionError, only

def address(options):
    only(options, "width", "networks")
    if "width" in options:
        raise OptionError("width", options["width"], "nothing so wide")
    return lambda request: request["client_address"]

async def key(request):
    return "key"

async def late(options):
    return key

def promises(options):
    return key

def exits(options):
    raise SystemExit("no such map")

def remembers(options):
    options.setdefault("seen", []).append(1)
    options["networks"].append(1)
    return lambda request: str(options)
"""
WHERE = "limit[0].key"


def failure(name: str, options: dict[str, Any] | None = None) -> str:
    with pytest.raises(ConfigError) as raised:
        load(name, options or {}, WHERE)
    return str(raised.value)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"width": "12\n"}, 'keys.address.width: found "12\\n"; allowed: nothing so wide'),
        ({"width": True}, "keys.address.width: found true; allowed: nothing so wide"),
        ({"height": 1}, "keys.address.height: found an unknown option; allowed: width, networks"),
    ],
)
def test_a_wrong_option_is_one_line_that_names_its_path(site: Path, options: dict[str, Any], error: str) -> None:
    install(site, "key-own", SOURCE, address="key_own:address")
    assert failure("address", options) == error


def test_in_a_file_the_path_of_an_option_comes_after_the_file_s_name(site: Path, tmp_path: Path) -> None:
    install(site, "key-own", SOURCE, address="key_own:address")
    file = tmp_path / "ratelimitd.toml"
    file.write_text('[[limit]]\nquota = 1\nkey = "address"\n[keys.address]\nwidth = 1\n')
    with pytest.raises(ConfigError) as raised:
        config.read(file)
    assert str(raised.value) == f"{file}:5: keys.address.width: found 1; allowed: nothing so wide"


@pytest.mark.parametrize(("name", "what"), [("late", "coroutine"), ("promises", "function")])
def test_a_plugin_that_is_async_is_refused_at_the_start(site: Path, name: str, what: str) -> None:
    install(site, "key-own", SOURCE, **{name: f"key_own:{name}"})
    found = f'"{name}", whose factory gave an object of type {what}'
    assert failure(name) == f"{WHERE}: found {found}; allowed: an ordinary function of the request"


def test_a_plugin_cannot_end_the_program_by_loading(site: Path) -> None:
    install(site, "key-own", SOURCE, exits="key_own:exits")
    install(site, "key-gone", "raise SystemExit(0)", gone="key_gone:factory")
    assert failure("exits").startswith("keys.exits: found SystemExit: no such map; allowed: ")
    assert '"gone" (key_gone:factory), which cannot be loaded: SystemExit: 0' in failure("gone")


def test_a_plugin_of_ours_that_is_not_installed_is_named_with_its_distribution() -> None:
    assert "; this one is of the distribution ratelimitd-key-tenant, in the checkout: " in failure("tenant")
    assert failure("tenant").endswith("bin/pip install ./plugins/ratelimitd-key-tenant")
    assert "distribution" not in failure("tenants")


@pytest.mark.parametrize("points", [b"[ratelimitd.keys]\nnonsense\n", b"[ratelimitd.keys]\na = \xff\n"])
def test_a_distribution_with_broken_metadata_stops_nobody_else(site: Path, points: bytes) -> None:
    install(site, "key-own", SOURCE, address="key_own:address")
    install(site, "key-broken", "", broken="key_broken:factory")
    (site / "key_broken-1.0.dist-info" / "entry_points.txt").write_bytes(points)
    assert {"address", "all", "domain", "email"} == set(installed())


def test_a_distribution_without_a_name_is_told_by_its_entry_point(site: Path) -> None:
    install(site, "key-own", SOURCE, address="key_own:address")
    install(site, "key-two", SOURCE, address="key_two:address")
    (site / "key_two-1.0.dist-info" / "METADATA").unlink()
    found = '"address", a plugin of an unknown distribution with key_two:address and key-own'
    assert failure("address") == f"{WHERE}: found {found}; allowed: one distribution per name; uninstall one"


def test_a_plugin_with_a_name_of_ours_is_not_used_and_that_is_said(site: Path, tmp_path: Path) -> None:
    install(site, "key-own", SOURCE, email="key_own:address")
    assert load("email", {}, WHERE)(request(sasl_username="alice", client_address="192.0.2.7")) == "alice"
    file = tmp_path / "ratelimitd.toml"
    file.write_text(f'state_dir = "{tmp_path}/state"\n[log]\nstderr = true\n[[limit]]\nquota = 1\n')
    _, warnings = check(file)
    said = 'the key plugin "email" of key-own is not used, for ratelimitd has one of this name itself'
    assert [warning.partition(";")[0] for warning in warnings] == [f"{file}: {said}"]


def test_the_factory_s_options_are_its_own(site: Path) -> None:
    install(site, "key-own", SOURCE, remembers="key_own:remembers")
    options: dict[str, Any] = {"networks": []}
    load("remembers", options, WHERE)
    assert options == {"networks": []}


def test_options_are_checked_also_where_no_limit_uses_the_plugin(site: Path, tmp_path: Path) -> None:
    source = "def factory(options):\n    if options:\n        raise ValueError('no options')\n    return str\n"
    install(site, "key-idle", source, idle="key_idle:factory")
    file = tmp_path / "ratelimitd.toml"
    file.write_text("[keys.idle]\n[[limit]]\nquota = 1\n")
    config.read(file)
    file.write_text("[keys.idle]\nwidth = 1\n[[limit]]\nquota = 1\n")
    with pytest.raises(ConfigError, match=r"keys\.idle: found ValueError: no options"):
        config.read(file)
