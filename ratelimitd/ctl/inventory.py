"""`ratelimitctl plugins`: which key plugins are installed, from which distribution, which limits use them, which fail.

It is most needed when the daemon does not start. So the configuration is read without being checked, and every plugin
is tried by itself.
"""

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from ratelimitd.config.read import parse
from ratelimitd.ctl.answers import InstalledPlugin, Inventory
from ratelimitd.ctl.tables import table
from ratelimitd.errors import ConfigError
from ratelimitd.plugins import imported, installed, load, owner
from ratelimitd.settings import LimitSettings
from ratelimitd.text import escape

_LIMIT = LimitSettings(quota=0)


def inventory(config: Path | str) -> Inventory:
    """The plugins that are installed, and those that a configuration uses."""
    file, error, data = Path(config), None, {}
    try:
        data = parse(file.absolute())
    except ConfigError as wrong:
        error = f"{file}: {wrong}"
    users, options = _users(data), data.get("keys")
    found = installed()
    plugins: list[InstalledPlugin] = []
    for name in sorted({*found, *users}):
        limits = users.get(name, [])
        own = options.get(name) if isinstance(options, dict) else None
        points = found.get(name, [])
        problem = _problem(name, points, limits, own if isinstance(own, dict) else {})
        for point in points:
            version = point.dist.version if point.dist else None
            plugins.append(InstalledPlugin(name, owner(point), version, point.value, limits, problem))
        if not points:
            plugins.append(InstalledPlugin(name, None, None, None, limits, problem))
    return Inventory(str(file), error, plugins)


def _users(data: dict[str, Any]) -> dict[str, list[str]]:
    """The names of the limits, by the key plugin that each uses."""
    users: dict[str, list[str]] = {}
    limits = data.get("limit")
    for limit in limits if isinstance(limits, list) else []:
        if isinstance(limit, dict):
            key, name = limit.get("key", _LIMIT.key), limit.get("name", _LIMIT.name)
            users.setdefault(str(key), []).append(str(name))
    return users


def _problem(name: str, points: list[EntryPoint], limits: list[str], options: dict[str, Any]) -> str | None:
    """Why the plugin does not work; one that no limit uses is only imported."""
    try:
        if limits:
            load(name, options, f"limit {', '.join(limits)}")
        else:
            for point in points:
                imported(point, f"key plugin {name}")
    except ConfigError as error:
        return str(error)
    return None


def works(answer: Inventory) -> bool:
    """Whether every plugin that a limit uses works."""
    return not any(plugin.limits and plugin.error for plugin in answer.plugins)


def text(answer: Inventory) -> str:
    """The inventory as a table, and below it what is wrong."""
    header = "KEY", "DISTRIBUTION", "VERSION", "USED BY LIMIT", ""
    rows = [
        (
            plugin.name,
            plugin.distribution or "not installed",
            plugin.version or "-",
            ", ".join(plugin.limits) or "-",
            "BROKEN" if plugin.error else "",
        )
        for plugin in answer.plugins
    ]
    lines = sorted({plugin.error for plugin in answer.plugins if plugin.error})
    lines += [answer.error] if answer.error else []
    return table(header, rows) + "".join(escape(line) + "\n" for line in lines)
