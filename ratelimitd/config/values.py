"""Checks what the types of the settings do not say, and makes networks, uids and names of some."""

import pwd
import re
from importlib.util import find_spec
from ipaddress import IPv4Network, IPv6Network, ip_interface, ip_network
from typing import Any

import msgspec

from ratelimitd.errors import ConfigError, install, is_secret, shown
from ratelimitd.log.sinks import FACILITIES
from ratelimitd.net.listeners import parse_address
from ratelimitd.settings import Settings
from ratelimitd.stores import COLUMNS, Names
from ratelimitd.stores.shared.addresses import addresses

Network = IPv4Network | IPv6Network
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
INET = "inet:"
_DOMAIN = re.compile(r"[A-Za-z0-9._-]+")


def check(settings: Settings) -> None:
    """Check what the types of the settings do not say. Raises ConfigError."""
    _check_texts("", msgspec.to_builtins(settings))
    for i, listen in enumerate(settings.server.listen):
        try:
            parse_address(listen)
        except ValueError as error:
            wanted = '"ADDRESS:PORT", "[ADDRESS6]:PORT" or "unix:/absolute/path"'
            raise ConfigError(f"server.listen[{i}]", f'"{listen}"', wanted) from error
    if settings.log.facility not in FACILITIES:
        raise ConfigError("log.facility", f'"{settings.log.facility}"', ", ".join(FACILITIES))
    _check_metrics(settings)
    addresses(settings.store)
    if settings.group and not settings.user:
        raise ConfigError("group", f'"{settings.group}" without user', "user and group, or user alone")
    if settings.keys.default_domain:
        _check_domain("keys.default_domain", settings.keys.default_domain)
    if settings.keys.domains and not settings.keys.default_domain:
        found = "domains without default_domain"
        wanted = "both: a login of another domain is its local part, and has no domain that it counts under"
        raise ConfigError("keys.domains", found, wanted)
    for i, domain in enumerate(settings.keys.domains):
        _check_domain(f"keys.domains[{i}]", domain)


def _check_domain(where: str, domain: str) -> None:
    if not _DOMAIN.fullmatch(domain):
        raise ConfigError(where, f'"{domain}"', "a domain, without @")


def _check_texts(path: str, value: Any) -> None:
    """No setting has control characters in it: NUL in a path, ESC in a line of the log."""
    if isinstance(value, dict):
        for name, inner in value.items():
            _check_texts(f"{path}.{name}" if path else name, inner)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            _check_texts(f"{path}[{i}]", inner)
    elif isinstance(value, str) and _CONTROL.search(value) and not is_secret(path):
        raise ConfigError(path, shown(value), "a text without control characters")


def _check_metrics(settings: Settings) -> None:
    listen = settings.metrics.listen
    if not listen:
        return
    try:
        parse_address(listen)
    except ValueError as error:
        raise ConfigError(
            "metrics.listen", f'"{listen}"', '"" or "ADDRESS:PORT", for example 127.0.0.1:9132'
        ) from error
    if find_spec("prometheus_client") is None:
        extra = 'the extra "metrics": ' + install('"ratelimitd[metrics]"')
        raise ConfigError("metrics.listen", f'"{listen}" without prometheus-client', extra)


def as_listened(settings: Settings) -> Settings:
    """The settings with addresses as `server.listen` has them: `inet:` before one, as main.cf has it, is left out."""
    server, metrics = settings.server, settings.metrics
    listen = [text.removeprefix(INET) for text in server.listen]
    server = msgspec.structs.replace(server, listen=listen)
    metrics = msgspec.structs.replace(metrics, listen=metrics.listen.removeprefix(INET))
    return msgspec.structs.replace(settings, server=server, metrics=metrics)


def networks(allow: list[str]) -> tuple[Network, ...]:
    """The networks of `server.allow`. Raises ConfigError."""
    found: list[Network] = []
    for i, text in enumerate(allow):
        try:
            found.append(ip_network(text))
        except ValueError as error:
            raise ConfigError(f"server.allow[{i}]", f'"{text}"', _network_meant(text)) from error
    return tuple(found)


def _network_meant(text: str) -> str:
    """What may stand in `server.allow` in place of what is no network."""
    try:
        inside = ip_interface(text)
    except ValueError:
        return "an address or a network as 192.0.2.0/24"
    return f'"{inside.network}", or "{inside.ip}" for this address alone: there are host bits set in it'


def uids(users: list[str]) -> frozenset[int]:
    """The uids of `server.unix_users`, names or numbers. Raises ConfigError."""
    found: set[int] = set()
    for i, user in enumerate(users):
        try:
            found.add(int(user) if user.isascii() and user.isdigit() else pwd.getpwnam(user).pw_uid)
        except KeyError as error:
            raise ConfigError(f"server.unix_users[{i}]", f'"{user}"', "a user of this system, or a uid") from error
    return frozenset(found)


def database_names(settings: Settings) -> Names:
    """The names of `store.table` and `store.columns`; rows that name no limit are of the first that is stored.

    Raises ConfigError.
    """
    stored = [limit for limit in settings.limit if limit.period != "message"] or settings.limit
    names = Names(settings.store.table, tuple(settings.store.columns.items()), stored[0].name)
    try:
        names.checked()
    except ValueError as error:
        refused = str(error)
        columns = [column for column, name in settings.store.columns.items() if refused in (column, name)]
        path = "store.table" if refused == settings.store.table else f'store.columns."{columns[0]}"'
        wanted = "letters, digits and underscores; columns are " + ", ".join(COLUMNS)
        raise ConfigError(path, f'"{refused}"', wanted) from error
    taken: dict[str, str] = {}
    for column in COLUMNS:
        name = settings.store.columns.get(column, column)
        other = taken.setdefault(name.lower(), column)
        if other != column:
            raise ConfigError(
                f'store.columns."{column}"', f'"{name}" for {other} and for {column}', "a name for each column"
            )
    return names
