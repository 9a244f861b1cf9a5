"""The page of a report: the numbers of the answer, exact, and none that is not known."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ratelimitd.ctl.answers import Report, ReportedDay
from ratelimitd.ctl.page.content import MAX_ROWS
from ratelimitd.ctl.page.render import html
from ratelimitd.ctl.page.reported import of_report
from tests.control.conftest import Ctl
from tests.daemon.conftest import Start
from tests.page.reading import Element, read, rows
from tests.page.samples import HOSTILE, limit, reported


def page(answer: Report) -> Element:
    return read(html(of_report(answer)))


def table(of: Element, caption: str) -> list[list[str]]:
    (found,) = [each for each in of.all("table") if caption in each.all("caption")[0].text]
    return rows(found)


def test_the_numbers_are_exact() -> None:
    found = page(reported())
    assert all(text in found.all("header")[0].text for text in ("98,765", "432", "counted by limit daily"))
    when = "2026-11-03 00:00"
    assert table(found, "more than their quota") == [
        ["alice@example.com", "daily", "100", "900", "800", "2", when, when]
    ]
    assert table(found, "New accounts") == [["alice@example.com", when, "333", "950", "100"]]
    assert table(found, "sent in all") == [["alice@example.com", "4,000", "7", "900", "100"]]
    assert table(found, "nobody used half of") == [
        ["the limit's own", "hour", "70", "3", "2", "database"],
        ["alice@example.com", "hour", "70", "3", "2", "database"],
    ]
    assert table(found, "in each day")[-2:] == [["2026-11-29", "290", "2", "29"], ["2026-11-30", "300", "0", "30"]]
    assert found.all("ul", "notes")[0].all("li")[0].text == "quotas are those of now"


def test_an_unlimited_quota_is_above_all_others() -> None:
    found = page(reported(["alice", "bob"]))
    orders = [cell.attributes["data-order"] for cell in found.all("td") if cell.text == "unlimited"]
    assert orders == ["Infinity"]


def test_what_is_not_known_is_not_said() -> None:
    day = ReportedDay(day="2026-11-01", recipients=10, accounts=2, refused_recipients=None)
    found = page(reported([], limits=[limit(refused_recipients=None, refused_accounts=None)], days=[day]))
    assert "what it refuses is not counted (count_rejected = false)" in found.text
    assert table(found, "in each day") == [["2026-11-01", "10", "2"]]
    assert not [shape for svg in found.all("svg") for shape in svg.all(class_="over")]
    assert "refuses 0" not in found.text


def test_what_nobody_did_has_no_section() -> None:
    found = page(reported([], unused_quotas=[], remarks=[], days=[]))
    assert [heading.text for heading in found.all("h2")] == ["Limit daily"]
    empty = page(
        reported([], unused_quotas=[], remarks=[], days=[], limits=[], counted_by=None, recipients=0, accounts=0)
    )
    assert "Nothing was sent from 2026-11-01 00:00 to 2026-11-30 12:00." in empty.text


def test_many_accounts_are_cut_and_it_says_how_many_there_are() -> None:
    found = page(reported([f"a{i}@example.com" for i in range(MAX_ROWS + 3)]))
    assert len(table(found, "sent in all")) == MAX_ROWS
    assert "There are 3 more, and --json has them." in found.text


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_key_is_no_element(text: str) -> None:
    found, plain = page(reported([text], remarks=[text])), page(reported(["plain"], remarks=["plain"]))
    assert [each.tag for each in found.all() if each.tag != "wbr"] == [each.tag for each in plain.all()]
    assert all(c.isprintable() or c == "\n" for c in found.all("main")[0].text)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_the_page_is_written_where_root_may_although_report_becomes_the_daemon_s_user(
    folder: Path, make: Start
) -> None:
    daemon = make(limit=[{"name": "daily", "quota": 2}], user="daemon", store={"history_days": 30})
    daemon.state.mkdir()
    shutil.chown(daemon.state, "daemon")
    daemon.start()
    with daemon.client() as client:
        client.ask("alice@example.com")
    daemon.stop()
    (private := folder / "private").mkdir(mode=0o700)
    command: list[str | Path] = [Path(sys.executable).with_name("ratelimitctl"), "-c", daemon.file, "report", "--html"]
    done = subprocess.run([*command, private / "page.html"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "alice@" in read((private / "page.html").read_text()).text
    assert [path.name for path in private.iterdir()] == ["page.html"]


def test_report_writes_the_page_of_what_a_daemon_has_counted(start: Start, ctl_of: Ctl, tmp_path: Path) -> None:
    daemon = start(limit=[{"name": "daily", "quota": 2}], store={"history_days": 30, "flush_interval_s": 0.1})
    with daemon.client() as client:
        for i in range(3):
            client.ask("<script>alice</script>@example.com", recipient=f"r{i}@example.org")
    daemon.stop()
    said = ctl_of(daemon, "report", "--html", str(tmp_path / "page.html"))
    assert said.status == 0
    assert said.out == ctl_of(daemon, "report").out
    found = read((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert table(found, "sent in all") == [["<script>alice</script>@example.com", "3", "1", "3", "2"]]
    assert len(found.all("script")) == 1
