"""A small site's days, as contrib/doc/history.md has them: what is printed of them."""

from datetime import datetime
from zoneinfo import ZoneInfo

from ratelimitd.control.answers import AccountHistory, LimitHistory
from ratelimitd.control.history import midnights, window
from ratelimitd.core.action import Template
from ratelimitd.core.calendars import Calendar
from ratelimitd.core.limits import Limit
from ratelimitd.core.past import past, windows
from ratelimitd.core.quotas import Held, Source
from ratelimitd.core.windows import Period, Sliding
from ratelimitd.ctl import history
from ratelimitd.ctl.answers import Report
from ratelimitd.ctl.bars import Bars
from ratelimitd.ctl.report import table
from ratelimitd.ctl.report.report import answer
from ratelimitd.ctl.report.totals import Totals
from ratelimitd.settings import DEFAULT_ACTION, LimitSettings
from tests.core.build import limit

ZONE = ZoneInfo("Europe/Zurich")
ALICE = "alice@example.com"
BARS = Bars(96, "█", "│")
DAYS = 8
Mails = dict[str, list[tuple[str, int]]]
"""Of each account when it sent, and to how many."""


def at(text: str) -> int:
    return int(datetime.fromisoformat(f"2026-11-{text}").replace(tzinfo=ZONE).timestamp())


NOW = at("26 14:05")


def made(name: str, period: Period, quota: int, **quotas: int) -> Limit:
    plain = limit(quota)
    named = {key.replace("_at_", "@").replace("_", "."): of for key, of in quotas.items()}
    return Limit(name, "email", plain.key_of, period, quota, Template(DEFAULT_ACTION), named)


DAILY = made("daily", Calendar("daily", ZONE, "sunday"), 100, news_at_example_com=1000, _at_example_net=400)
BURST = made("burst", Sliding(3600, ZONE), 50)
MAILS: Mails = {
    ALICE: [("23 09:10", 12), ("24 08:30", 31), ("24 14:50", 33), ("24 15:20", 27), ("24 16:00", 40),
            ("25 10:00", 8), ("26 13:40", 21), ("26 14:02", 4)],
    "bob@example.com": [(f"{day} 11:00", 10 + day % 4) for day in range(19, 27)],
    "carol@example.net": [("20 10:00", 44), ("24 10:00", 38)],
    "news@example.com": [("20 08:00", 380), ("25 08:00", 410)],
    "stolen@example.com": [("25 03:12", 460), ("25 04:40", 240)],
}  # fmt: skip


def rows(of: Limit, mails: list[tuple[str, int]]) -> list[tuple[int, int]]:
    """The account's rows in the history."""
    found: dict[int, int] = {}
    for clock, recipients in mails:
        end = of.period.end(at(clock))
        found[end] = found.get(end, 0) + recipients
    return sorted(found.items())


def _under(of: Limit) -> LimitHistory:
    since = midnights(ZONE, NOW, DAYS)[0]
    found = [window(of, used, NOW) for used in windows(past(of.period, of.quota, since), rows(of, MAILS[ALICE]))]
    return LimitHistory(
        limit=of.name, key=ALICE, period=of.period.name, sliding=of.sliding, counts="recipients", quota=of.quota,
        source=f"limit {of.name}", used=sum(one.used for one in found), windows=found, left_out=0,
    )  # fmt: skip


def history_text(bars: Bars = BARS) -> str:
    limits = [_under(DAILY), _under(BURST)]
    return history.text(AccountHistory(key=ALICE, found=True, days=DAYS, history_days=60, limits=limits), bars)


def reported() -> Report:
    begins = midnights(ZONE, NOW, DAYS)
    found = []
    for of in (DAILY, BURST):
        totals = Totals(of, begins)
        for key, mails in sorted(MAILS.items()):
            reading = totals.begin(key, Held(of.configured_quota(key), Source.CONFIGURED))
            for row in rows(of, mails):
                reading.add(*row)
            reading.finish()
        found.append(totals)
    settings = [
        LimitSettings(name="daily", quota=100),
        LimitSettings(name="burst", quota=50, period="1h", window="sliding"),
    ]
    return answer(found, settings, NOW, ["quotas are those that hold now, also for windows in which others held"])


def report_text(bars: Bars = BARS) -> str:
    return table.text(reported(), bars)
