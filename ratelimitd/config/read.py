"""Reads ratelimitd.toml and makes the Configuration that the daemon works with. An error is one line with its place.

Values are checked by values.py, limits made by limits.py; explain.py words what msgspec finds.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import tomli

from ratelimitd.config.explain import explain, meant
from ratelimitd.config.limits import MESSAGE, make_limit, template, time_zone
from ratelimitd.config.places import line_of, named
from ratelimitd.config.syntax import wrong
from ratelimitd.config.values import Network, as_listened, check, database_names, networks, uids
from ratelimitd.core.action import Template
from ratelimitd.core.limits import Limit
from ratelimitd.errors import ConfigError, StartError, is_secret, shown
from ratelimitd.net.credentials import Credentials
from ratelimitd.notify.configured import Notify, checked
from ratelimitd.plugins import installed, load
from ratelimitd.settings import Keys, Settings
from ratelimitd.stores import Names


@dataclass(frozen=True)
class Configuration:
    """A whole file, read and checked: its settings, and what was made of them."""

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

    @property
    def folder(self) -> Path:
        """What relative paths of the configuration are relative to."""
        return self.file.parent

    def path(self, setting: str) -> Path:
        """The path of a setting; a relative one is relative to the file's folder. There is no ".." in it."""
        return without_up(self.folder / setting)

    @property
    def has_secrets(self) -> bool:
        """Whether a password or another secret is in the file itself."""
        return bool(self.settings.store.password or any(notify.secret for notify in self.settings.notify))

    @cached_property  # one folder for the whole run, also where its user may not look at those above it
    def state_dir(self) -> Path:
        """The folder of journal, SQLite file and cache dump."""
        return self.path(self.settings.state_dir)

    @property
    def control_socket(self) -> Path:
        """The socket that ratelimitctl connects to."""
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
    """Put the file's name, and the line of the setting, before what a StartError says that is raised inside."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(_place(file, error.path, error.line), error.found, error.allowed) from error
    except StartError as error:
        setting, colon, rest = str(error).partition(": ")
        raise type(error)(_place(file, setting) + colon + rest) from error


def _place(file: Path, path: str, line: int | None = None) -> str:
    """`FILE:12: limit "daily".quota`; without the line where it is not known."""
    if line is not None:
        return f"{file}:{line}: {path}"
    try:
        text = _text(file)
        data = tomli.loads(text)
    except (OSError, ValueError, RecursionError):
        return f"{file}: {path}"
    line = line_of(path, text, data)
    return f"{file}{'' if line is None else f':{line}'}: {named(path, data)}"


def parse(file: Path) -> dict[str, Any]:
    """The TOML of a file, not checked. Raises ConfigError."""
    try:
        text = _text(file)
    except OSError as error:
        allowed = "a readable file" + ("; -c FILE names another" if isinstance(error, FileNotFoundError) else "")
        raise ConfigError("cannot be read", error.strerror or str(error), allowed) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError("not UTF-8", f"byte {error.start}", "TOML in UTF-8", line=line) from error
    try:
        return tomli.loads(text)
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, lists 400 deep: no TOMLDecodeError
        raise wrong(error, text) from error


def without_up(path: Path) -> Path:
    """The same path without "..", which is the folder above what a link leads to. What follows the last one stays."""
    parts = path.parts
    if ".." not in parts:
        return path
    end = len(parts) - parts[::-1].index("..")
    return Path(*parts[:end]).resolve().joinpath(*parts[end:])


def _text(file: Path) -> str:
    """The text of a file; the mark that some editors begin UTF-8 with is no part of it."""
    return file.read_bytes().decode("utf-8-sig")


def _make(file: Path, data: dict[str, Any], credentials: Credentials) -> Configuration:
    options = _plugin_options(data)
    try:
        settings = as_listened(msgspec.convert(data, Settings))
    except msgspec.ValidationError as error:
        raise explain(error, data, Settings) from error
    check(settings)
    zone = time_zone(settings.timezone)
    names = [limit.name for limit in settings.limit]
    for i, name in enumerate(names):
        if name in names[:i]:
            raise ConfigError(f"limit[{i}].name", f'"{name}" again', "a name of its own for each [[limit]]")
    limits = [make_limit(i, limit, settings, zone, options) for i, limit in enumerate(settings.limit)]
    for name in options.keys() - {limit.key for limit in settings.limit}:
        load(name, options[name], f"keys.{name}")  # what is there is right, though no limit uses it yet
    watched = [limit.name for limit in settings.limit if limit.period != MESSAGE]
    return Configuration(
        file,
        settings,
        limits,
        networks(settings.server.allow),
        uids(settings.server.unix_users),
        database_names(settings),
        template("server.failure_action", settings.server.failure_action),
        options,
        [checked(f"notify[{i}]", notify, watched, credentials) for i, notify in enumerate(settings.notify)],
        credentials,
    )


def _plugin_options(data: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The tables `[keys.NAME]`, which are removed from `data`. Raises ConfigError."""
    keys = data.get("keys")
    if not isinstance(keys, dict):
        return {}
    own = Keys.__struct_fields__
    options = {name: keys[name] for name in keys if name not in own}
    for name, table in options.items():
        if not isinstance(table, dict):
            found = "a secret" if is_secret(name) else shown(table)
            allowed = f"{', '.join(own)}, or a table of a key plugin's options"
            raise ConfigError(f"keys.{name}", found + meant(name, own), allowed)
        if name not in installed():
            plugins = ", ".join(sorted(installed()))
            allowed = f"the installed key plugins: {plugins}; without the plugin this table must go, too"
            raise ConfigError(f"keys.{name}", "no such key plugin" + meant(name, installed()), allowed)
    data["keys"] = {name: keys[name] for name in keys if name in own}
    return options
