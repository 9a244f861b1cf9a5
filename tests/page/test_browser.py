"""The page in a real browser: silent, asks nobody, can be sorted and read, small and large, light and dark."""

import base64
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ratelimitd.ctl.answers import Replayed
from ratelimitd.ctl.page.render import html
from ratelimitd.ctl.page.replayed import of_replay
from ratelimitd.ctl.page.reported import of_report
from tests.conftest import require
from tests.instances.chromium import Chromium
from tests.page.samples import HOSTILE, limit, month, replayed, reported

pytestmark = pytest.mark.real
LOOK = (Path(__file__).parent / "look.js").read_text(encoding="utf-8")
ENTER, SPACE = "\ue007", " "


def odd() -> Replayed:
    """Few accounts, many digits, quotas far away, hostile texts."""
    return replayed([
        limit("three", [1, 2, 40]),
        limit("huge", [10**6, 10**8, 10**9, 2 * 10**9], 500, HOSTILE, period="message", counts="messages"),
        limit("far", [1, 1, 3, 7, 9], 10**9),
        limit("nobody", []),
        *[limit(text, [1], None, [text]) for text in HOSTILE[:3]],
    ], remarks=["x" * 300, *HOSTILE])  # fmt: skip


PAGES = {
    "month": lambda: of_replay(month()),
    "odd": lambda: of_replay(odd()),
    "report": lambda: of_report(reported(["alice@example.com", "bob@example.com", *HOSTILE])),
}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    require("chromium")
    started = Chromium(tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


@pytest.fixture(params=PAGES)
def page(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a page."""
    return written(tmp_path, html(PAGES[request.param]()))


def written(folder: Path, text: str) -> str:
    (folder / "page.html").write_text(text, encoding="utf-8")
    return (folder / "page.html").as_uri()


def ask(browser: Chromium, look: str) -> Any:
    return browser.run(f"{LOOK}\nreturn looks.{look}();")


def open_all(browser: Chromium) -> None:
    browser.run("for (const each of document.querySelectorAll('details')) each.open = true")


def test_it_is_silent_and_asks_nobody(browser: Chromium, page: str) -> None:
    browser.look(1400)
    browser.open(page)
    open_all(browser)
    assert browser.log("browser") == []
    assert set(browser.requests()) <= {page, "data:,"}


def test_what_somebody_adds_to_it_is_neither_loaded_nor_run(browser: Chromium, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = f"http://127.0.0.1:{server.getsockname()[1]}"
        added = (
            f"<img src={there}/a.png><script src={there}/b></script><link rel=stylesheet href={there}/c>"
            "<script>document.title='run'</script><p style='color:red' onclick='x()'>x</p>"
        )
        browser.open(written(tmp_path, html(of_replay(month())).replace("<main>", f"<main>{added}")))
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
    messages = [entry["message"] for entry in browser.log("browser")]
    assert len([message for message in messages if "Content Security Policy" in message]) >= 5
    assert len([url for url in browser.requests() if url.startswith(there)]) == 3  # the test above would see it
    assert browser.run("return document.title").startswith("Which quota")


def test_every_column_of_every_table_is_sorted_by_a_click(browser: Chromium, page: str) -> None:
    browser.look(1400)
    browser.open(page)
    open_all(browser)
    before = ask(browser, "tables")
    assert before
    for number, table in enumerate(before):
        for column in range(len(table)):
            for _ in range(2):
                browser.click(
                    f"return document.querySelectorAll('table')[{number}].querySelectorAll('button')[{column}]"
                )
                _is_sorted(ask(browser, "tables")[number], table, column)
    assert browser.log("browser") == []


@pytest.mark.parametrize("key", [ENTER, SPACE], ids=["enter", "space"])
def test_every_column_is_reached_and_sorted_by_the_keyboard(browser: Chromium, page: str, key: str) -> None:
    browser.look(360)
    browser.open(page)
    open_all(browser)
    before = ask(browser, "tables")
    browser.run("document.querySelector('summary, th button').focus()")
    reached = set()
    for _ in range(sum(map(len, before)) + 3 * len(before) + 10):
        found = browser.run(
            "const heading = document.activeElement.closest('th');"
            "const tables = [...document.querySelectorAll('table')];"
            "return heading && [tables.indexOf(heading.closest('table')), heading.cellIndex]"
        )
        if found and tuple(found) not in reached:
            number, column = found
            reached.add((number, column))
            browser.type(key)
            _is_sorted(ask(browser, "tables")[number], before[number], column)
        browser.type("\ue004")  # Tab
    assert reached == {(number, column) for number, table in enumerate(before) for column in range(len(table))}


def _is_sorted(table: list[dict[str, Any]], before: list[dict[str, Any]], column: int) -> None:
    """The column says how it is sorted, is so, has what it had, and no other says anything."""
    here = table[column]
    orders = here["orders"] if here["isText"] else [float(order) for order in here["orders"]]
    assert here["sort"] in ("ascending", "descending")
    utf_16 = (lambda text: text.encode("utf-16-be")) if here["isText"] else None
    assert orders == sorted(orders, key=utf_16, reverse=here["sort"] == "descending")
    assert sorted(here["orders"]) == sorted(before[column]["orders"])
    assert {each["sort"] for i, each in enumerate(table) if i != column} == {"none"}


@pytest.mark.parametrize("scheme", ["light", "dark", "paper"])
@pytest.mark.parametrize("width", [360, 1400])
def test_contrast_is_that_of_wcag_aa(browser: Chromium, page: str, scheme: str, width: int) -> None:
    browser.look(width, "dark" if scheme == "paper" else scheme, "print" if scheme == "paper" else "")
    browser.open(page)
    open_all(browser)
    checked, found = ask(browser, "faint")
    assert checked > 300
    assert found == []


@pytest.mark.parametrize("width", [320, 360, 700, 1400])
def test_nothing_sticks_out_or_stands_over_another(browser: Chromium, page: str, width: int) -> None:
    browser.look(width)
    browser.open(page)
    assert ask(browser, "wide") == []
    open_all(browser)
    assert ask(browser, "wide") == []


def test_each_picture_is_shown_once_in_the_width_that_fits(browser: Chromium, page: str) -> None:
    for width, media, form in ((360, "", "narrow"), (1400, "", "broad"), (700, "print", "broad")):
        browser.look(width, "light", media)
        browser.open(page)
        for (shown,) in ask(browser, "pictures"):
            assert form in shown


def test_on_paper_everything_is_open_and_afterwards_as_it_was(browser: Chromium, page: str) -> None:
    browser.look(1400)
    browser.open(page)
    closed = "return document.querySelectorAll('details:not([open])').length"
    some = browser.run(closed)
    assert some
    browser.run("dispatchEvent(new Event('beforeprint'))")
    assert browser.run(closed) == 0
    browser.run("dispatchEvent(new Event('afterprint'))")
    assert browser.run(closed) == some


ROWS = """return [...document.querySelectorAll(arguments[0])].map(row => [...row.cells].map(cell =>
  cell.textContent).join(""))"""


def test_on_paper_each_page_of_a_table_has_its_header_and_no_heading_stands_alone(
    browser: Chromium, page: str, tmp_path: Path
) -> None:
    """Chromium's own printing, as text: the first line of a sheet and the last one."""
    require("poppler")
    browser.look(1400)
    browser.open(page)
    printed = base64.b64decode(browser.devtools("Page.printToPDF", paperHeight=6)["data"])
    (tmp_path / "page.pdf").write_bytes(printed)
    text = subprocess.run(["pdftotext", "-layout", tmp_path / "page.pdf", "-"], capture_output=True, check=True).stdout
    sheets = [sheet.split("\n") for sheet in text.decode().split("\f")]
    bare = [["".join(line.split()) for line in sheet if line.strip()] for sheet in sheets]
    rows, headers, headings = (
        {"".join(text.split()) for text in browser.run(script, selector)}
        for script, selector in (
            (ROWS, "tbody tr"),
            (ROWS, "thead tr"),
            ("return [...document.querySelectorAll(arguments[0])].map(each => each.textContent)", "h2, figcaption"),
        )
    )
    headers = {header.rstrip("↑↓↕") for header in headers}
    assert len(bare) > 3
    assert [sheet[0] for sheet in bare if sheet and sheet[0] in rows] == []
    assert [sheet[-1] for sheet in bare if sheet and sheet[-1] in headers | headings] == []


def test_a_screen_reader_is_told_what_each_thing_is(browser: Chromium, page: str) -> None:
    browser.look(1400)
    browser.open(page)
    open_all(browser)
    nodes = [node for node in browser.devtools("Accessibility.getFullAXTree")["nodes"] if not node.get("ignored")]
    named: dict[str, list[str]] = {}
    for node in nodes:
        named.setdefault(node["role"]["value"], []).append(node.get("name", {}).get("value", ""))
    assert {"heading", "image", "table", "columnheader", "button", "main", "contentinfo", "banner"} <= set(named)
    assert all(name for role in ("image", "table", "columnheader", "button") for name in named[role])
    described = [node for node in nodes if node["role"]["value"] == "image"]
    assert all("The numbers are in the table." in node["description"]["value"] for node in described)
