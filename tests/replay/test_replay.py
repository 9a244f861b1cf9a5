"""`ratelimitctl replay` as an administrator runs it: known numbers, the refusals of a daemon, a page for people."""

import json
import os
import pty
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from ratelimitd.ctl import main as ctl
from tests.control.conftest import Ctl
from tests.daemon.client import new_instance
from tests.daemon.conftest import Start
from tests.daemon.process import config
from tests.replay.logs import classic, ctime, iso, mail, postfix

NOON = 1_795_694_400  # 2026-11-26 12:00 UTC
DAY_S = 86_400
PROGRAM = Path(sys.executable).with_name("ratelimitctl")


def replay(folder: Path, capsys: pytest.CaptureFixture[str], log: str | bytes, *options: str,
           **tables: object) -> str:  # fmt: skip
    """What it prints of a log."""
    tables.setdefault("timezone", "UTC")
    (folder / "ratelimitd.toml").write_text(config(**tables))
    (folder / "mail.log").write_bytes(log if isinstance(log, bytes) else log.encode())
    os.utime(folder / "mail.log", (NOON + 9 * DAY_S, NOON + 9 * DAY_S))
    capsys.readouterr()
    assert ctl.main(["-c", str(folder / "ratelimitd.toml"), *options, "replay", str(folder / "mail.log")]) == 0
    return capsys.readouterr().out


LIMITS = [
    {"name": "daily", "quota": 10, "quotas": {"news@example.com": "unlimited"}},
    {"name": "hour", "quota": 6, "period": "1h", "window": "sliding", "enforce": False},
]
MAILS = [
    mail(NOON, "alice@example.com", 4),
    mail(NOON + 60, "Alice@example.com", 3),
    mail(NOON + 120, "bob@example.com", 2),
    mail(NOON + 7200, "alice@example.com", 5),
    mail(NOON + 7260, "news@example.com", 40),
    mail(NOON + DAY_S, "alice@example.com", 1),
]


def test_the_json_of_a_log_with_known_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = "no time\n" + postfix(MAILS)
    assert json.loads(replay(tmp_path, capsys, log, "--json", limit=LIMITS)) == {
        "from": "2026-11-26T12:00:00+00:00",
        "to": "2026-11-27T12:00:02+00:00",
        "lines": 1 + 6 * 6 + 55,
        "unreadable": 1,
        "messages": 6,
        "recipients": 55,
        "limits": [
            {
                "limit": "daily",
                "period": "daily",
                "window": "fixed",
                "counts": "recipients",
                "enforced": True,
                "quota": 10,
                "accounts": 3,
                "recipients": 55,
                "refused_recipients": 2,
                "refused_accounts": 1,
                "refused": [
                    {"key": "alice@example.com", "refused": 2, "first": "2026-11-26T14:00:00+00:00", "worst": 12}
                ],
                "quantiles": {"50": 2, "90": 40, "99": 40, "100": 40},
                "quota_for": {"1%": 40, "0.1%": 40, "0": 40},
                "histogram": [
                    {"from": 1, "to": 1, "windows": 1, "accounts": 0},
                    {"from": 2, "to": 2, "windows": 1, "accounts": 1},
                    {"from": 11, "to": 12, "windows": 1, "accounts": 1},
                    {"from": 33, "to": 40, "windows": 1, "accounts": 1},
                ],
            },
            {
                "limit": "hour",
                "period": "1h",
                "window": "sliding",
                "counts": "recipients",
                "enforced": False,
                "quota": 6,
                "accounts": 3,
                "recipients": 55,
                "refused_recipients": 35,
                "refused_accounts": 2,
                "refused": [
                    {"key": "news@example.com", "refused": 34, "first": "2026-11-26T14:01:00+00:00", "worst": 40},
                    {"key": "alice@example.com", "refused": 1, "first": "2026-11-26T12:01:00+00:00", "worst": 7},
                ],
                "quantiles": {"50": 5, "90": 40, "99": 40, "100": 40},
                "quota_for": {"1%": 40, "0.1%": 40, "0": 40},
                "histogram": [
                    {"from": 1, "to": 1, "windows": 1, "accounts": 0},
                    {"from": 2, "to": 2, "windows": 1, "accounts": 1},
                    {"from": 5, "to": 5, "windows": 1, "accounts": 0},
                    {"from": 7, "to": 8, "windows": 1, "accounts": 1},
                    {"from": 33, "to": 40, "windows": 1, "accounts": 1},
                ],
            },
        ],
        "days": [
            {"day": "2026-11-26", "messages": 5, "recipients": 54, "refused_recipients": 37},
            {"day": "2026-11-27", "messages": 1, "recipients": 1, "refused_recipients": 0},
        ],
        "remarks": [f"{tmp_path}/mail.log: 1 of 92 lines could not be read, the first:", "  1: no time"],
    }


