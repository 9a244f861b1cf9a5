"""What grows with what clients send is bounded: the memo, the reader's buffer, a log line, its backlog."""

import json
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ratelimitd.config.read import read
from ratelimitd.core.memo import Memo
from ratelimitd.errors import RequestTooLong
from ratelimitd.log.log import MAX_LINE, Log
from ratelimitd.log.sinks import SyslogSink
from ratelimitd.net.credentials import Credentials
from ratelimitd.request import RequestReader
from ratelimitd.settings import LogSettings
from ratelimitd.stores.mysql.access import Access
from ratelimitd.text import MAX_BYTES, MAX_FIELD
from tests.core.build import arrived, ask, limit, memo, policy, rcpt, record, request
from tests.hostile.lines import Lines


def remembered(charges: Memo) -> int:
    generations = (charges._young, charges._old, charges._dead)
    return sum(transaction.remembered for young in generations for transaction in young.values())


@pytest.mark.parametrize("per_transaction", [1, 7, 100])
def test_recipients_are_remembered_up_to_a_bound_over_all_transactions(per_transaction: int) -> None:
    charges = memo(1_000_000, max_recipients=1000)
    for number in range(5000 // per_transaction):
        instance = f"{number}.a"
        for recipient in range(per_transaction):
            charges.admit(instance, charges.find(instance), f"{recipient}@example.org", 1)
            assert remembered(charges) <= 1000
        assert charges.find(instance)
    assert charges.forgotten


def test_a_transaction_outlives_half_the_bound_of_newer_recipients() -> None:
    charges = memo(1_000_000, max_recipients=1000)
    charges.admit("first", None, "a@example.org", 1)
    for recipient in range(500):
        charges.admit("newer", charges.find("newer"), f"{recipient}@example.org", 1)
    assert charges.find("first")
    assert not charges.forgotten


def test_transactions_that_age_are_not_counted_as_forgotten_by_a_bound() -> None:
    charges = memo(100)
    charges.admit("1.a", None, None, 1)
    charges.age()
    charges.age()
    assert (len(charges), charges.forgotten) == (0, 0)


def test_endless_instances_and_recipients_are_remembered_by_a_hash_and_still_charged_once() -> None:
    asked = policy(limit(1000))
    long = "x" * 60_000
    for instance in ("1." + long + "a", "1." + long + "b"):
        for recipient in (long + "@a", long + "@b"):
            first = rcpt(asked, recipient, instance)
            assert len(record(first.charge)) < 3 * MAX_BYTES
            assert [first.charged, rcpt(asked, recipient, instance).charged] == [1, 0]
    assert all(len(instance) <= MAX_BYTES for instance in asked.memo._young)


def test_a_reader_that_has_given_everything_out_keeps_nothing() -> None:
    reader = RequestReader(65536)
    for data in (b"helo_name=" + b"x" * 60_000 + b"\n\n", b"\n", b"a=b\n\nc=d\n\n", b"x\r\n\n"):
        assert list(arrived(reader, data))
        assert reader.buffer == b""


def test_a_million_attributes_are_a_request_that_is_too_long() -> None:
    reader = RequestReader(65536)
    data = b"".join(b"a%d=\n" % number for number in range(1_000_000))
    for start in range(0, 65_536, 16_384):
        assert reader.receive(data[start : start + 16_384]) is None
    with pytest.raises(RequestTooLong):
        reader.receive(data[65_536 : 65_536 + 16_384])


def test_as_many_attributes_as_fit_are_one_request() -> None:
    found = RequestReader(65536).receive(b"a=\n" * 21_000 + b"sasl_username=alice\nsasl_username=bob\n\n")
    assert found is not None
    assert found["sasl_username"] == "alice"
    assert len(found.attributes) == 2


@pytest.mark.parametrize("fmt", ["postfix-policyd", "json"])
def test_a_log_line_is_bounded_and_ends_with_our_own_fields(fmt: str) -> None:
    lines = Lines()
    log = Log([lines], LogSettings(format=fmt))  # type: ignore[arg-type]
    names = ("sasl_username", "client_name", "client_address", "sasl_method", "queue_id", "sender", "instance")
    asked = policy(limit(1000))
    what = request(**dict.fromkeys(names[1:], "\u202e" * 9_000), login="\u202e" * 9_000)
    verdict = ask(asked, what, 0)
    log.decisions([verdict])
    [line] = lines.texts
    assert len(line) < 6 * 7 * (MAX_FIELD + 100)
    assert line.isprintable()
    if fmt == "json":
        assert json.loads(line)["status"] == "INSERT"
    else:
        assert line.endswith("recipient_count=1, curr_count=1/1000, status=INSERT")


@pytest.mark.parametrize("fmt", ["postfix-policyd", "json"])
def test_an_event_about_a_client_is_bounded(fmt: str) -> None:
    lines = Lines()
    Log([lines], LogSettings(format=fmt)).error("a request could not be decided", request="\x07" * 100_000)  # type: ignore[arg-type]
    assert len(lines.texts[0]) < 7 * MAX_LINE


def test_the_backlog_of_a_stopped_syslogd_is_bounded_in_bytes(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslogd:
        syslogd.bind(str(folder / "log"))
        sink = SyslogSink(str(folder / "log"), "ratelimitd", "mail", 65_536)
        for _ in range(2000):
            sink.write([("info", "x" * 1000)])
        assert sum(map(len, sink._backlog)) <= 65_536
        assert 1900 < sink.dropped + len(sink._backlog) < 2000  # what syslogd's queue took is neither
        sink.close()


def test_no_password_is_in_the_text_of_a_configuration(folder: Path) -> None:
    file = folder / "ratelimitd.toml"
    file.write_text(
        'store.password = "tell-nobody"\n[[limit]]\nquota = 1\n[[notify]]\nurl = "http://a/"\nsecret = "tell-nobody"\n'
    )
    config = read(file)
    assert "tell-nobody" not in repr(config)
    assert "tell-nobody" not in repr(config.settings)
    assert "tell-nobody" not in repr(Access.of(config.settings.store, Credentials(folder)))


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "found"),
    [
        (256, 256, 4096, "192"),
        (256, 1024, 4096, "960"),
        (1024, 1024, 100, "100"),
        (80, 80, 4096, "16"),
        (79, 79, 4096, "the limit of open files (ulimit -n, LimitNOFILE) is 79; it must be at least 80"),
    ],
)
def test_connections_are_as_many_as_descriptors_allow(soft: int, hard: int, wanted: int, found: str) -> None:
    code = (
        "import resource, sys\nfrom ratelimitd.daemon.start import connections_for\n"
        "from ratelimitd.errors import StartError\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
        f"try: print(connections_for({wanted}))\nexcept StartError as error: print(error)\n"
    )
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < hard:
        pytest.skip("the hard limit of this machine is lower")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == found
