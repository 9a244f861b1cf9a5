"""Key plugin `subnet`: the client's network, for mail without a login."""

from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from ratelimitd.keys import KeyFunction, OptionError, only
from ratelimitd.request import Request

REMEMBERED = 4096
"""Addresses whose subnet is kept, some 1 MB: to parse one takes longer than all the rest."""


def subnet(options: Mapping[str, Any]) -> KeyFunction:
    """The client's network, such as 192.0.2.0/24 or 2001:db8::/64.

    Options: `ipv4_prefix` (24) and `ipv6_prefix` (64), in bits; `exempt` (["127.0.0.0/8", "::1/128"]), networks that
    are not limited; `authenticated` (false), whether mail with a login is counted here, too.
    """
    only(options, "ipv4_prefix", "ipv6_prefix", "exempt", "authenticated")
    bits = {4: _prefix(options, "ipv4_prefix", 24, 32), 6: _prefix(options, "ipv6_prefix", 64, 128)}
    exempt = _networks(options.get("exempt", ["127.0.0.0/8", "::1/128"]))
    authenticated = options.get("authenticated", False)
    if not isinstance(authenticated, bool):
        raise OptionError("authenticated", authenticated, "true or false")

    @lru_cache(REMEMBERED)
    def network(text: str) -> str | None:
        address = _address(text)
        if address is None or any(address in network for network in exempt):
            return None
        return str(ip_network((address, bits[address.version]), strict=False))

    def key(request: Request) -> str | None:
        if request.login and not authenticated:
            return None
        return network(request["client_address"])

    return key


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """The address, IPv4 where it is mapped into IPv6; None for what is none, as Postfix's `unknown`."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _prefix(options: Mapping[str, Any], option: str, default: int, longest: int) -> int:
    bits = options.get(option, default)
    if type(bits) is not int or not 1 <= bits <= longest:
        raise OptionError(option, bits, f"a whole number from 1 to {longest}")
    return bits


def _networks(texts: Any) -> list[IPv4Network | IPv6Network]:
    if not isinstance(texts, list):
        raise OptionError("exempt", texts, "a list of networks")
    networks = []
    for i, text in enumerate(texts):
        try:
            networks.append(ip_network(text if isinstance(text, str) else ""))
        except ValueError as error:
            raise OptionError(f"exempt[{i}]", text, "an address or a network as 192.0.2.0/24") from error
    return networks
