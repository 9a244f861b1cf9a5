"""`ratelimitctl plugins`: what is installed, whose it is, which limits use it, what is broken."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ratelimitd import __version__
from ratelimitd.ctl.main import main
from ratelimitd.errors import install as install_command
from tests.plugins.distributions import install

SOURCE = """\
def factory(options):
    if options:
        raise ValueError("no options")
    return lambda request: request["client_address"]

def raises(options):
    raise SystemExit(3)
"""
LIMIT = "[[limit]]\nquota = 1\n"

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the verb on a configuration: its exit status, and what it prints with single blanks."""

    def ran(text: str = LIMIT) -> tuple[int, str]:
        file = tmp_path / "ratelimitd.toml"
        file.write_text(text)
        status = main(["-c", str(file), "plugins"])
        return status, "\n".join(" ".join(line.split()) for line in capsys.readouterr().out.splitlines())

    return ran


def test_the_plugins_are_listed_with_their_distribution_and_the_limits_that_use_them(site: Path, run: Run) -> None:
    install(site, "key-address", SOURCE, version="2.5", address="key_address:factory")
    limits = '[[limit]]\nname = "a"\nquota = 1\nkey = "address"\n[[limit]]\nname = "b"\nquota = 1\nkey = "address"\n'
    assert run(limits + LIMIT) == (
        0,
        "KEY DISTRIBUTION VERSION USED BY LIMIT\n"
        "address key-address 2.5 a, b\n"
        f"all ratelimitd {__version__} -\n"
        f"domain ratelimitd {__version__} -\n"
        f"email ratelimitd {__version__} default",
    )


def test_a_broken_plugin_that_nobody_uses_is_shown_and_is_no_error(site: Path, run: Run) -> None:
    install(site, "key-broken", "import no_such_module", broken="key_broken:factory")
    status, text = run()
    assert status == 0
    assert "broken key-broken 1.0 - BROKEN\n" in text
    assert "cannot be loaded: ModuleNotFoundError: No module named 'no_such_module'" in text
    assert text.endswith(install_command("--force-reinstall key-broken"))


def test_a_broken_plugin_that_a_limit_uses_is_an_error(site: Path, run: Run) -> None:
    install(site, "key-broken", "import no_such_module", broken="key_broken:factory")
    status, text = run(LIMIT + 'key = "broken"\n')
    assert status == 1
    assert "broken key-broken 1.0 default BROKEN\n" in text


def test_a_plugin_that_is_used_and_not_installed_is_named_with_what_to_install(run: Run) -> None:
    status, text = run(LIMIT + 'key = "subnet"\n')
    assert status == 1
    assert "subnet not installed - default BROKEN\n" in text
    command = install_command("./plugins/ratelimitd-key-subnet")
    assert text.endswith(f"this one is of the distribution ratelimitd-key-subnet, in the checkout: {command}")


def test_what_is_to_be_installed_goes_into_our_own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", "/usr/local/lib/ratelimitd")
    assert install_command("x") == "/usr/local/lib/ratelimitd/bin/pip install x"
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    assert install_command("x") == "pip install x"


def test_a_plugin_that_only_a_table_names_is_shown_and_an_error_of_it_counts(site: Path, run: Run) -> None:
    install(site, "key-address", SOURCE, address="key_address:factory")
    assert run(LIMIT + "[keys.address]\n")[0] == 0
    status, text = run(LIMIT + "[keys.address]\nwidth = 1\n")
    assert (status, "address key-address 1.0 - BROKEN\n" in text) == (1, True)
    assert "keys.address: found ValueError: no options" in text
    status, text = run(LIMIT + "[keys.gone]\n")
    assert (status, "gone not installed - - BROKEN\n" in text) == (1, True)


def test_two_distributions_of_one_name_are_both_listed(site: Path, run: Run) -> None:
    install(site, "key-one", SOURCE, address="key_one:factory")
    install(site, "key-two", SOURCE, address="key_two:factory")
    status, text = run(LIMIT + 'key = "address"\n')
    assert status == 1
    assert "address key-one 1.0 default BROKEN\naddress key-two 1.0 default BROKEN\n" in text
    assert 'found "address", a plugin of key-one and key-two' in text
    assert run()[0] == 0


def test_a_plugin_with_a_name_of_ours_is_shown_as_broken(site: Path, run: Run) -> None:
    install(site, "key-own", SOURCE, email="key_own:factory")
    status, text = run()
    assert status == 1
    assert "email key-own 1.0 default BROKEN\n" in text
    assert text.endswith(" has one of this name itself; uninstall it, or rename it")


@pytest.mark.parametrize(("name", "why"), [("factory", "no options"), ("raises", "SystemExit: 3")])
def test_a_wrong_option_of_a_plugin_that_is_used_is_shown(site: Path, run: Run, name: str, why: str) -> None:
    install(site, "key-address", SOURCE, address=f"key_address:{name}")
    status, text = run(LIMIT + 'key = "address"\n[keys.address]\nwidth = 1\n')
    assert status == 1
    assert f"keys.address: found {'ValueError: ' if name == 'factory' else ''}{why}" in text


@pytest.mark.parametrize("text", ["= nonsense", "limit = 5\nkeys = 5\n", "[[limit]]\nkey = 5\nname = 5", "limit = [5]"])
def test_whatever_the_configuration_says_the_list_is_given(run: Run, text: str) -> None:
    assert f"\ndomain ratelimitd {__version__} -\n" in run(text)[1]


def test_a_configuration_that_cannot_be_read_is_said_below_the_list(run: Run) -> None:
    status, text = run("= nonsense")
    assert status == 2
    assert "ratelimitd.toml:1: syntax: found" in text


def test_before_there_is_a_configuration_the_list_is_given_and_nothing_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "ratelimitd.toml"
    with monkeypatch.context() as default:
        for module in ("main", "inventory"):
            default.setattr(f"ratelimitd.ctl.{module}.DEFAULT_CONFIG", missing)
        assert main(["plugins"]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1].split() == ["email", "ratelimitd", __version__, "-"]
    assert main(["-c", str(missing), "plugins"]) == 2
    assert f"{missing}: cannot be read: found No such file or directory" in capsys.readouterr().out


def test_the_same_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "ratelimitd.toml"
    file.write_text(LIMIT + 'key = "subnet"\n')
    assert main(["-c", str(file), "plugins", "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    _, domain, email, subnet = answer["plugins"]
    assert email == {
        "name": "email",
        "distribution": "ratelimitd",
        "version": __version__,
        "entry_point": "ratelimitd.keys:email",
        "limits": [],
        "error": None,
        "options": False,
    }
    assert domain["name"] == "domain"
    assert (subnet["name"], subnet["distribution"], subnet["limits"]) == ("subnet", None, ["default"])
    assert "ratelimitd-key-subnet" in subnet["error"]
    assert answer["error"] is None
