"""`ratelimitctl replay --html FILE`: the file is there whole or not at all, and what is wrong is one line."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ratelimitd.ctl import main as ctl
from ratelimitd.ctl.page import render
from tests.daemon.process import config
from tests.page.reading import read
from tests.replay.logs import mail, postfix
from tests.replay.test_replay import MAILS, NOON

ROOT = Path(__file__).parents[2]
Replay = Callable[..., int]


@pytest.fixture
def replay(tmp_path: Path) -> Replay:
    """Replays a log with a known number of recipients, with these options."""
    (tmp_path / "ratelimitd.toml").write_text(config(timezone="UTC"))
    (tmp_path / "mail.log").write_text(postfix(MAILS))
    os.utime(tmp_path / "mail.log", (NOON + 9 * 86_400,) * 2)
    return lambda *options: ctl.main(
        ["-c", str(tmp_path / "ratelimitd.toml"), "replay", str(tmp_path / "mail.log"), *map(str, options)]
    )


def test_a_page_is_written_beside_the_text_or_the_json(
    replay: Replay, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replay() == 0
    text = capsys.readouterr().out
    page = tmp_path / "page.html"
    assert replay("--html", page) == 0
    assert capsys.readouterr().out == text
    written = page.read_text(encoding="utf-8")
    assert "55 recipients" in read(written).all("main")[0].text
    assert replay("--html", page, "--json") == 0
    assert json.loads(capsys.readouterr().out)["recipients"] == 55
    assert page.read_text(encoding="utf-8") == written


def test_the_command_of_the_readme_makes_a_page_before_anything_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a checkout whose virtual environment its first command has made."""
    [command] = re.findall(r"`\.venv/bin/ratelimitctl (-c \S+ replay [^`]*)`", (ROOT / "README.md").read_text("utf-8"))
    (tmp_path / "mail.log").write_text(postfix(MAILS))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    words = command.replace("/var/log/mail.log*", "mail.log").split()
    assert ctl.main(words) == 0
    assert read((tmp_path / words[-1]).read_text(encoding="utf-8")).all("svg")


def test_a_hyphen_is_standard_output_and_nothing_else_is_there(
    replay: Replay, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replay("--html", "-") == 0
    out = capsys.readouterr().out
    assert out.startswith("<!DOCTYPE html>\n<html lang=")
    assert out.endswith("</html>\n")
    assert replay("--html", "-", "--json") == 2
    assert json.loads(capsys.readouterr().out)["exit"] == 2


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o000, 0o644)])
def test_its_mode_is_that_of_a_page(replay: Replay, tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        assert replay("--html", tmp_path / "page.html") == 0
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert (tmp_path / "page.html").stat().st_mode & 0o7777 == mode


def test_an_earlier_page_is_replaced_in_one_step(replay: Replay, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("before")
    with (tmp_path / "page.html").open() as open_before:
        assert replay("--html", tmp_path / "page.html") == 0
        assert open_before.read() == "before"
    assert (tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")


def test_a_link_is_replaced_and_what_it_leads_to_stays(replay: Replay, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "page.html").symlink_to("precious")
    assert replay("--html", tmp_path / "page.html") == 0
    assert not (tmp_path / "page.html").is_symlink()
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.parametrize(
    ("name", "why"),
    [("none/page.html", "No such file or directory"), ("folder", "Is a directory"), ("p" * 256, "File name too long")],
)
def test_a_page_that_cannot_be_written_is_one_line_before_the_work(
    replay: Replay, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, why: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "mail.log").unlink()
    assert replay("--html", tmp_path / name) == 2
    assert capsys.readouterr() == ("", f"ratelimitctl: {tmp_path / name}: {why}\n")


def test_what_fails_leaves_the_earlier_page_and_no_other_file(
    replay: Replay, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "page.html").write_text("before")
    (tmp_path / "mail.log").unlink()
    assert replay("--html", tmp_path / "page.html") == 2
    assert capsys.readouterr().err == f"ratelimitctl: {tmp_path}/mail.log: No such file or directory\n"
    assert (tmp_path / "page.html").read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "ratelimitd.toml"]


def test_a_pipe_is_written_to_and_stays(replay: Replay, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    read_: list[str] = []
    reader = threading.Thread(target=lambda: read_.append((tmp_path / "pipe").read_text()))
    reader.start()
    assert replay("--html", tmp_path / "pipe") == 0
    reader.join(60)
    assert read_[0].endswith("</html>\n")
    assert (tmp_path / "pipe").is_fifo()


def test_without_the_extra_it_says_what_to_install(
    replay: Replay, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    render._templates.cache_clear()
    assert replay("--html", tmp_path / "page.html") == 2
    pip = Path(sys.prefix, "bin", "pip")
    wanted = f'the extra "report": {pip} install "ratelimitd[report]"'
    assert capsys.readouterr() == ("", f"ratelimitctl: --html needs {wanted}\n")
    assert replay() == 0


def test_jinja2_is_loaded_for_a_page_alone() -> None:
    script = "import sys; import ratelimitd.ctl.main; sys.exit('jinja2' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_a_log_with_a_login_that_is_html_has_a_page_that_shows_it(replay: Replay, tmp_path: Path) -> None:
    log = postfix([mail(NOON, "<script>alert(1)</script>@example.com", 2000)])
    (tmp_path / "mail.log").write_text(log)
    assert replay("--html", tmp_path / "page.html") == 0
    page = read((tmp_path / "page.html").read_text())
    assert [cell.text for cell in page.all("td", "key")] == ["<script>alert(1)</script>@example.com"]
    assert len(page.all("script")) == 1
