"""A second daemon, a stranger, a wrong uid, an administrator's words at the wrong door: refused, in one clear line."""

import os
import pwd
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from ratelimitd.control.answers import RunningStatus
from ratelimitd.control.commands import Status
from ratelimitd.core.pending import ACCOUNTS
from ratelimitd.ctl import main as ctl
from ratelimitd.ctl.client import ask
from tests.daemon.client import PolicyClient, request
from tests.daemon.conftest import Start
from tests.daemon.process import Ratelimitd, config
from tests.hostile.figures import rss
from tests.instances.ports import free_port

WORDS = (
    "printshm",
    "status",
    "reload",
    "shutdown",
    "STOP",
    '{"verb":"reset","key":"alice@example.com"}',
    "GET / HTTP/1.0\r",
)


def ask_as(user: str, path: Path) -> bytes:
    """What a process of another user is answered on a unix socket; b"" where it is refused."""
    account = pwd.getpwnam(user)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgid(account.pw_gid)
            os.setuid(account.pw_uid)
            with PolicyClient(path) as client, suppress(ConnectionError):
                client.send(request())
                os.write(write, client.socket.recv(1000))
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        answered = answer.read()
    os.waitpid(child, 0)
    return answered


def test_a_second_daemon_on_the_same_state_is_refused(start: Start, folder: Path) -> None:
    daemon = start()
    second = Ratelimitd(folder, config())
    process = second.spawn()
    assert process.wait(60) == 75
    [line] = second.output().splitlines()
    assert line.startswith(f"ratelimitd: {second.file}:1: state_dir: {daemon.state}: ")
    with daemon.client() as client:
        assert client.ask() == "DUNNO"
    assert daemon.stop() == 0


def test_a_second_daemon_on_the_same_port_is_refused(start: Start, folder: Path) -> None:
    daemon = start()
    (folder / "second").mkdir()
    second = Ratelimitd(folder / "second", config(server={"listen": daemon.listen}))
    assert second.spawn().wait(60) == 75
    [line] = second.output().splitlines()
    in_use = f"server.listen: {daemon.listen[0]}: already in use; is another ratelimitd running?"
    (number,) = (i for i, text in enumerate(second.file.read_text().splitlines(), 1) if text.startswith("listen"))
    assert line == f"ratelimitd: {second.file}:{number}: {in_use}"
    assert daemon.stop() == 0


def test_a_thousand_strangers_are_refused_in_a_few_lines(start: Start) -> None:
    daemon = start(server={"allow": ["192.0.2.0/24"]})
    for _ in range(1000):
        with daemon.client() as client:
            assert client.at_end()
    assert daemon.stop() == 0
    lines = [line for line in daemon.log() if line.startswith("refused a connection")]
    assert len(lines) == 11
    assert all(line.endswith("reason=not in server.allow") for line in lines[:10])
    assert int(lines[-1].removeprefix("refused a connection: more_of_these=")) >= 990


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_wrong_uid_on_the_unix_socket_is_refused_and_named(start: Start, folder: Path) -> None:
    path = folder / "socket"
    server = {"listen": [f"unix:{path}"], "unix_mode": "0666", "unix_users": ["root", "daemon"]}
    daemon = start(server=server)
    nobody = pwd.getpwnam("nobody")
    assert ask_as("nobody", path) == b""
    assert ask_as("daemon", path) == b"action=DUNNO\n\n"
    with PolicyClient(path) as client:
        assert client.ask() == "DUNNO"
    assert daemon.stop() == 0
    refused = [line for line in daemon.log() if line.startswith("refused a connection")]
    assert refused == [f"refused a connection: peer=uid {nobody.pw_uid}, reason=not in server.unix_users"]


@pytest.mark.parametrize("word", WORDS)
def test_words_for_the_administrator_are_nothing_on_the_policy_port(start: Start, word: str) -> None:
    daemon = start(limit=[{"quota": 1}])
    with daemon.client() as client:
        client.ask()
        daemon.wait_for_log("status=INSERT")  # lines are written once the reply is sent
        before = daemon.log()
        for text in (f"{word}\n\n", f"{word}=1\n\n", f"request={word}\nsasl_username=alice@example.com\n\n"):
            client.send(text.encode())
            assert client.reply() == "DUNNO"
        client.send(request(helo_name=word, sender=f"{word}@example.com", instance="1.word"))
        assert client.reply().startswith("450 ")
        daemon.wait_for_log("status=OVER_QUOTA")
        assert len(daemon.log()) - len(before) == 1  # the last one alone is a request
    assert daemon.stop() == 0
    assert daemon.used() == {"alice@example.com": 2}


