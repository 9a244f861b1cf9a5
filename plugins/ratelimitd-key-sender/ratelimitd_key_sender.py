"""Key plugin `sender`: the envelope sender, for mail without a login from networks that are listed.

Whoever sends says what the envelope sender is. Who may use this key can spend the quota of every sender, and can
have a new one for each mail: so it is for hosts that you run yourself, and for no others.
"""

from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from ratelimitd.keys import KeyFunction, OptionError, only
from ratelimitd.request import Request

REMEMBERED = 4096
"""Addresses that are kept as listed or not, some 1 MB: to parse one takes longer than all the rest."""


def sender(options: Mapping[str, Any]) -> KeyFunction:
    """The envelope sender. Mail with a login, from elsewhere or with the null sender is not counted.

    Options: `networks`, which must be given: those whose word is taken for who sends.
    """
    only(options, "networks")
    networks = _networks(options.get("networks"))

    @lru_cache(REMEMBERED)
    def trusted(text: str) -> bool:
        try:
            address = ip_address(text.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in networks)

    def key(request: Request) -> str | None:
        if request.login or not trusted(request["client_address"]):
            return None
        return request["sender"].strip(" \t") or None

    return key


def _networks(texts: Any) -> list[IPv4Network | IPv6Network]:
    if not isinstance(texts, list) or not texts:
        raise OptionError("networks", texts, 'a list of networks, such as ["192.0.2.0/24"]')
    networks = []
    for i, text in enumerate(texts):
        try:
            network = ip_network(text if isinstance(text, str) else "")
        except ValueError as error:
            raise OptionError(f"networks[{i}]", text, "an address or a network as 192.0.2.0/24") from error
        if network.prefixlen == 0:
            raise OptionError(f"networks[{i}]", text, "a network of your own; the whole world may say any sender")
        networks.append(network)
    return networks