def test_the_page_is_understood_at_first_sight(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        replay(tmp_path, capsys, "no time\n" + postfix(MAILS), limit=LIMITS).replace(str(tmp_path), "")
        == """\
2026-11-26 12:00 to 2026-11-27 12:00: 92 lines, 6 messages with a login, 55 recipients

LIMIT  PERIOD      QUOTA  ACCOUNTS  RECIPIENTS  ACCOUNTS REFUSED  RECIPIENTS REFUSED     %
daily  daily          10         3          55                 1                   2   3.6
hour   1h sliding      6         3          55                 2                  35  63.6

refused by limit daily, most first
KEY                REFUSED  FIRST AT          MOST TRIED IN A WINDOW
alice@example.com        2  2026-11-26 14:00                      12

would be refused by limit hour, which is not enforced, most first
KEY                REFUSED  FIRST AT          MOST TRIED IN A WINDOW
news@example.com        34  2026-11-26 14:01                      40
alice@example.com        1  2026-11-26 12:01                       7

what an account uses in a window in which it sends
LIMIT  HALF AT MOST  90 % AT MOST  99 % AT MOST  MOST
daily             2            40            40    40
hour              5            40            40    40

the quota that would have refused
LIMIT  1 % OF ACCOUNTS  0.1 %  NONE
daily               40     40    40
hour                40     40    40

/mail.log: 1 of 92 lines could not be read, the first:
  1: no time
"""
    )


def test_a_log_can_control_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = b"\x1b[2J\x07\xe2\x80\xae\xff\n" + postfix([mail(NOON, "\x1b]0;x\x07\u202ealice", 9)]).encode()
    for options in ((), ("--json",)):
        out = replay(tmp_path, capsys, log, *options, limit=[{"quota": 1}])
        assert not set(out) & set("\x1b\x07\u202e\xff")
        assert "alice" in out


def test_a_log_without_logins_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "sasl_username=; there is none" in replay(tmp_path, capsys, "Nov 26 12:00:00 mx1 postfix/qmgr[9]: started\n")
    assert "none of them of a mail log" in replay(tmp_path, capsys, "x\n")


def test_a_log_whose_mails_no_queue_manager_took_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As where syslog writes qmgr's lines to another file, or has dropped them."""
    lines = postfix([mail(NOON + i, "alice@example.com") for i in range(3)]).splitlines(keepends=True)
    smtpd = "".join(line for line in lines if "smtpd" in line)
    said = replay(tmp_path, capsys, smtpd)
    assert "3 of 3 mails that were begun with a login have no line of qmgr with nrcpt=, and do not count" in said
    assert "there is none" not in said
    assert "mails that were begun" not in replay(tmp_path, capsys, "".join(lines))


def test_a_mail_of_absurdly_many_recipients_is_not_refused_more_often_than_it_was_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = postfix([mail(NOON, "alice@example.com")]).replace("nrcpt=1 ", "nrcpt=9999999999 ")
    answer = json.loads(replay(tmp_path, capsys, text, "--json", limit=[{"quota": 3}]))
    (limit,) = answer["limits"]
    assert answer["recipients"] == limit["recipients"] == limit["refused_recipients"] + 3


def test_free_recipients_are_those_that_the_log_knows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sent = mail(NOON, "alice@example.com", 4)._replace(recipients=["a@example.com", "b@example.com", "c@example.org"])
    answer = json.loads(
        replay(tmp_path, capsys, postfix([sent]), "--json", limit=[{"free_recipients": ["@example.com"]}])
    )
    assert (answer["recipients"], answer["limits"][0]["recipients"]) == (3, 1)


def test_a_limit_on_messages_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    limits = [{"name": "daily", "quota": 1, "count": "messages"}]
    rows = replay(tmp_path, capsys, postfix(MAILS), limit=limits).splitlines()[2:4]
    assert " ".join(rows[0].split()) == "LIMIT PERIOD QUOTA ACCOUNTS MESSAGES ACCOUNTS REFUSED MESSAGES REFUSED %"
    assert " ".join(rows[1].split()) == "daily daily, messages 1 3 6 1 2 33.3"


def test_files_through_a_pipe_in_the_wrong_order_are_noticed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "2 lines are more than an hour earlier" in replay(tmp_path, capsys, postfix(MAILS[5:]) + postfix(MAILS[:1]))
    assert "earlier" not in replay(tmp_path, capsys, postfix(MAILS))


def test_a_file_that_is_named_twice_counts_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    replay(tmp_path, capsys, postfix(MAILS, iso))
    (tmp_path / "again").symlink_to("mail.log")
    again = [str(tmp_path / "mail.log"), str(tmp_path / "again")]
    assert ctl.main(["-c", str(tmp_path / "ratelimitd.toml"), "--json", "replay", *again]) == 0
    assert json.loads(capsys.readouterr().out)["messages"] == 6


