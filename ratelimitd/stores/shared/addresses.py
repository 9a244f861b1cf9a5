"""Where a database's servers are, as `store.host` and `store.port` say it."""

from ratelimitd.errors import ConfigError
from ratelimitd.settings import StoreSettings

Address = tuple[str, int]
"""A host and its port; for a unix socket its path and 0."""


def place(address: Address, usual_port: int) -> str:
    """An address for people: a socket's path, a host, a host with its port where that is not the usual one."""
    host, port = address
    shown = f"[{host}]" if ":" in host else host
    return host if port == 0 else shown if port == usual_port else f"{shown}:{port}"


def addresses(settings: StoreSettings) -> tuple[Address, ...]:
    """The servers that `store.host` and `store.port` name. Raises ConfigError."""
    hosts = [settings.host] if isinstance(settings.host, str) else settings.host
    return tuple([address(host, settings.port or settings.usual_port) for host in hosts])


def address(host: str, port: int) -> Address:
    """`HOST`, `HOST:PORT`, `ADDRESS6` or `[ADDRESS6]:PORT`. Raises ConfigError."""
    name, colon, number = host, "", ""
    if host.startswith("["):
        name, _, rest = host[1:].partition("]")
        _, colon, number = rest.partition(":")
    elif host.count(":") == 1:
        name, colon, number = host.partition(":")
    if not colon:
        return name, port
    if not name or not (number.isascii() and number.isdigit() and 0 < int(number) < 65536):
        raise ConfigError("store.host", f'"{host}"', "HOST or HOST:PORT, [ADDRESS6]:PORT")
    return name, int(number)
