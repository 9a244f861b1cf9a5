"""The state directory's folders."""

import os
from pathlib import Path

import pytest

from ratelimitd.errors import StartError
from ratelimitd.state.directory import StateDir


def test_a_folder_is_made_for_the_service_and_its_group_and_made_once(tmp_path: Path) -> None:
    made = StateDir(tmp_path).folder("journal")
    assert made == tmp_path / "journal"
    assert made.stat().st_mode & 0o777 == 0o750 & ~_umask()
    (made / "1.segment").write_text("")
    assert StateDir(tmp_path).folder("journal") == made
    assert (made / "1.segment").exists()


def test_a_folder_that_cannot_be_made_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("a file")
    with pytest.raises(StartError, match=r"^state_dir: .*/journal: File exists; it must be writable$"):
        StateDir(tmp_path).folder("journal")


def test_a_folder_that_cannot_be_written_to_stops_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(StartError, match=r"^state_dir: .*/journal: Permission denied; it must be writable$"):
        StateDir(tmp_path).folder("journal")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
