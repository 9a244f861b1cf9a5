"""The lines of the control channel: typed both ways, and understood whatever the other side's version."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from ratelimitd.control import commands
from ratelimitd.control.answers import AccountView, CountReset, CountsReset, Evidence, Failure, Reloaded, RunningStatus
from ratelimitd.control.commands import NO, Refused, Reload, Reset, Show, Status, decode_answer, encode_answer
from ratelimitd.control.status import DaemonStatus
from ratelimitd.daemon import privileges
from ratelimitd.errors import StartError

VIEW = AccountView("daily", "a@b", "daily", None, "limit daily", 3, None, 1, 9, "then", "recipients", True, True)


def test_every_command_names_the_type_of_its_answer() -> None:
    kinds = commands.AnyCommand.__args__
    assert {kind.__name__: commands.answer_type(kind).__name__ for kind in kinds} == {
        "Status": "RunningStatus",
        "Show": "ShownAccount",
        "History": "AccountHistory",
        "Top": "Ranking",
        "Set": "QuotaSet",
        "Unset": "QuotasUnset",
        "Reset": "CountsReset",
        "Dump": "DumpWritten",
        "PrintDump": "Cache",
        "Reload": "Reloaded",
        "Doctor": "Evidence",
    }


def test_an_answer_arrives_as_it_was_sent() -> None:
    reset = CountsReset("a@b", [CountReset(**msgspec.structs.asdict(VIEW), was=3)])
    assert decode_answer(encode_answer(reset), Reset("a@b")) == reset
    evidence = Evidence(1, ["unix:a"], 2, 3, 4, 5, 6, [("a", "a@b")], [("a", 7)])
    assert decode_answer(encode_answer(evidence), commands.Doctor()) == evidence


def test_an_error_is_raised_with_its_exit_status() -> None:
    with pytest.raises(Refused, match=r"^no such account$") as caught:
        decode_answer(encode_answer(Failure("no such account", NO)), Show("a@b"))
    assert caught.value.status == NO


def test_fields_of_a_later_version_are_ignored() -> None:
    line = b'{"needs_start": ["user"], "more": 1}\n'
    assert decode_answer(line, Reload()) == Reloaded(["user"])


@pytest.mark.parametrize("line", [b'{"needs_restart": []}\n', b'{"needs_start": 1}\n', b"[]\n", b"{\n", b"\xff\n", b""])
def test_an_answer_that_is_not_understood_is_an_error_in_one_line(line: bytes) -> None:
    with pytest.raises(Refused, match="the answer is not understood: ") as caught:
        decode_answer(line, Reload())
    assert caught.value.status == NO
    assert "\n" not in str(caught.value)


def test_a_missing_field_points_to_a_daemon_of_another_version() -> None:
    with pytest.raises(Refused, match="another version than ratelimitctl"):
        decode_answer(b'{"version": "0.0.1"}\n', Status())


def test_a_daemon_need_not_say_that_it_runs() -> None:
    fields = {field.name: field for field in msgspec.structs.fields(RunningStatus)}
    assert [name for name, field in fields.items() if not field.required] == ["running"]
    assert fields["running"].default is True


def test_the_owner_of_a_folder_is_whom_to_become(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = os.geteuid()
    assert privileges.owner_of(tmp_path) is None
    monkeypatch.setattr(os, "geteuid", lambda: ours + 1)
    with pytest.raises(StartError, match=f"{tmp_path} is another user's; ask as root"):
        privileges.owner_of(tmp_path)
    with pytest.raises(FileNotFoundError):
        privileges.owner_of(tmp_path / "none")


def test_the_status_is_made_before_trio_runs() -> None:
    parts: Any = SimpleNamespace(requests=0)
    assert DaemonStatus(Path("ratelimitd.toml"), parts, parts, parts, parts, parts).rate() == 0.0
