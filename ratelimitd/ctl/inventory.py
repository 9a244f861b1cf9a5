"""`ratelimitctl plugins`: which key plugins are installed, whose they are, which limits use them, which are broken.

It answers where the daemon would not start, for that is when it is asked: the configuration is read without being
checked, and every plugin is tried on its own.
"""

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from ratelimitd.config.read import parse
from ratelimitd.control.commands import Answer
from ratelimitd.ctl.tables import table
from ratelimitd.errors import ConfigError
from ratelimitd.plugins import imported, installed, load, owner
from ratelimitd.settings import LimitSettings
from ratelimitd.text import escape

_LIMIT = LimitSettings(quota=0)
_NOBODY: dict[str, str | None] = {"distribution": None, "version": None, "entry_point": None}


def inventory(config: Path | str) -> Answer:
    """`plugins`: name, distribution, version, entry_point, limits and error of each; `error`: of the file, or None."""
    file, error, data = Path(config), None, {}
    try:
        data = parse(file.absolute())
    except ConfigError as wrong:
        error = f"{file}: {wrong}"
    users, options = _users(data), data.get("keys")
    found = installed()
    plugins = []
    for name in sorted({*found, *users}):
        limits = users.get(name, [])
        own = options.get(name) if isinstance(options, dict) else None
        problem = _problem(name, found.get(name, []), limits, own if isinstance(own, dict) else {})
        owners = [_owner(point) for point in found.get(name, [])] or [_NOBODY]
        plugins += [{"name": name, **whose, "limits": limits, "error": problem} for whose in owners]
    return {"config": str(file), "error": error, "plugins": plugins}


def _owner(point: EntryPoint) -> dict[str, str | None]:
    version = point.dist.version if point.dist else None
    return {"distribution": owner(point), "version": version, "entry_point": point.value}


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


def works(answer: Answer) -> bool:
    """Whether every plugin that a limit uses can be used."""
    return not any(plugin["limits"] and plugin["error"] for plugin in answer["plugins"])


def text(answer: Answer) -> str:
    """The inventory as a table, and below it what is wrong."""
    header = "KEY", "DISTRIBUTION", "VERSION", "USED BY LIMIT", ""
    rows = []
    for plugin in answer["plugins"]:
        whose = plugin["distribution"] or "not installed", plugin["version"] or "-"
        state = "BROKEN" if plugin["error"] else ""
        rows.append((plugin["name"], *whose, ", ".join(plugin["limits"]) or "-", state))
    lines = sorted({plugin["error"] for plugin in answer["plugins"] if plugin["error"]})
    lines += [answer["error"]] if answer["error"] else []
    return table(header, rows) + "".join(escape(line) + "\n" for line in lines)
