"""contrib/doc/windows.md: what people see of a sliding limit is printed as the page says."""

import json
import re
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from ratelimitd.control.answers import LimitRanking, Ranking
from ratelimitd.control.dump import HEADER, lines
from ratelimitd.control.views import view
from ratelimitd.core.action import Template
from ratelimitd.core.limits import Limit
from ratelimitd.core.policy import Policy
from ratelimitd.core.quotas import Held, Source
from ratelimitd.core.verdict import Verdict
from ratelimitd.core.windows import Sliding
from ratelimitd.ctl import tables
from ratelimitd.ctl.top.frame import Shown, table
from ratelimitd.log.log import json_line, policyd_line
from ratelimitd.notify.notices import Watch
from ratelimitd.settings import DEFAULT_ACTION
from tests.core.build import data, limit, memo, policy

ZONE = ZoneInfo("Europe/Zurich")
PAGE = (Path(__file__).parents[2] / "contrib" / "doc" / "windows.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
PRINTED = [text for language, text in BLOCKS if not language]
CLIENT = {"client_name": "host.example.com", "client_address": "192.0.2.7", "sasl_method": "PLAIN"}
MAILS = [("13:56:10", "alice", 3), ("14:02:20", "alice", 2), ("14:03:00", "bob", 1), ("14:05:00", "alice", 1)]


def at(clock: str) -> int:
    return int(datetime.fromisoformat(f"2026-11-26 {clock}").replace(tzinfo=ZONE).timestamp())


def burst() -> Limit:
    plain = limit(5, name="burst")
    return Limit("burst", "email", plain.key_of, Sliding(600, ZONE), 5, Template(DEFAULT_ACTION))


def sent(watch: Watch | None = None) -> tuple[Policy, Verdict]:
    """A policy that these mails were sent through, and what the last one was answered."""
    asked = policy(burst(), kept=memo(), watch=watch)
    for number, (clock, user, recipients) in enumerate(MAILS):
        login = f"{user}@example.com"
        verdict = data(asked, recipients, f"{number}.a", "DATA", at(clock),
                       login=login, queue_id="07F452AC009F", **CLIENT)  # fmt: skip
    return asked, verdict


def test_the_reply_says_when_one_more_recipient_is_admitted() -> None:
    _, verdict = sent()
    assert verdict.reply.decode().strip() + "\n" in PRINTED


def test_the_lines_of_the_log() -> None:
    _, verdict = sent()
    assert policyd_line(verdict, False) + "\n" in PRINTED
    assert json.loads(json_line(verdict, False))["reset"] == at("14:06:20")


def test_show() -> None:
    asked, _ = sent()
    (meter,) = asked.meters
    views = [view(meter.counters[f"{user}@example.com"], asked.pending) for user in ("alice", "bob")]
    assert "".join(tables.accounts([one]) for one in views) in PRINTED


def test_top() -> None:
    asked, _ = sent()
    (meter,) = asked.meters
    views = [view(counter, asked.pending) for counter in meter.counters.values()]
    shown = table(Shown(Ranking(at("14:05:00"), [LimitRanking("burst", meter.limit.period.name, views)])))
    assert shown.partition("\n\n")[2] in PRINTED
    heading = shown.partition("\n")[0].partition("most first  ")[2]
    assert datetime.strptime(heading, "%Y-%m-%d %H:%M:%S %z").timestamp() == at("14:05:00")


async def test_the_dump() -> None:
    asked, _ = sent()
    assert "".join([part async for part in lines(asked, at("14:05:30"))]) in PRINTED
    later = "".join([part async for part in lines(asked, at("14:06:20"))])
    assert later.splitlines()[1] == "alice@example.com\t:\tburst\t:\t5\t:\t3\t:\troom now\t:\t6"
    assert later.startswith(HEADER)


def test_a_notice_says_when_the_account_may_send_again() -> None:
    watch = Watch(lambda: None)
    watch.configure({"burst": [100]}, 10)
    sent(watch)
    (notice,) = watch.queue
    said = {"percent": notice.percent, "used": notice.used, "quota": notice.quota, "period": notice.period,
            "reset": notice.reset}  # fmt: skip
    assert json.dumps(said) + "\n" in PRINTED


def test_an_account_is_notified_once_in_a_period_and_twice_at_most() -> None:
    watch = Watch(lambda: None)
    watch.configure({"burst": [20]}, 1000)
    asked = policy(burst(), kept=memo(), watch=watch)
    for number in range(60):
        data(asked, 1, f"{number}.a", now=at("14:00:00") + 60 * number)
    assert len(watch.queue) in (6, 7)
    assert len({notice.id for notice in watch.queue}) == len(watch.queue)
    ends = [notice.expiry for notice in watch.queue]
    assert ends == sorted(ends)
    assert all(end % 600 == 0 for end in ends)


@pytest.mark.parametrize(("source", "said"), [(Source.GRANTED, "database, until nothing was sent for a period")])
def test_where_a_grant_of_the_database_ends(source: Source, said: str) -> None:
    asked, _ = sent()
    (meter,) = asked.meters
    counter = meter.counters["alice@example.com"]
    counter.give(Held(9, source))
    assert view(counter, asked.pending).source == said
    assert said in " ".join(PAGE.split())
