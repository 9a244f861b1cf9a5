"""Reads ratelimitd.toml and makes of it what the daemon works with. Errors are one line that names the place."""

import os
import pwd
import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from importlib.util import find_spec
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import tomli

from ratelimitd.config.explain import explain
from ratelimitd.core.action import ActionError, Template
from ratelimitd.core.limits import UNLIMITED, KeyHealth, Limit
from ratelimitd.core.windows import Period
from ratelimitd.errors import SECRETS, ConfigError
from ratelimitd.keys import normalise
from ratelimitd.log.sinks import FACILITIES
from ratelimitd.net.credentials import Credentials
from ratelimitd.net.listeners import parse_address
from ratelimitd.notify.configured import Notify, checked
from ratelimitd.plugins import installed, load, normalised
from ratelimitd.settings import Keys, LimitSettings, QuotaSetting, Settings
from ratelimitd.stores import COLUMNS, Names
from ratelimitd.stores.mysql.access import addresses

Network = IPv4Network | IPv6Network
_LOCALTIME = Path("/etc/localtime")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DOMAIN = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Configuration:
    """A file that was read and checked whole: its settings, and what was made of them."""

    file: Path
    settings: Settings
    limits: list[Limit]
    allow: tuple[Network, ...]
    unix_uids: frozenset[int]
    names: Names
    failure_action: Template
    options: Mapping[str, dict[str, Any]] = field(repr=False)
    notify: list[Notify]
    credentials: Credentials = field(repr=False)

    def path(self, setting: str) -> Path:
        """A path of the configuration, which may be relative to the file."""
        return self.file.parent / setting

    @property
    def has_secrets(self) -> bool:
        """Whether a password or another secret stands in the file itself."""
        return bool(self.settings.store.password or any(notify.secret for notify in self.settings.notify))

    @property
    def state_dir(self) -> Path:
        """Where journal, SQLite file and cache dump are."""
        return self.path(self.settings.state_dir)

    @property
    def control_socket(self) -> Path:
        """Where ratelimitctl finds the daemon."""
        return self.state_dir / self.settings.control.socket


def read(file: Path, *, lenient: bool = False) -> Configuration:
    """The configuration of a file. Raises ConfigError, its path beginning with the file's name.

    Where `lenient` is true, files of secrets and certificates that this user may not read are no errors; they are noted
    in `credentials.unreadable`.
    """
    file = file.absolute()
    with naming(file):
        return _make(file, parse(file), Credentials(file.parent, lenient=lenient))


@contextmanager
def naming(file: Path) -> Iterator[None]:
    """Whatever ConfigError is raised inside names the file."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{file}: {error.path}", error.found, error.allowed) from error


def parse(file: Path) -> dict[str, Any]:
    """What a file says, not checked. Raises ConfigError."""
    try:
        with file.open("rb") as stream:
            return tomli.load(stream)
    except OSError as error:
        raise ConfigError("cannot be read", error.strerror or str(error), "a readable file") from error
    except UnicodeDecodeError as error:
        raise ConfigError("not UTF-8", f"byte {error.start}", "TOML in UTF-8") from error
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, lists 400 deep: no TOMLDecodeError
        raise ConfigError("syntax", str(error), "TOML") from error


def _make(file: Path, data: dict[str, Any], credentials: Credentials) -> Configuration:
    options = _plugin_options(data)
    try:
        settings = msgspec.convert(data, Settings)
    except msgspec.ValidationError as error:
        raise explain(error, data, Settings) from error
    _check(settings)
    zone = _zone(settings.timezone)
    names = [limit.name for limit in settings.limit]
    for i, name in enumerate(names):
        if name in names[:i]:
            raise ConfigError(f"limit[{i}].name", f'"{name}" again', "a name of its own for each [[limit]]")
    return Configuration(
        file,
        settings,
        [_limit(i, limit, settings, zone, options) for i, limit in enumerate(settings.limit)],
        _networks(settings.server.allow),
        _uids(settings.server.unix_users),
        _names(settings),
        _template("server.failure_action", settings.server.failure_action),
        options,
        [checked(f"notify[{i}]", notify, names, credentials) for i, notify in enumerate(settings.notify)],
        credentials,
    )


def _plugin_options(data: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Take the tables `[keys.NAME]` out of the file's data."""
    keys = data.get("keys")
    if not isinstance(keys, dict):
        return {}
    own = Keys.__struct_fields__
    options = {name: keys[name] for name in keys if name not in own}
    for name, table in options.items():
        if not isinstance(table, dict):
            raise ConfigError(f"keys.{name}", repr(table), f"{', '.join(own)}, or a table of a key plugin's options")
        if name not in installed():
            plugins = ", ".join(sorted(installed()))
            raise ConfigError(f"keys.{name}", "no such key plugin", f"the installed key plugins: {plugins}")
    data["keys"] = {name: keys[name] for name in keys if name in own}
    return options


