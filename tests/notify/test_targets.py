"""Commands and webhooks, each for real."""

import hashlib
import hmac
import json
import sys
from pathlib import Path

import pytest
import trio

from ratelimitd.errors import ConfigError
from ratelimitd.net.credentials import Credentials
from ratelimitd.notify import configured, targets
from ratelimitd.notify.configured import checked
from ratelimitd.notify.target import DeliveryFailed, Target
from ratelimitd.notify.targets import make
from ratelimitd.settings import NotifySettings
from tests.instances.guard import session_pids
from tests.instances.waiting import wait_until
from tests.notify.receiver import Receiver

BODY = b'{"id": "1234"}'


def target(folder: Path, **settings: object) -> Target:
    return make(checked("notify[0]", NotifySettings(**settings), ["default", "hourly"], Credentials(folder)))  # type: ignore[arg-type]


def program(folder: Path, text: str) -> str:
    path = folder / "program"
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o755)
    return str(path)


async def test_a_command_gets_the_notice_on_its_standard_input(tmp_path: Path) -> None:
    out = tmp_path / "out"
    copy = program(tmp_path, f"import sys; open({str(out)!r}, 'wb').write(sys.stdin.buffer.read())")
    await target(tmp_path, command=[copy]).deliver("1234", BODY)
    assert out.read_bytes() == BODY


async def test_arguments_reach_the_command_as_they_are_written_without_a_shell(tmp_path: Path) -> None:
    out = tmp_path / "out"
    copy = program(tmp_path, f"import sys, json; open({str(out)!r}, 'w').write(json.dumps(sys.argv[1:]))")
    await target(tmp_path, command=[copy, "$HOME", "a b; true", "*"]).deliver("1234", BODY)
    assert json.loads(out.read_text()) == ["$HOME", "a b; true", "*"]


async def test_a_command_that_reads_nothing_is_no_failure(tmp_path: Path) -> None:
    await target(tmp_path, command=["true"]).deliver("1234", b"x" * 1_000_000)


async def test_a_command_that_fails_is_tried_again(tmp_path: Path) -> None:
    with pytest.raises(DeliveryFailed, match="exit status 3") as caught:
        await target(tmp_path, command=["/bin/sh", "-c", "exit 3"]).deliver("1234", BODY)
    assert not caught.value.for_good


async def test_a_command_that_does_not_exist_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(DeliveryFailed) as caught:
        await target(tmp_path, command=["/nowhere/program"]).deliver("1234", BODY)
    assert caught.value.for_good


async def test_a_command_that_takes_too_long_is_ended_with_all_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "KILL_AFTER_S", 0.1)
    pid = tmp_path / "pid"
    script = f"trap '' TERM; echo $$ >{pid}.new; mv {pid}.new {pid}; sleep 1000 & wait; sleep 1000"
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(target(tmp_path, command=["/bin/sh", "-c", script]).deliver, "1234", BODY)
            while not pid.exists():  # noqa: ASYNC110
                await trio.sleep(0.01)
            scope.cancel()
    session = int(pid.read_text())
    wait_until(lambda: not session_pids(session), "the end of the command")


async def test_a_webhook_gets_the_notice_and_its_id(tmp_path: Path) -> None:
    with Receiver() as receiver:
        await target(tmp_path, url=receiver.url).deliver("1234", BODY)
    (received,) = receiver.received
    assert received.body == BODY
    assert received.headers["Content-Type"] == "application/json"
    assert received.headers["Idempotency-Key"] == "1234"
    assert "X-Ratelimitd-Signature" not in received.headers


@pytest.mark.parametrize("in_file", [False, True])
async def test_a_webhook_with_a_secret_is_signed(tmp_path: Path, in_file: bool) -> None:
    (tmp_path / "secret").write_text("sesame\n")
    secret = {"secret_file": "secret"} if in_file else {"secret": "sesame"}
    with Receiver() as receiver:
        await target(tmp_path, url=receiver.url, **secret).deliver("1234", BODY)
    signature = hmac.new(b"sesame", BODY, hashlib.sha256).hexdigest()
    assert receiver.received[0].headers["X-Ratelimitd-Signature"] == f"sha256={signature}"


@pytest.mark.parametrize(
    ("status", "for_good"), [(404, True), (301, True), (429, False), (408, False), (500, False), (503, False)]
)
async def test_a_status_but_2xx_is_a_failure(tmp_path: Path, status: int, for_good: bool) -> None:
    with Receiver(status) as receiver, pytest.raises(DeliveryFailed, match=str(status)) as caught:
        await target(tmp_path, url=receiver.url).deliver("1234", BODY)
    assert caught.value.for_good is for_good


async def test_a_webhook_that_nobody_answers_is_tried_again(tmp_path: Path) -> None:
    with Receiver() as receiver:
        url = receiver.url
    with pytest.raises(DeliveryFailed) as caught:
        await target(tmp_path, url=url).deliver("1234", BODY)
    assert not caught.value.for_good


async def test_a_webhook_that_hangs_can_be_left(tmp_path: Path) -> None:
    with Receiver(0) as receiver:
        with trio.move_on_after(0.2) as scope:
            await target(tmp_path, url=receiver.url, timeout_s=100).deliver("1234", BODY)
        assert scope.cancelled_caught


async def test_a_log_never_shows_the_path_of_a_webhook(tmp_path: Path) -> None:
    assert target(tmp_path, url="https://hooks.example.com/T0/secret?x").name == "https://hooks.example.com"


@pytest.mark.parametrize(
    ("settings", "path", "found"),
    [
        ({}, "notify[0]", "neither command nor url"),
        ({"command": ["a"], "url": "https://a/"}, "notify[0]", "both command and url"),
        ({"command": ["a"], "limits": ["default", "no"]}, "notify[0].limits[1]", '"no"'),
        ({"url": "ftp://a/"}, "notify[0].url", '"ftp://a/"'),
        ({"url": "https://"}, "notify[0].url", '"https://"'),
        ({"url": "https://[::1"}, "notify[0].url", "Invalid"),
        ({"url": "https://a/", "secret": "a", "secret_file": "b"}, "notify[0]", "both secret and secret_file"),
        ({"url": "https://a/", "secret_file": "b"}, "notify[0].secret_file", "No such file"),
        ({"url": "https://a/", "secret_file": "empty"}, "notify[0].secret_file", "empty"),
        ({"url": "https://a/", "tls_ca": "b"}, "notify[0].tls_ca", "No such file"),
        ({"url": "https://a/", "tls_ca": "empty"}, "notify[0].tls_ca", "empty"),
    ],
)
async def test_a_wrong_setting_is_an_error_that_names_its_place(
    tmp_path: Path, settings: dict[str, object], path: str, found: str
) -> None:
    (tmp_path / "empty").write_text("")
    with pytest.raises(ConfigError) as caught:
        target(tmp_path, **settings)
    assert caught.value.path == path
    assert found in caught.value.found


async def test_without_httpx_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configured, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'bin/pip install "ratelimitd\[notify\]"'):
        target(tmp_path, url="https://a/")
    assert target(tmp_path, command=["a"]).name == "a"


def test_the_id_of_a_target_stays_when_the_file_changes_elsewhere(tmp_path: Path) -> None:
    one = checked("notify[0]", NotifySettings(command=["a"], at=[50]), ["default"], Credentials(tmp_path))
    two = checked("notify[1]", NotifySettings(command=["a"], retries=1), ["default"], Credentials(tmp_path))
    other = checked("notify[1]", NotifySettings(command=["b"]), ["default"], Credentials(tmp_path))
    assert one.id == two.id != other.id
