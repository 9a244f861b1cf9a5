"""What `ratelimitd --check` prints: every effective setting, as TOML, without secrets.

Secrets are recognised by their names, and URLs of plugins and notices lose all but scheme and host. The text of a reply
is public: a URL in it stays.
"""

import re
from datetime import date, time
from typing import Any

import msgspec

from ratelimitd.config.read import Configuration
from ratelimitd.errors import is_secret
from ratelimitd.text import escape, public

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def in_force(config: Configuration) -> str:
    """The configuration with every default filled in. It can be read again, and is the same except for its secrets."""
    settings: dict[str, Any] = msgspec.to_builtins(config.settings)
    settings["keys"] |= {name: _public(options) for name, options in config.options.items()}
    notify = _public(settings.pop("notify"))
    plain = {name: value for name, value in settings.items() if not isinstance(value, dict) and name != "limit"}
    text = f"# {escape(str(config.file))}: the effective settings\n" + _lines(plain)
    for name, table in settings.items():
        if isinstance(table, dict):
            text += _table(name, table)
    for limit in settings["limit"]:
        text += "\n[[limit]]\n" + _lines({k: v for k, v in limit.items() if k != "quotas"})
        if limit["quotas"]:
            text += "[limit.quotas]\n" + "".join(f"{_name(k)} = {_value(v)}\n" for k, v in limit["quotas"].items())
    return text + "".join("\n[[notify]]\n" + _lines(entry) for entry in notify)


def _public(value: Any) -> Any:
    match value:
        case str():
            return public(value)
        case list():
            return [_public(item) for item in value]
        case dict():
            return {key: _public(item) for key, item in value.items()}
    return value


def _table(name: str, table: dict[str, Any]) -> str:
    inner = {key: value for key, value in table.items() if isinstance(value, dict) and not is_secret(key)}
    text = f"\n[{name}]\n" + _lines({key: value for key, value in table.items() if key not in inner})
    for key, value in inner.items():
        text += _table(f"{name}.{_name(key)}", value)
    return text


def _lines(table: dict[str, Any]) -> str:
    return "".join(f"{_name(key)} = {_entry(key, value)}\n" for key, value in table.items())


def _entry(key: str, value: Any) -> str:
    return '"(not shown)"' if is_secret(key) and value else _value(value)


def _name(key: str) -> str:
    return key if _BARE.fullmatch(key) else _value(key)


def _value(value: Any) -> str:
    """A value in TOML, on one line."""
    if isinstance(value, str):  # a JSON string is a TOML one, except for DEL
        return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_name(key)} = {_entry(key, inner)}" for key, inner in value.items()) + "}"
    return repr(value)
