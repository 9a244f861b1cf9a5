"""The man pages, and conf/ratelimitd.toml which one of them is made of: true and whole."""

import argparse
import re
import subprocess
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
import tomli

from ratelimitd.config import read as config
from ratelimitd.control.answers import Answer
from ratelimitd.ctl import main as ctl
from ratelimitd.ctl.answers import PRINTED
from ratelimitd.daemon import main as cli
from ratelimitd.settings import Settings
from tests.conftest import require
from tests.contrib.pages import make
from tests.instances.components import program

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "conf" / "ratelimitd.toml"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("man")
    make["main"](folder)
    return {name: (folder / name).read_text(encoding="utf-8") for name in make["PAGES"]}


def plain(roff: str) -> str:
    return re.sub(r"\\f[BIPR]|\\&", "", roff).replace("\\-", "-").replace("\\e", "\\")


def test_every_setting_is_in_the_reference_and_something_is_said_about_it() -> None:
    assert make["undocumented"](make["parse"](REFERENCE.read_text(encoding="utf-8"))) == []


def test_a_setting_that_nothing_is_said_about_is_found() -> None:
    text = REFERENCE.read_text(encoding="utf-8").replace("#timezone = ", "# timezone = ")
    assert make["undocumented"](make["parse"](text)) == ["timezone"]


def test_a_text_that_belongs_to_nothing_is_found_and_does_not_open_the_next_section() -> None:
    text = REFERENCE.read_text(encoding="utf-8").replace("#ascii = false\n", "#ascii = false\n# Of the keys.\n")
    with pytest.raises(SystemExit, match=r"belongs to no setting and no section: Of the keys\."):
        make["parse"](text)


def test_the_options_of_plugins_are_in_the_section_of_keys(pages: dict[str, str]) -> None:
    page = plain(pages["man5/ratelimitd.toml.5"])
    assert "[keys.subnet]" in page.partition('.SH "[keys]"')[2].partition(".SH")[0]


def test_the_reference_is_a_configuration_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "ratelimitd.toml").write_bytes(REFERENCE.read_bytes())
    assert config.read(tmp_path / "ratelimitd.toml").limits[0].quota == 1000


def test_the_defaults_of_the_reference_are_those_in_force() -> None:
    text = re.sub(r"^#(\[\[?[a-z_]+\]\]?|[a-z_]+ = .*)$", r"\1", REFERENCE.read_text(encoding="utf-8"), flags=re.M)
    shown = tomli.loads(text)
    shown["notify"][0]["command"] = ["/a/program"]  # one of command and url must be there
    minimal: dict[str, Any] = {"limit": [{"quota": 1000}], "notify": [{"command": ["/a/program"]}]}
    assert msgspec.convert(shown, Settings) == msgspec.convert(minimal, Settings)


def test_every_setting_is_in_the_page(pages: dict[str, str]) -> None:
    page = plain(pages["man5/ratelimitd.toml.5"])
    for path in make["paths"](Settings):
        name = path.rpartition(".")[2]
        assert re.search(rf"^{name} = ", page, re.M), path


@pytest.mark.parametrize(("page", "program_"), [("man8/ratelimitd.8", cli.main), ("man8/ratelimitctl.8", ctl.main)])
def test_every_verb_and_option_is_in_the_page(pages: dict[str, str], page: str, program_: Any) -> None:
    text = plain(pages[page])
    parser = make["parser_of"](program_)

    def check(parser: argparse.ArgumentParser) -> None:
        for action in parser._actions:
            for option in [] if isinstance(action, argparse._HelpAction) else action.option_strings:
                assert option in text
            if isinstance(action, argparse._SubParsersAction):
                for verb, sub in action.choices.items():
                    assert re.search(rf'^\.SS "{verb}\b', text, re.M), verb
                    check(sub)

    check(parser)


def test_every_field_of_every_answer_is_in_the_page(pages: dict[str, str]) -> None:
    text = plain(pages["man8/ratelimitctl.8"])
    (action,) = (a for a in make["parser_of"](ctl.main)._actions if isinstance(a, argparse._SubParsersAction))
    assert set(PRINTED) == set(action.choices)
    for kind, verbs in make["answers"]().items():
        section = re.search(rf'^\.SS "{kind.__name__}\b(.*?)(^\.S|\Z)', text, re.M | re.S)
        assert section, kind
        assert all(verb in section[1] for verb in verbs)
        for name, of_type, said in make["described"](kind):
            said = said.replace("`", "")
            assert f"\n{name}: {of_type}\n{said[0].upper()}{said[1:]}." in section[1], (kind, name)


def test_a_field_that_nothing_is_said_about_is_found() -> None:
    class Said(Answer, frozen=True):
        """An answer."""

        told: Annotated[int, msgspec.Meta(description="something")]

    class Unsaid(Said, frozen=True):
        """Another."""

        bare: int
        other: Annotated[str, msgspec.Meta(min_length=1)]

    assert make["undescribed"](make["answers"]()) == []
    assert make["undescribed"]([Said, Unsaid]) == ["Unsaid.bare", "Unsaid.other"]


@pytest.mark.real
def test_groff_has_nothing_to_complain_about(pages: dict[str, str], tmp_path: Path) -> None:
    require("groff")
    for text in pages.values():
        file = tmp_path / "page"
        file.write_text(text, encoding="utf-8")
        done = subprocess.run(
            [program("groff"), "-man", "-Tutf8", "-ww", "-z", file], capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stderr) == (0, "")
