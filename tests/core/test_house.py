"""The house: one package per noun, layers that are folders, files and constructors of a size that a person reads."""

import ast
import inspect
import subprocess
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import tomli

import ratelimitd
from ratelimitd import settings

PACKAGE = Path(ratelimitd.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 300
MAX_PARAMETERS = 7
MAX_LAYERS = 15
MAX_MODULES = 11
TOP = {
    *("pyproject.toml", "ratelimitd", "plugins", "tests", "conf", "contrib", "sql"),
    *("CHANGELOG.md", "README.md", "LICENSE", ".ci", ".gitignore"),
}
OF_THE_DRIVER = "stores/mysql/wire.py"
"""A subclass of trio-mysql's connection sets attributes that the base class has made."""


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{file.relative_to(PACKAGE)}:{node.name}", node


def test_little_stands_at_the_top() -> None:
    root = PACKAGE.parent
    if not (root / ".git").exists():
        pytest.skip("only a checkout of git knows what is its own")
    listed = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True).stdout
    assert {name.partition("/")[0] for name in listed.splitlines()} == TOP


def test_no_file_is_longer_than_a_person_reads() -> None:
    long = {str(file.relative_to(PACKAGE)): len(file.read_text().splitlines()) for file in FILES}
    assert {name: lines for name, lines in long.items() if lines > MAX_LINES} == {}


def test_the_package_itself_holds_few_modules() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= MAX_MODULES


def test_the_layers_are_folders_and_single_modules() -> None:
    pyproject = tomli.loads((PACKAGE.parent / "pyproject.toml").read_text())
    layers = pyproject["tool"]["importlinter"]["contracts"][0]["layers"]
    assert len(layers) <= MAX_LAYERS
    named = {name for layer in layers for name in layer.replace("|", ":").split(" : ")}
    there = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    there |= {path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__"}
    assert {name.strip() for name in named} == there


def test_no_function_takes_more_than_seven_parameters() -> None:
    many = {}
    for name, node in functions():
        given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        count = len([argument for argument in given if argument.arg not in ("self", "cls")])
        if count > MAX_PARAMETERS:
            many[name] = count
    assert many == {}


def test_a_counter_s_quota_has_one_writer() -> None:
    writers = []
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and node.attr in ("quota", "source"):
                writers += [f"{file.relative_to(PACKAGE)}:{node.lineno}"]
    assert {writer.split(":")[0] for writer in writers} == {"core/counter.py"}
    assert len(writers) == 2, writers


def test_whatever_an_object_has_it_has_when_it_is_made() -> None:
    later = {}
    for file in FILES:
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef):
                late = _set_in(node, "others") - _set_in(node, "made") - _declared(node)
                if late and str(file.relative_to(PACKAGE)) != OF_THE_DRIVER:
                    later[f"{file.relative_to(PACKAGE)}:{node.name}"] = late
    assert later == {}


def _set_in(cls: ast.ClassDef, where: str) -> set[str]:
    """The attributes that a class sets on itself: in `__init__` and `configure`, or in its other methods."""
    found: set[str] = set()
    for method in cls.body:
        if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef):
            made = method.name in ("__init__", "configure", "__post_init__")
            if made == (where == "made"):
                found |= {
                    node.attr
                    for node in ast.walk(method)
                    if isinstance(node, ast.Attribute)
                    and isinstance(node.ctx, ast.Store)
                    and isinstance(node.value, ast.Name)
                    and node.value.id == "self"
                }
    return found


def _declared(cls: ast.ClassDef) -> set[str]:
    """The attributes that a class declares, and its properties that can be set."""
    fields = {
        node.target.id for node in cls.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    return fields | {
        node.name
        for node in cls.body
        if isinstance(node, ast.FunctionDef)
        and any(isinstance(each, ast.Attribute) and each.attr == "setter" for each in node.decorator_list)
    }


@pytest.mark.parametrize("module", ["keys", "request", "testing"])
def test_the_plugin_api_is_visible(module: str) -> None:
    made = import_module(f"ratelimitd.{module}")
    assert set(made.__all__) <= set(vars(made))
    for name in made.__all__:
        assert inspect.getdoc(getattr(made, name)) or not callable(getattr(made, name)), name


def test_every_live_setting_is_said_once_beside_the_setting() -> None:
    restarts = settings.restarts()
    assert "state_dir" in restarts
    assert "count_rejected" not in restarts
    assert not [path for path in restarts if path.startswith(("limit", "log.", "keys.", "notify"))]
