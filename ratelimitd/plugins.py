"""Loads key plugins: entry points of the group `ratelimitd.keys`, ours and everyone's alike."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from copy import deepcopy
from importlib import metadata
from typing import TYPE_CHECKING, Any

from ratelimitd.core.limits import KeyFailed, KeyHealth
from ratelimitd.errors import UNKNOWN, ConfigError, install, is_secret, shown
from ratelimitd.keys import KeyFactory, KeyFunction, OptionError, domain, email, everybody, normalise
from ratelimitd.request import Request

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint, EntryPoints

GROUP = "ratelimitd.keys"
BUILT_IN: Mapping[str, KeyFactory] = {"email": email, "domain": domain, "all": everybody}
"""Registered as everyone's are, but these names are ours alone, and are not looked up: most daemons use no other, and
importlib.metadata takes more memory than all that they decide with."""
OURS = ("sender", "subnet", "tenant")
"""The key plugins that are distributed beside this package, in plugins/."""
MAX_KEY_CHARACTERS = 65536
"""A longer answer is not a key: otherwise a client could make us hash a megabyte for each request."""

SLOW_S = 0.010
"""A longer call is logged as a warning: every client waits for it."""

_ANYTHING = BaseException
"""What a plugin may raise without harming anything but its own limit: a KeyboardInterrupt is its own, too, since the
daemon handles signals otherwise; and it runs in no task that could be cancelled meanwhile."""


_seen: "dict[str, list[EntryPoint]]" = {}
"""What was installed when ours could be found last."""


def installed() -> "dict[str, list[EntryPoint]]":
    """Every installed key plugin by name; two distributions may offer the same name.

    Where not even ours are found, they lie where the daemon's user may not look, in root's home, say: then also those
    that were found before, as root.
    """
    found: dict[str, list[EntryPoint]] = {}
    try:
        points: Iterable[EntryPoint] = metadata.entry_points(group=GROUP)
    except Exception:  # one distribution's broken metadata must not hide the plugins of all others
        points = _readable()
    for point in points:
        found.setdefault(point.name, []).append(point)
    if any(point.module == email.__module__ for points in found.values() for point in points):
        _seen.clear()
        _seen.update(found)
        return found
    return {**_seen, **found}


def _readable() -> "list[EntryPoint]":
    """The key plugins of those distributions whose metadata can be read; of a distribution found twice, the first."""
    found: dict[str, EntryPoints] = {}
    for distribution in metadata.distributions():
        with suppress(Exception):
            found.setdefault(_name(distribution), distribution.entry_points.select(group=GROUP))
    return [point for points in found.values() for point in points]


def _name(distribution: "Distribution") -> str:
    """The name of a distribution; "" where its metadata has none, of which `Distribution.name` warns."""
    written = distribution.metadata
    return written["Name"] if "Name" in written else ""  # noqa: SIM401  its protocol has no `get`


def owner(point: "EntryPoint") -> str:
    """The name of the distribution that an entry point belongs to."""
    return (point.dist and _name(point.dist)) or f"an unknown distribution with {point.value}"


def unused() -> dict[str, str]:
    """Why plugins of others are not used, by name: it is one of BUILT_IN."""
    plugins = installed()
    reason = "is not used, for ratelimitd has one of this name itself; uninstall it, or rename it"
    found: dict[str, str] = {}
    for name, factory in BUILT_IN.items():
        others = [owner(point) for point in plugins.get(name, []) if point.module != factory.__module__]
        if others:
            found[name] = f'the key plugin "{name}" of {" and ".join(others)} {reason}'
    return found


def load(name: str, options: Mapping[str, Any], where: str) -> KeyFunction:
    """The plugin's function for its options. Raises ConfigError, with `where` the setting that names the plugin."""
    factory = BUILT_IN.get(name) or imported(_point(name, where), where)
    function = _made(name, factory, options)
    if not callable(function) or inspect.iscoroutinefunction(function):
        found = f'"{name}", whose factory gave {_kind(function)}'
        raise ConfigError(where, found, "an ordinary function of the request")
    return function  # type: ignore[no-any-return]


def _point(name: str, where: str) -> "EntryPoint":
    """The one entry point of this name. Raises ConfigError."""
    plugins = installed()
    points = plugins.get(name, [])
    if not points:
        allowed = "an installed key plugin: " + ", ".join(sorted(plugins)) if plugins else "no key plugin is installed"
        if name in OURS:
            its = f"ratelimitd-key-{name}"
            allowed += f"; this one is of the distribution {its}, in the checkout: {install(f'./plugins/{its}')}"
        raise ConfigError(where, f'"{name}"', allowed)
    if len(points) > 1:
        owners = " and ".join(sorted(map(owner, points)))
        raise ConfigError(where, f'"{name}", a plugin of {owners}', "one distribution per name; uninstall one")
    return points[0]


def imported(point: "EntryPoint", where: str) -> Callable[[dict[str, Any]], Any]:
    """The factory that an entry point names. Raises ConfigError."""
    name = f'"{point.name}" ({point.value})'
    try:
        factory = point.load()
    except _ANYTHING as error:
        found = f"{name}, which cannot be loaded: {_one_line(error)}"
        fix = install(f"--force-reinstall {owner(point)}")
        raise ConfigError(where, found, f"a plugin that can be imported; {fix}") from error
    if not callable(factory):
        raise ConfigError(where, f"{name}, which is {_kind(factory)}", "a factory of key functions")
    return factory  # type: ignore[no-any-return]


def _made(name: str, factory: Callable[[dict[str, Any]], Any], options: Mapping[str, Any]) -> Any:
    try:
        function = factory(deepcopy(dict(options)))
        if inspect.iscoroutine(function):
            function.close()
        return function
    except OptionError as error:
        secret = is_secret(error.option) and error.found not in (UNKNOWN, None)
        found = "a secret" if secret else shown(error.found)
        raise ConfigError(f"keys.{name}.{error.option}", found, error.allowed) from error
    except _ANYTHING as error:
        raise ConfigError(f"keys.{name}", _one_line(error), "the options that the plugin documents") from error


def normalised(
    name: str,
    function: KeyFunction,
    lowercase: bool,
    health: KeyHealth | None = None,
    clock: Callable[[], float] = float,
) -> Callable[[Request], str | None]:
    """The plugin's function as the policy calls it: it gives a normalised key or None, or raises KeyFailed.

    Calls that take more than SLOW_S by `clock`, in seconds, are noted in `health`.
    """
    health = health or KeyHealth()

    def key_of(request: Request) -> str | None:
        began = clock()
        try:
            key = function(request)
        except _ANYTHING as error:
            raise KeyFailed(f"key plugin {name} raised {_one_line(error)}") from error
        finally:
            took_s = clock() - began
            if took_s > SLOW_S:
                health.was_slow(took_s)
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
    except _ANYTHING:
        text = "an error without a text"
    return f"{type(error).__name__}: {text}"[:300]
