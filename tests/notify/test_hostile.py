"""Webhooks and commands that behave as badly as they can: the loop, the time and the stop stay what they are."""

import gc
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import pytest
import trio

from ratelimitd.notify import targets
from ratelimitd.notify.target import DeliveryFailed
from tests.conftest import missing
from tests.daemon.process import Ratelimitd, config
from tests.instances.guard import session_pids
from tests.instances.waiting import wait_until
from tests.notify.test_targets import BODY, target

STEP_S = 0.010
"""What one step of a delivery may keep the loop busy, in time of the processor: a machine may be busy otherwise."""

Answer = Callable[[socket.socket], None]


class Steps(trio.abc.Instrument):
    """The longest step of any task."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._began = time.thread_time()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._began = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.longest = max(self.longest, time.thread_time() - self._began)


def for_ever(text: bytes, after: bytes = b"HTTP/1.1 200 OK\r\n") -> Answer:
    """Answers `after`, then `text` without end."""

    def answer(client: socket.socket) -> None:
        client.sendall(after)
        while True:
            client.sendall(text)

    return answer


def endless_headers(client: socket.socket) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\n")
    for number in count():
        client.sendall(b"".join(b"X-%d-%d: a\r\n" % (number, n) for n in range(1000)))


def slow_drip(client: socket.socket) -> None:
    for byte in b"HTTP/1.1 200 OK\r\n" + b"X-Header: value\r\n" * 1000:
        client.sendall(bytes([byte]))
        threading.Event().wait(0.01)


def huge_body(client: socket.socket) -> None:
    for_ever(b"\n" * 65536, b"HTTP/1.1 204 OK\r\nContent-Length: 1000000000000\r\n\r\n")(client)


HOSTILE: dict[str, Answer] = {
    "103 for ever": for_ever(b"HTTP/1.1 103 E\r\n\r\n" * 1000, b""),
    "103 with headers for ever": for_ever(b"HTTP/1.1 103 E\r\nLink: </style.css>; rel=preload\r\n\r\n" * 1000, b""),
    "a status line for ever": for_ever(b"O" * 65536, b"HTTP/1.1 200 "),
    "a header for ever": for_ever(b"a" * 65536, b"HTTP/1.1 200 OK\r\nX: "),
    "headers for ever": endless_headers,
    "a folded header for ever": for_ever(b" a\r\n" * 1000, b"HTTP/1.1 200 OK\r\nX: a\r\n"),
    "very short headers": for_ever(b"a:\r\n" * 4000),
    "garbage": for_ever(b"\xff\0" * 4096, b""),
    "line ends": for_ever(b"\r\n" * 4096, b""),
}


@contextmanager
def server(answer: Answer) -> Iterator[str]:
    """The URL of a server that answers each request so."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    with client, suppress(OSError):
                        client.recv(65536)
                        answer(client)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.fixture
