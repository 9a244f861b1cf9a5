"""A limit of one message has no accounts: what an administrator sees, and is told, where one is set."""

import pytest

from tests.control.conftest import Ctl, Start
from tests.daemon.client import DUNNO

ALICE = "alice@example.com"
LIMITS = [{"name": "message", "period": "message", "quota": 1}, {"name": "daily", "quota": 5}]


def test_accounts_are_shown_and_changed_under_the_other_limits_alone(start: Start, ctl_of: Ctl) -> None:
    daemon = start(limit=LIMITS)
    with daemon.client() as client:
        assert client.ask(instance="1.a") == DUNNO
        assert client.ask(instance="1.a", recipient="other@example.org").startswith("452 4.5.3 ")
    assert [view["limit"] for view in ctl_of(daemon, "show", ALICE, "--json").json["limits"]] == ["daily"]
    ranking = ctl_of(daemon, "top", "--once", "--json").json["limits"]
    assert [limit["limit"] for limit in ranking] == ["daily"]
    status = ctl_of(daemon, "status", "--json").json
    assert (status["limits"], status["accounts"]) == (["message", "daily"], {"daily": 1})
    assert ctl_of(daemon, "status").status == 0
    assert status["decisions"] == {"UPDATE": 1, "OVER_QUOTA": 1}
    assert ctl_of(daemon, "set", ALICE, "--quota", "7", "--json").json["limit"] == "daily"
    assert ctl_of(daemon, "reset", ALICE).status == 0
    assert [line[0] for line in daemon.dump()[1:-1]] == [ALICE]


@pytest.mark.parametrize("command", [("set", ALICE, "--quota", "7"), ("reset", ALICE)])
def test_under_the_limit_of_one_message_nothing_can_be_changed(
    start: Start, ctl_of: Ctl, command: tuple[str, ...]
) -> None:
    ran = ctl_of(start(limit=LIMITS), *command, "--limit", "message")
    assert ran.status != 0
    assert "the limit message counts the recipients of one message: no account is kept under it" in ran.err


def test_a_reload_makes_a_limit_one_of_a_message_and_back(start: Start, ctl_of: Ctl) -> None:
    daemon = start(limit=[{"quota": 5}])
    daily = daemon.file.read_text()
    with daemon.client() as client:
        assert client.ask() == DUNNO
        for text in (daily.replace("quota = 5", 'quota = 1\nperiod = "message"'), daily):
            daemon.file.write_text(text)
            assert ctl_of(daemon, "reload").status == 0
            assert client.ask() == DUNNO
    assert daemon.stop() == 0
    assert daemon.used() == {ALICE: 2}
