"""Loads key plugins: entry points of the group `ratelimitd.keys`, ours and everyone's alike."""

from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from ratelimitd.errors import ConfigError, RatelimitdError
from ratelimitd.keys import KeyFunction, normalise
from ratelimitd.request import Request

GROUP = "ratelimitd.keys"
MAX_KEY_CHARACTERS = 65536
"""A longer answer is no key: hashing a megabyte per request would be the client's to ask for."""


class KeyFailed(RatelimitdError):
    """A plugin raised, or gave something that is no key, for one request."""


def installed() -> dict[str, list[EntryPoint]]:
    """Every installed key plugin by name; two distributions may offer the same name."""
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        found.setdefault(point.name, []).append(point)
    return found


def load(name: str, options: Mapping[str, Any], where: str) -> KeyFunction:
    """The plugin's function for its options. Raises ConfigError, with `where` the setting that names the plugin."""
    plugins = installed()
    points = plugins.get(name, [])
    if not points:
        allowed = "an installed key plugin: " + ", ".join(sorted(plugins)) if plugins else "no key plugin is installed"
        raise ConfigError(where, f'"{name}"', allowed)
    if len(points) > 1:
        owners = " and ".join(sorted(point.dist.name if point.dist else point.value for point in points))
        raise ConfigError(where, f'"{name}", a plugin of {owners}', "one distribution per name; uninstall one")
    (point,) = points
    try:
        factory = point.load()
    except Exception as error:
        found = f'"{name}" ({point.value}), which cannot be loaded: {_one_line(error)}'
        raise ConfigError(where, found, "a plugin that imports; reinstall its distribution") from error
    if not callable(factory):
        raise ConfigError(where, f'"{name}" ({point.value}), which is {_kind(factory)}', "a factory of key functions")
    try:
        function = factory(dict(options))
    except Exception as error:
        raise ConfigError(f"keys.{name}", _one_line(error), "the options that the plugin documents") from error
    if not callable(function):
        raise ConfigError(where, f'"{name}", whose factory gave {_kind(function)}', "a function of the request")
    return function  # type: ignore[no-any-return]


def normalised(name: str, function: KeyFunction, lowercase: bool) -> Callable[[Request], str | None]:
    """The plugin's function as the policy calls it: normalised keys, or None, or KeyFailed."""

    def key_of(request: Request) -> str | None:
        try:
            key = function(request)
        except Exception as error:
            raise KeyFailed(f"key plugin {name} raised {_one_line(error)}") from error
        if key is None:
            return None
        if type(key) is not str or len(key) > MAX_KEY_CHARACTERS or "\n" in key or "\0" in key:
            raise KeyFailed(f"key plugin {name} gave no key but {_describe(key)}")
        try:
            key = normalise(key, lowercase)
        except UnicodeEncodeError as error:
            raise KeyFailed(f"key plugin {name} gave a key with a lone surrogate") from error
        if not key:
            raise KeyFailed(f"key plugin {name} gave an empty key")
        return key

    return key_of


def _describe(key: object) -> str:
    if type(key) is not str:
        return _kind(key)
    return f"{len(key)} characters" if len(key) > MAX_KEY_CHARACTERS else "a text with a newline or NUL"


def _kind(value: object) -> str:
    return f"an object of type {type(value).__name__}"


def _one_line(error: BaseException) -> str:
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = "an error without a text"
    return f"{type(error).__name__}: {text}"[:300]