def no_garbage_of_others() -> Iterator[None]:
    """What other tests have left is not collected in a step: the daemon has frozen what it does not need to look at."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("no_garbage_of_others")
@pytest.mark.parametrize("kind", HOSTILE)
async def test_a_response_without_end_is_given_up_and_never_keeps_the_loop_busy(tmp_path: Path, kind: str) -> None:
    with server(HOSTILE[kind]) as url:
        hook = target(tmp_path, url=url, timeout_s=100)
        with suppress(DeliveryFailed):
            await hook.deliver("1", BODY)  # what is imported and made once
        trio.lowlevel.add_instrument(steps := Steps())
        with pytest.raises(DeliveryFailed):
            await hook.deliver("1234", BODY)
        trio.lowlevel.remove_instrument(steps)
    assert steps.longest < STEP_S


async def test_a_slow_drip_ends_with_the_time_of_the_target(tmp_path: Path) -> None:
    with server(slow_drip) as url:
        hook = target(tmp_path, url=url, timeout_s=100)
        with trio.move_on_after(0.5) as scope:
            await hook.deliver("1234", BODY)
    assert scope.cancelled_caught


async def test_a_huge_body_is_not_read(tmp_path: Path) -> None:
    with server(huge_body) as url:
        await target(tmp_path, url=url).deliver("1234", BODY)


async def test_a_redirection_is_not_followed(tmp_path: Path) -> None:
    asked: list[int] = []

    def redirect(client: socket.socket) -> None:
        asked.append(1)
        client.sendall(b"HTTP/1.1 307 Temporary\r\nLocation: /\r\nContent-Length: 0\r\n\r\n")

    with server(redirect) as url, pytest.raises(DeliveryFailed, match="HTTP status 307"):
        await target(tmp_path, url=url).deliver("1234", BODY)
    assert len(asked) == 1


async def test_a_webhook_is_reached_through_the_environment_s_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []

    def proxy(client: socket.socket) -> None:
        client.sendall(b"HTTP/1.1 204 OK\r\n\r\n")

    with server(proxy) as url:
        monkeypatch.setenv("http_proxy", url)
        monkeypatch.delenv("no_proxy", raising=False)
        await target(tmp_path, url="http://hooks.example.invalid/").deliver("1234", BODY)
        monkeypatch.setenv("no_proxy", "hooks.example.invalid")
        with pytest.raises(DeliveryFailed):
            await target(tmp_path, url="http://hooks.example.invalid/").deliver("1234", BODY)
    assert asked == []


# -- commands that have changed their user -----------------------------------------------------------------------------


def as_another_user(folder: Path) -> list[str]:
    """A command that becomes user 1, and hangs; whoever starts it. It leaves its process id in `folder`/pid."""
    setpriv = shutil.which("setpriv")
    if os.geteuid() != 0 or setpriv is None:
        missing("only root can make a program that changes its user")
    program = folder / "setpriv"
    shutil.copy(str(setpriv), program)
    program.chmod(0o4755)
    (folder / "hung").mkdir(mode=0o777)
    (folder / "hung").chmod(0o777)
    script = f"echo $$ >{folder}/hung/.pid; mv {folder}/hung/.pid {folder}/hung/pid; exec sleep 1000"
    return [str(program), "--reuid=2", "--regid=2", "--clear-groups", "/bin/sh", "-c", script]


@pytest.fixture
def hung(folder: Path) -> Iterator[Path]:
    """The file with the process id of a command that hangs, which is killed at the end."""
    pid = folder / "hung" / "pid"
    yield pid
    if pid.exists():
        for member in session_pids(int(pid.read_text())):
            os.kill(member, 9)


async def test_a_command_that_may_not_be_ended_is_left_alone(folder: Path, hung: Path) -> None:
    given_up = trio.Event()
    command = target(folder, command=as_another_user(folder))
    assert isinstance(command, targets.Program)
    failures: list[DeliveryFailed] = []

    async def deliver() -> None:
        try:
            await command.deliver("1234", BODY)
        except DeliveryFailed as failure:
            failures.append(failure)
        given_up.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(deliver)
        while not hung.exists():  # noqa: ASYNC110, ASYNC240
            await trio.sleep(0.01)
        os.seteuid(65534)
        try:
            with trio.fail_after(targets.KILL_AFTER_S):
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True):
                    await given_up.wait()
        finally:
            os.seteuid(0)
    assert failures[0].for_good
    pid = hung.read_text().strip()  # noqa: ASYNC240
    assert f"cannot be ended (pid {pid})" in str(failures[0])
    (process,) = command.left_alone
    process.kill()
    wait_until(lambda: process.poll() is not None, "the end of the command")


@pytest.mark.real
def test_a_stop_does_not_wait_for_a_command_that_may_not_be_ended(folder: Path, hung: Path) -> None:
    notify = [{"command": as_another_user(folder), "at": [100], "timeout_s": 300}]
    daemon = Ratelimitd(folder, config(user="daemon", limit=[{"quota": 1}], notify=notify))
    try:
        daemon.start()
        with daemon.client() as client:
            client.ask()
        wait_until(hung.exists, "the command")
        assert daemon.stop() == 0
    finally:
        daemon.kill()
    (line,) = [line for line in daemon.log() if "cannot be delivered" in line]
    assert "cannot be ended" in line
    assert not any("Traceback" in text for text in daemon.output().splitlines())