def test_a_file_that_is_missing_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    replay(tmp_path, capsys, "")
    assert ctl.main(["-c", str(tmp_path / "ratelimitd.toml"), "replay", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err == f"ratelimitctl: {tmp_path}/none: No such file or directory\n"


def test_it_needs_neither_database_nor_password_nor_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = {"backend": "mysql", "host": "192.0.2.1", "password": "x"}
    assert "6 messages" in replay(tmp_path, capsys, postfix(MAILS), store=store, state_dir="none/such")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mail.log", "ratelimitd.toml"]


@pytest.mark.parametrize("form", ["postfix", "ratelimitd", "json"])
def test_the_same_mails_through_a_daemon_are_refused_the_same(
    start: Start, ctl_of: Ctl, tmp_path: Path, form: str
) -> None:
    """The daemon is asked at RCPT; the log is Postfix's of these mails, or the daemon's own."""
    limits = [
        {"name": "month", "period": "monthly", "quota": 10, "quotas": {"news@example.com": 30}},
        {"name": "domain", "period": "monthly", "key": "domain", "quota": 40},
    ]
    log = {"format": "json"} if form == "json" else {}
    daemon = start(limit=limits, timezone="UTC", log=log)
    counts = [(f"{'abc'[i % 3]}@example.com", 1 + i % 5) for i in range(30)] + [("news@example.com", 12)]
    mails = [mail(NOON + i, login, count, f"4XyZ{i:08x}z") for i, (login, count) in enumerate(counts)]
    refused: Counter[str] = Counter()
    with daemon.client() as client:
        for sent in mails:
            instance, queue_id = new_instance(), ""
            for recipient in sent.recipients:
                reply = client.ask(sent.login, recipient=recipient, instance=instance, queue_id=queue_id)
                refused[sent.login] += reply != "DUNNO"
                queue_id = queue_id if reply != "DUNNO" else sent.queue_id
    assert daemon.stop() == 0
    file = daemon.log_file
    if form == "postfix":
        file = tmp_path / "mail.log"
        file.write_text(postfix(mails, iso))
    answer = ctl_of(daemon, "--json", "replay", str(file)).json
    month, domain = answer["limits"]
    by_month = {each["key"]: each["refused"] for each in month["refused"]}
    assert answer["recipients"] == sum(count for _, count in counts)
    assert sum(by_month.values()) + domain["refused_recipients"] == refused.total()
    assert domain["refused_recipients"] > 0
    assert answer["messages"] == len(mails) if form != "ratelimitd" else answer["messages"] >= len(mails)
    assert by_month == {key: total for key in by_month if (total := _of_month(daemon.log_file, key))}


def _of_month(log: Path, login: str) -> int:
    """How often the daemon's log says that the limit `month` refused a login."""
    lines = [line for line in log.read_text().splitlines() if "OVER_QUOTA" in line and login in line]
    return len([line for line in lines if "limit=month" in line or '"limit": "month"' in line])


def test_the_bar_is_on_a_terminal_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    replay(tmp_path, capsys, postfix(MAILS * 40))
    command: list[str | Path] = [PROGRAM, "-c", tmp_path / "ratelimitd.toml", "replay", tmp_path / "mail.log"]
    assert subprocess.run(command, capture_output=True, check=True, timeout=60).stderr == b""
    ours, theirs = pty.openpty()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, check=True, timeout=60)
    os.close(theirs)
    drawn = os.read(ours, 65536).decode()
    os.close(ours)
    assert "[" in drawn
    assert "lines" in drawn
    assert drawn.endswith("\r\x1b[K")
    assert "\x1b" not in done.stdout.decode()


def test_classic_and_ctime_are_what_the_daemons_write() -> None:
    assert classic(NOON) == "Nov 26 12:00:00"
    assert ctime(NOON) == "Thu Nov 26 12:00:00 2026"


@pytest.mark.long
def test_a_million_lines_take_less_than_ten_seconds_of_a_core_and_the_memory_of_their_accounts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    day = [mail(i, f"user{i * i % 997}@example.com", 1 + i % 3, "ID") for i in range(0, 86_400, 5)]
    lines = 0
    with (tmp_path / "big.log").open("w") as file:
        for number in range(7):
            at = NOON + number * DAY_S
            mails = [sent._replace(at=at + sent.at, queue_id=f"4X{number}{sent.at:08x}z") for sent in day]
            text = postfix(mails, iso)
            lines += text.count("\n")
            file.write(text)
    replay(tmp_path, capsys, "")
    script = (
        "import sys, time; from ratelimitd.ctl.main import main; main(sys.argv[1:]); "
        "print(time.process_time(), open('/proc/self/status').read().partition('VmHWM:')[2].split()[0])"
    )
    options = ["-c", str(tmp_path / "ratelimitd.toml"), "--json", "replay", str(tmp_path / "big.log")]
    done = subprocess.run(
        [sys.executable, "-c", script, *options], capture_output=True, check=True, timeout=600, text=True
    )
    answer, used = done.stdout.splitlines()
    seconds, kilobytes = map(float, used.split())
    assert json.loads(answer)["lines"] == lines
    assert lines > 900_000
    assert seconds < 10
    assert kilobytes < 120_000
