"""conf/: every setting is documented with its default, and the example runs."""

import re
from pathlib import Path

import msgspec
import pytest
import tomli
from msgspec.structs import fields

from ratelimitd import settings
from ratelimitd.config import read as config
from ratelimitd.daemon.main import main
from ratelimitd.settings import LimitSettings, NotifySettings, Settings
from tests.contrib.pages import make

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
QUOTA = 1000
RESTART = "Needs a restart."


def uncommented() -> str:
    """conf/ratelimitd.toml with every default taken into force."""
    text = (CONF / "ratelimitd.toml").read_text(encoding="utf-8")
    return re.sub(r"^#(\w+ = |\[\[notify\]\])", r"\1", text, flags=re.MULTILINE)


def tables() -> dict[str, type[msgspec.Struct]]:
    """The tables of the file, by name; "" is its top."""
    found: dict[str, type[msgspec.Struct]] = {"": Settings, "limit": LimitSettings, "notify": NotifySettings}
    for field in fields(Settings):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            found[field.name] = field.type
    return found


@pytest.mark.parametrize("name", tables())
def test_every_setting_is_in_the_documented_file(name: str) -> None:
    data = tomli.loads(uncommented())
    table = data[name] if name else data
    assert set(table[0] if isinstance(table, list) else table) == {field.name for field in fields(tables()[name])}


def test_every_default_in_the_documented_file_is_the_programs() -> None:
    written = msgspec.convert(tomli.loads(uncommented()), Settings)
    assert written == Settings(limit=[LimitSettings(quota=QUOTA)], notify=[NotifySettings()])


def test_the_documented_file_as_it_is_leaves_every_default() -> None:
    file = CONF / "ratelimitd.toml"
    assert config.read(file).settings == Settings(limit=[LimitSettings(quota=QUOTA)])


def test_every_setting_in_the_documented_file_has_a_comment() -> None:
    lines = (CONF / "ratelimitd.toml").read_text(encoding="utf-8").splitlines()
    blocks = "\n".join(lines).split("\n\n")
    assert all("# " in block for block in blocks)
    assert max(map(len, lines)) <= 120


def test_every_setting_that_needs_a_restart_says_so_and_no_other() -> None:
    said: dict[str, bool] = {}
    for section in make["parse"]((CONF / "ratelimitd.toml").read_text(encoding="utf-8")):
        for entry in section.entries:
            for name, _ in entry.settings:
                said[f"{section.header.strip('[]')}.{name}".lstrip(".")] = RESTART in " ".join(entry.text)
    assert {setting for setting, restart in said.items() if restart} == set(settings.restarts())


def test_the_example_runs_from_the_checkout() -> None:
    example = config.read(CONF / "example.toml")
    assert example.state_dir == ROOT / ".state"
    assert example.settings.server.listen == ["127.0.0.1:10032"]


def test_the_documented_file_is_what_the_program_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--example", "-c", "/nonexistent"]) == 0
    assert capsys.readouterr() == ((CONF / "ratelimitd.toml").read_text(encoding="utf-8"), "")
