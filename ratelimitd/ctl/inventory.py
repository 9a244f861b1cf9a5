"""`ratelimitctl plugins`: which key plugins are installed, from which distribution, which limits use them, which fail.

It is most needed when the daemon does not start. So the configuration is read without being checked, and every plugin
is tried by itself. Before the first configuration is written it tells what can be written there.
"""

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from ratelimitd.config.read import naming, parse
from ratelimitd.ctl.answers import InstalledPlugin, Inventory
from ratelimitd.ctl.tables import table
from ratelimitd.daemon.main import DEFAULT_CONFIG
from ratelimitd.errors import ConfigError
from ratelimitd.plugins import imported, installed, load, owner, unused
from ratelimitd.settings import LimitSettings
from ratelimitd.text import escape

_LIMIT = LimitSettings(quota=0)


def inventory(config: Path | str) -> Inventory:
    """The plugins that are installed, and those that a configuration uses."""
    file, error, data = Path(config), None, {}
    if file != DEFAULT_CONFIG or file.exists():
        try:
            with naming(file):
                data = parse(file)
        except ConfigError as wrong:
            error = str(wrong)
    users, options = _users(data), _options(data)
    found = installed()
    plugins: list[InstalledPlugin] = []
    for name in sorted({*found, *users, *options}):
        limits = users.get(name, [])
        points = found.get(name, [])
        problem = _problem(name, points, limits, options.get(name))
        has_options = name in options
        for point in points:
            version = point.dist.version if point.dist else None
            plugins.append(InstalledPlugin(name, owner(point), version, point.value, limits, problem, has_options))
        if not points:
            plugins.append(InstalledPlugin(name, None, None, None, limits, problem, has_options))
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


def _options(data: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The tables `[keys.NAME]`."""
    keys = data.get("keys")
    return {name: table for name, table in keys.items() if isinstance(table, dict)} if isinstance(keys, dict) else {}


def _problem(name: str, points: list[EntryPoint], limits: list[str], options: dict[str, Any] | None) -> str | None:
    """Why the plugin does not work; one that neither a limit nor a table `[keys.NAME]` names is only imported."""
    try:
        if limits or options is not None:
            load(name, options or {}, f"limit {', '.join(limits)}" if limits else f"keys.{name}")
        else:
            for point in points:
                imported(point, f"key plugin {name}")
    except ConfigError as error:
        return str(error)
    return unused().get(name)


def works(answer: Inventory) -> bool:
    """Whether every plugin works that a limit uses, or that has options."""
    return not any((plugin.limits or plugin.options) and plugin.error for plugin in answer.plugins)


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