def _check(settings: Settings) -> None:
    """What the types of the settings do not say."""
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
    domain = settings.keys.default_domain
    if domain and not _DOMAIN.fullmatch(domain):
        raise ConfigError("keys.default_domain", f'"{domain}"', "a domain, without @")


def _check_texts(path: str, value: Any) -> None:
    """No setting holds control characters: paths with NUL, log lines with ESC."""
    if isinstance(value, dict):
        for name, inner in value.items():
            _check_texts(f"{path}.{name}" if path else name, inner)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            _check_texts(f"{path}[{i}]", inner)
    elif isinstance(value, str) and _CONTROL.search(value) and path.rpartition(".")[2] not in SECRETS:
        raise ConfigError(path, f'"{value}"', "a text without control characters")


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
        install = 'the extra "metrics": pip install "ratelimitd[metrics]"'
        raise ConfigError("metrics.listen", f'"{listen}" without prometheus-client', install)


def _limit(
    index: int, limit: LimitSettings, settings: Settings, zone: tzinfo, options: Mapping[str, dict[str, Any]]
) -> Limit:
    where = f"limit[{index}]"
    lowercase = settings.keys.lowercase
    function = load(limit.key, options.get(limit.key, {}), f"{where}.key")
    quotas: dict[str, int] = {}
    for account, quota in limit.quotas.items():
        key = normalise(account, lowercase)
        if not key or key in quotas:
            raise ConfigError(f"{where}.quotas", f'"{account}"', "each account or @domain once, upper or lower case")
        quotas[key] = _quota(quota)
    health = KeyHealth()
    return Limit(
        limit.name,
        limit.key,
        normalised(limit.key, function, lowercase, health, time.perf_counter),
        Period(limit.period, zone, settings.week_starts),
        _quota(limit.quota),
        _template(f"{where}.action", limit.action),
        quotas,
        enforce=limit.enforce,
        by_message=limit.count == "messages",
        health=health,
        of_login=getattr(function, "of_login", False),
    )


def _quota(setting: QuotaSetting) -> int:
    return UNLIMITED if setting == "unlimited" else int(setting)


def _template(where: str, text: str) -> Template:
    try:
        return Template(text)
    except ActionError as error:
        raise ConfigError(where, f'"{text}"', str(error)) from error


def _networks(allow: list[str]) -> tuple[Network, ...]:
    networks: list[Network] = []
    for i, text in enumerate(allow):
        try:
            networks.append(ip_network(text))
        except ValueError as error:
            raise ConfigError(f"server.allow[{i}]", f'"{text}"', "an address or a network as 192.0.2.0/24") from error
    return tuple(networks)


def _uids(users: list[str]) -> frozenset[int]:
    if users and not hasattr(socket, "SO_PEERCRED"):
        raise ConfigError(
            "server.unix_users", "users", "none: this system does not tell who is at a socket's other end"
        )
    uids: set[int] = set()
    for i, user in enumerate(users):
        try:
            uids.add(int(user) if user.isascii() and user.isdigit() else pwd.getpwnam(user).pw_uid)
        except KeyError as error:
            raise ConfigError(f"server.unix_users[{i}]", f'"{user}"', "a user of this system, or a uid") from error
    return frozenset(uids)


def _names(settings: Settings) -> Names:
    names = Names(settings.store.table, tuple(settings.store.columns.items()))
    try:
        names.checked()
    except ValueError as error:
        wanted = "letters, digits and underscores; columns are " + ", ".join(COLUMNS)
        raise ConfigError("store.table or store.columns", f'"{error}"', wanted) from error
    taken: dict[str, str] = {}
    for column in COLUMNS:
        name = settings.store.columns.get(column, column)
        other = taken.setdefault(name.lower(), column)
        if other != column:
            raise ConfigError("store.columns", f'"{name}" for {other} and for {column}', "a name for each column")
    return names


def _zone(name: str) -> tzinfo:
    """The time zone of a name; `local` is TZ, else /etc/localtime, else UTC."""
    found = f'"{name}"'
    if name == "local":
        name = os.environ.get("TZ", "").removeprefix(":")
        found = f'"local", which is "{name or _LOCALTIME}"'
        if not name and not _LOCALTIME.exists():
            return UTC
    try:
        if not name or Path(name).is_absolute():
            with Path(name or _LOCALTIME).open("rb") as stream:
                return ZoneInfo.from_file(stream, key=name or "local")
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError("timezone", found, '"local" or a name such as "Europe/Zurich"') from error
