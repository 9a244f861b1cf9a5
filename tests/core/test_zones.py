"""Rules of time zones, as TZ may have them: the C library is asked what they mean."""

import re
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from ratelimitd.config import read as config
from ratelimitd.config.zones import by_rule
from ratelimitd.errors import ConfigError

LIMIT = "[[limit]]\nquota = 1\n"
RULES = (
    "UTC0",
    "CET-1CEST,M3.5.0,M10.5.0/3",
    "EST5EDT,M3.2.0,M11.1.0",
    "XYZ5ABC",  # without the days of the changes
    "<+0530>-5:30",
    "<-03>3<-02>,M3.5.0/-2,M10.5.0/-1",
    "NZST-12NZDT,M9.5.0,M4.1.0/3",
)
YEAR_2026, SIX_HOURS_S = 1_767_225_600, 21_600


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """TZ may be set; afterwards it is what it was."""
    yield monkeypatch
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_means_what_it_means_to_the_c_library(local: pytest.MonkeyPatch, rule: str) -> None:
    local.setenv("TZ", rule)
    time.tzset()
    zone = by_rule(rule)
    for moment in range(YEAR_2026, YEAR_2026 + 366 * 86_400, SIX_HOURS_S):
        offset = datetime.fromtimestamp(moment, zone).utcoffset()
        assert offset is not None
        assert offset.total_seconds() == time.localtime(moment).tm_gmtoff


@pytest.mark.parametrize("rule", ["CET", "Europe/Nowhere", "CET-1CEST,tomorrow", "CET-1\n", "CET-1CEST,M3.5.0", "ä-1"])
def test_what_is_no_rule_is_refused(rule: str) -> None:
    with pytest.raises(ValueError, match=re.escape(rule)):
        by_rule(rule)


def test_a_rule_may_stand_in_tz_and_in_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "ratelimitd.toml"
    file.write_text(LIMIT)
    monkeypatch.setenv("TZ", ":CET-1CEST,M3.5.0,M10.5.0/3")
    summer = datetime(2026, 7, 1, tzinfo=config.read(file).limits[0].period.zone)
    assert summer.isoformat() == "2026-07-01T00:00:00+02:00"
    monkeypatch.setenv("TZ", "CET+-1")
    with pytest.raises(ConfigError, match='timezone: found "local", which is "CET\\+-1"; allowed: "local", a name'):
        config.read(file)
    file.write_text('timezone = "<+03>-3"\n' + LIMIT)
    assert datetime(2026, 7, 1, tzinfo=config.read(file).limits[0].period.zone).isoformat()[-6:] == "+03:00"
