"""The subnet that mail without a login is counted under."""

from typing import Any

import pytest
from ratelimitd_key_subnet import subnet

from ratelimitd.keys import OptionError
from ratelimitd.testing import check_key, request


def key(address: str, login: str = "", **options: Any) -> str | None:
    return subnet(options)(request(client_address=address, sasl_username=login))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ipv4_prefix": 32, "ipv6_prefix": 48},
        {"exempt": ["192.0.2.0/24", "2001:db8::1"]},
        {"exempt": [], "authenticated": True},
    ],
)
def test_it_keeps_the_contract(options: dict[str, Any]) -> None:
    check_key(subnet, options)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.0/24"),
        ("192.0.2.255", "192.0.2.0/24"),
        ("192.0.3.0", "192.0.3.0/24"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "192.0.2.0/24"),
        ("fe80::1%eth0", "fe80::/64"),
        ("127.0.0.1", None),
        ("::1", None),
        ("unknown", None),
        ("", None),
    ],
)
def test_a_client_is_counted_under_its_network(address: str, network: str | None) -> None:
    assert key(address) == network


def test_the_width_of_the_networks_is_an_option() -> None:
    assert key("192.0.2.77", ipv4_prefix=32) == "192.0.2.77/32"
    assert key("192.0.2.77", ipv4_prefix=26) == "192.0.2.64/26"
    assert key("2001:db8:1:2::1", ipv6_prefix=48) == "2001:db8:1::/48"


def test_mail_with_a_login_is_left_to_the_other_limits() -> None:
    assert key("192.0.2.1", "alice@example.com") is None
    assert key("192.0.2.1", "alice@example.com", authenticated=True) == "192.0.2.0/24"
    assert key("192.0.2.1", " ") == "192.0.2.0/24"


def test_exempt_networks_are_not_limited() -> None:
    assert key("192.0.2.1", exempt=["192.0.2.0/28"]) is None
    assert key("192.0.2.16", exempt=["192.0.2.0/28"]) == "192.0.2.0/24"
    assert key("127.0.0.1", exempt=[]) == "127.0.0.0/24"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"ipv4_prefix": 0}, "ipv4_prefix: found 0; allowed: a whole number from 1 to 32"),
        ({"ipv4_prefix": "24"}, 'ipv4_prefix: found "24"; allowed: a whole number from 1 to 32'),
        ({"ipv6_prefix": 129}, "ipv6_prefix: found 129; allowed: a whole number from 1 to 128"),
        ({"ipv6_prefix": True}, "ipv6_prefix: found true; allowed: a whole number from 1 to 128"),
        ({"exempt": "192.0.2.1"}, 'exempt: found "192.0.2.1"; allowed: a list of networks'),
        ({"exempt": ["::", "192.0.2.1/24"]}, 'exempt[1]: found "192.0.2.1/24"; allowed: an address or a network'),
        ({"exempt": [5]}, "exempt[0]: found 5; allowed: an address or a network"),
        ({"authenticated": 1}, "authenticated: found 1; allowed: true or false"),
        ({"prefix": 24}, "prefix: found an unknown option; allowed: ipv4_prefix, ipv6_prefix, exempt, authenticated"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], error: str) -> None:
    with pytest.raises(OptionError) as raised:
        subnet(options)
    assert str(raised.value).startswith(error)
