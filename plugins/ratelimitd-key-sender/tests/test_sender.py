"""The envelope sender that mail of trusted networks is counted under."""

from typing import Any

import pytest
from ratelimitd_key_sender import sender

from ratelimitd.keys import OptionError
from ratelimitd.testing import check_key, request

NETWORKS = {"networks": ["192.0.2.0/24", "2001:db8::25"]}


def key(address: str, name: str, login: str = "") -> str | None:
    return sender(NETWORKS)(request(client_address=address, sender=name, sasl_username=login))


def test_it_keeps_the_contract() -> None:
    asked = request(sender="List@Example.COM", sasl_username="")
    assert check_key(sender, NETWORKS, asked) == ["list@example.com"]


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::25", "::ffff:192.0.2.9"])
def test_a_listed_host_s_mail_is_counted_by_sender(address: str) -> None:
    assert key(address, "list@example.com") == "list@example.com"


@pytest.mark.parametrize("address", ["192.0.3.1", "2001:db8::26", "unknown", ""])
def test_a_stranger_s_mail_is_not(address: str) -> None:
    assert key(address, "list@example.com") is None


def test_mail_with_a_login_is_left_to_the_other_limits() -> None:
    assert key("192.0.2.1", "list@example.com", "alice@example.com") is None


def test_bounces_are_not_pooled_under_an_empty_sender() -> None:
    assert key("192.0.2.1", "") is None
    assert key("192.0.2.1", " \t") is None


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({}, "networks: found nothing; allowed: a list of networks"),
        ({"networks": []}, "networks: found a list; allowed: a list of networks"),
        ({"networks": "192.0.2.1"}, 'networks: found "192.0.2.1"; allowed: a list of networks'),
        ({"networks": ["192.0.2.1/24"]}, 'networks[0]: found "192.0.2.1/24"; allowed: an address or a network'),
        ({"networks": ["::1", {}]}, "networks[1]: found a table; allowed: an address or a network"),
        ({"networks": ["0.0.0.0/0"]}, 'networks[0]: found "0.0.0.0/0"; allowed: a network of your own'),
        ({**NETWORKS, "network": 1}, "network: found an unknown option; allowed: networks"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], error: str) -> None:
    with pytest.raises(OptionError) as raised:
        sender(options)
    assert str(raised.value).startswith(error)