VICTIM = "victim@example.com"


def http(begins: str) -> bytes:
    """What a web application sends to where it was told to, with a request to charge somebody in its body."""
    body = request(VICTIM, protocol_state="DATA", recipient_count=1_000_000)
    return f"{begins}Host: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize(
    "sent",
    [
        http("POST / HTTP/1.1\r\n"),
        http("GET /?request=smtpd_access_policy HTTP/1.1\r\n"),
        http("request=smtpd_access_policy / HTTP/1.1\r\n"),
        http("POST /?a=b HTTP/1.1\n").replace(b"\r", b""),
        b"EHLO client.example.net\r\n",
        b"PING\r\n",
        b"printshm\n",
        b"\n" + request(VICTIM),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_who_does_not_begin_as_postfix_is_closed_at_once_and_charges_nobody(start: Start, sent: bytes) -> None:
    daemon = start(server={"request_timeout_s": 3600})
    with daemon.client() as postfix:
        assert postfix.ask() == "DUNNO"
        with daemon.client() as client:
            client.send(sent)
            assert client.at_end()
        with daemon.client() as client:
            for byte in sent:
                with suppress(OSError):
                    client.send(bytes([byte]))
            assert client.at_end()
        assert postfix.ask() == "DUNNO"
    assert daemon.stop() == 0
    lines = [line for line in daemon.log() if line.startswith("closed a connection")]
    assert len(lines) == 2
    assert all(": peer=127.0.0.1:" in line and ", reason=not Postfix: a line that " in line for line in lines)
    assert daemon.used() == {"alice@example.com": 2}


def test_a_thousand_who_do_not_begin_as_postfix_are_a_few_lines_and_a_number(start: Start) -> None:
    daemon = start()
    for _ in range(1000):
        with daemon.client() as client:
            client.send(b"GET / HTTP/1.1\r\n")
            assert client.at_end()
    found = ask(daemon.state / "control.sock", Status())
    assert isinstance(found, RunningStatus)
    assert (found.not_postfix, found.too_long, found.requests) == (1000, 0, 0)
    assert daemon.stop() == 0
    lines = [line for line in daemon.log() if line.startswith("closed a connection")]
    assert len(lines) == 11


def test_no_password_is_anywhere_it_can_be_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret = "tell-nobody"
    url = f"http://user:{secret}@127.0.0.1:{free_port()}/{secret}?token={secret}"
    text = config(
        store={"backend": "mysql", "host": f"127.0.0.1:{free_port()}", "password": secret, "timeout_s": 0.2},
        notify=[{"url": url, "secret": secret, "at": [1], "timeout_s": 0.2, "retries": 0}],
        log={"level": "debug", "stderr": True},
        limit=[{"quota": 1}],
    )
    daemon = Ratelimitd(folder, text)
    try:
        daemon.start()
        process = Path(f"/proc/{daemon.process.pid}")
        shown = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        with daemon.client() as client:
            for _ in range(3):
                client.ask()
        daemon.dump()
        daemon.wait_for_log("a notice cannot be delivered")
        for verb in ("status", "check", "plugins", "reload"):
            for more in ([], ["--json"]):
                ctl.main(["-c", str(daemon.file), verb, *more])
        daemon.file.write_text(text.replace("http://user", "ftp://user"))
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_log("the configuration is not applied")
        ctl.main(["-c", str(daemon.file), "check", "--json"])
        daemon.file.write_text(text)
        assert daemon.stop() == 0
        daemon.spawn("--check").wait(60)
        shown += "".join(capsys.readouterr()).encode()
        shown += (
            daemon.output().encode() + "\n".join(daemon.log()).encode() + (daemon.state / "cache.dump").read_bytes()
        )
        assert b"store" in shown
        assert secret.encode() not in shown
    finally:
        daemon.kill()


def test_the_dump_of_many_accounts_is_no_burden_on_memory(start: Start) -> None:
    accounts = ACCOUNTS - 1  # with more, a flush begins, which takes memory of its own
    daemon = start(limit=[{"quota": "unlimited"}], store={"flush_interval_s": 3600})
    with daemon.client() as client:
        client.send(b"".join(request(f"user{number}@example.com") for number in range(accounts)))
        for _ in range(accounts):
            client.reply()
    daemon.dump()
    before = rss(daemon.process.pid)
    for _ in range(3):
        assert len(daemon.dump()) == accounts + 2
    assert rss(daemon.process.pid) - before < 4 << 20
    assert daemon.stop() == 0
