"""The pages: every link leads somewhere, every name of the code on a page exists, version and changelog agree."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from ratelimitd import __version__
from ratelimitd.stores import COLUMNS

ROOT = Path(__file__).parents[2]
CODE = ROOT / "ratelimitd"
NOT_OURS = {".venv", ".git", ".hypothesis", ".pytest_cache", "node_modules", "build", "dist"}
PAGES = sorted(page for page in ROOT.rglob("*.md") if not NOT_OURS & set(page.relative_to(ROOT).parts))

LINK = re.compile(r"\]\(([^)\s]+)\)")
NAME = re.compile(r"`([a-z_/]+\.py)(?::([A-Za-z_.]+))?`")
"""`core/policy.py` or `core/policy.py:Policy.decide`, under ratelimitd/."""


def prose(page: Path) -> str:
    """The text of a page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


@cache
def anchors(page: Path) -> set[str]:
    """What the headings of a page can be linked to as, the way GitHub and others make it."""
    headings = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def faults(page: Path) -> Iterator[str]:
    """The relative links of a page that lead nowhere."""
    for link in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            yield link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    assert list(faults(page)) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One `two`, three\n[a](#one-two-three) [b](#four) [c](none.md) [d](page.md#five) [e](https://f)\n"
    )
    assert list(faults(page)) == ["#four", "none.md", "page.md#five"]


@cache
def names(file: Path) -> set[str]:
    """What a module defines: classes, their methods and attributes, functions, constants."""
    return set(_defined(ast.parse(file.read_text(encoding="utf-8")).body, ""))


def _defined(body: list[ast.stmt], prefix: str) -> Iterator[str]:
    for statement in body:
        if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + statement.name
            if isinstance(statement, ast.ClassDef):
                yield from _defined(statement.body, f"{prefix}{statement.name}.")
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            yield prefix + statement.target.id
        elif isinstance(statement, ast.Assign):
            yield from (prefix + target.id for target in statement.targets if isinstance(target, ast.Name))


def named() -> list[tuple[str, str]]:
    """The files of the code on the page about its inside, each with a name in it, or none."""
    return NAME.findall(prose(ROOT / "contrib" / "doc" / "inside.md"))


def test_every_file_and_function_on_the_page_about_the_inside_exists() -> None:
    found = named()
    assert len(found) > 40
    missing = [
        f"{file}:{name}"
        for file, name in found
        if not (CODE / file).is_file() or (name and name not in names(CODE / file))
    ]
    assert missing == []


def test_every_column_is_in_the_page_about_the_tables() -> None:
    _, _, chapter = (ROOT / "sql" / "README.md").read_text(encoding="utf-8").partition("\n## The table `ratelimit`\n")
    table = chapter.partition("\n## ")[0]
    assert tuple(re.findall(r"^\| `([a-z_]+)` \|", table, flags=re.MULTILINE)) == COLUMNS


def numbers(version: str) -> tuple[int, ...]:
    """The numbers of a version: MAJOR.MINOR.PATCH."""
    match = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", version)
    assert match is not None
    return tuple(map(int, match.groups()))


def test_the_version_is_that_of_the_changelog() -> None:
    """What is at the top is this version: by its number, or as [Unreleased], and then all others are older."""
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)$", changelog, flags=re.MULTILINE)
    unreleased = headings[0] == "[Unreleased]"
    dated = [re.fullmatch(r"\[(.*)\] - \d{4}-\d{2}-\d{2}", heading) for heading in headings[unreleased:]]
    versions = [numbers(match[1]) for match in dated if match]
    assert len(versions) == len(dated)
    assert versions == sorted(set(versions), reverse=True)
    current = numbers(__version__)
    assert all(version < current for version in versions) if unreleased else versions[0] == current
