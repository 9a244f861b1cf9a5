"""What `ratelimitd --check` prints: every setting in force, as TOML, secrets left out."""

from typing import Any

import msgspec

from ratelimitd.config import Configuration

SECRETS = ("password",)


def in_force(config: Configuration) -> str:
    """The configuration with every default filled in; it could be read again."""
    settings: dict[str, Any] = msgspec.to_builtins(config.settings)
    plain = {name: value for name, value in settings.items() if not isinstance(value, dict) and name != "limit"}
    text = f"# {config.file}: in force\n" + _lines(plain)
    for name, table in settings.items():
        if isinstance(table, dict):
            text += _table(name, table)
    for limit in settings["limit"]:
        text += "\n[[limit]]\n" + _lines({k: v for k, v in limit.items() if k != "quotas"})
        if limit["quotas"]:
            text += "[limit.quotas]\n" + _lines(limit["quotas"])
    return text


def _table(name: str, table: dict[str, Any]) -> str:
    inner = {key: value for key, value in table.items() if isinstance(value, dict)}
    text = f"\n[{name}]\n" + _lines({key: value for key, value in table.items() if key not in inner})
    for key, value in inner.items():
        if value:
            text += _table(f"{name}.{key}", value)
    return text


def _lines(table: dict[str, Any]) -> str:
    return "".join(
        f"{_name(key)} = {_value('(not shown)' if key in SECRETS and value else value)}\n"
        for key, value in table.items()
    )


def _name(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else _value(key)


def _value(value: Any) -> str:
    return msgspec.json.encode(value).decode()  # a JSON scalar or list of them is a TOML one
