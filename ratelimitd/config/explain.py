"""Turns msgspec's error about a configuration into the line an administrator needs: path, found, allowed.

It takes the text of the error apart; tests/core/test_explain.py holds those texts.
"""

import difflib
import re
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import inspect

from ratelimitd.errors import ConfigError, is_secret, shown

_AT = re.compile(r"(?P<what>.*?)(?: - at `\$(?P<path>.*)`)?", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<name>.*)`")
_STEP = re.compile(r"\.(?P<name>[^.\[\]]+)|\[(?P<index>[0-9]+|\.\.\.)\]")


def explain(error: msgspec.ValidationError, data: dict[str, Any], shape: type[msgspec.Struct]) -> ConfigError:
    """The error as a ConfigError; `data` is what could not be converted to `shape`."""
    match = _AT.fullmatch(str(error))
    what, steps = (match["what"], match["path"] or "") if match else (str(error), "")
    path, found, expected = _follow(steps, data, inspect.type_info(shape))
    unknown, missing = _UNKNOWN.fullmatch(what), _MISSING.fullmatch(what)
    if unknown:
        name = unknown["name"]
        names = [field.encode_name for field in getattr(expected, "fields", ())]
        found = "an unknown setting" + meant(name, names)
        return ConfigError(_join(path, name), found, allowed(expected) + _elsewhere(name, shape))
    if missing:
        where, kind = _join(path, missing["name"]), _field(expected, missing["name"])
        return ConfigError(where, "nothing", _list_of(where, None, kind) or allowed(kind))
    what = "a secret" if is_secret(path) else "an empty list" if found == [] else shown(found)
    return ConfigError(path or "the file", what, _list_of(path, found, expected) or allowed(expected))


def meant(name: str, names: Iterable[str]) -> str:
    """Which of the names a misspelt one may be; "" if it is like none of them."""
    [nearest] = difflib.get_close_matches(name, names, 1) or [""]
    return f" (did you mean {nearest}?)" if nearest else ""


def _elsewhere(name: str, shape: type[msgspec.Struct]) -> str:
    """Where in the file there is a setting of this name, found elsewhere: at its top, or under which tables."""
    places: list[str] = []
    for field in msgspec.structs.fields(shape):
        kind = inspect.type_info(field.type)
        inner = _items(kind)
        if field.encode_name == name:
            places.insert(0, "at the top of the file, above every [table]")
        if any(each.encode_name == name for each in getattr(inner, "fields", ())):
            places.append(f"under [{field.encode_name}]" if inner is kind else f"under [[{field.encode_name}]]")
    return f"; {name} is a setting {' and '.join(places)}" if places else ""


def _list_of(path: str, found: Any, expected: "inspect.Type") -> str:
    """How a list is written that was not: of tables, or of texts of which one was found; "" of anything else."""
    item = _items(expected)
    if item is expected:
        return ""
    if isinstance(item, inspect.StructType) and (not found or not isinstance(found, list)):
        return f"[[{path}]] in double brackets, once for each: {allowed(item)}"
    if isinstance(item, inspect.StrType) and isinstance(found, str) and not is_secret(path):
        return f"{allowed(expected)}; as [{shown(found)}]" if found else ""
    return ""


def _follow(steps: str, data: Any, expected: "inspect.Type") -> "tuple[str, Any, inspect.Type]":
    path = ""
    for step in _STEP.finditer(steps):
        if step["name"] is not None:
            path = _join(path, step["name"])
            data = data.get(step["name"]) if isinstance(data, dict) else data
            expected = _field(expected, step["name"])
        elif step["index"] == "..." and isinstance(expected, inspect.DictType):
            expected = expected.value_type
            name, data = next(((k, v) for k, v in data.items() if not _fits(v, expected)), ("...", data))
            path = _join(path, f'"{name}"')
        elif isinstance(data, list):
            data = data[int(step["index"])]
            path += f"[{step['index']}]"
            expected = _items(expected)
    return path, data, expected


def _fits(value: Any, expected: "inspect.Type") -> bool:
    """Whether a value in a dictionary fits; our settings have whole numbers and texts there."""
    types = expected.types if isinstance(expected, inspect.UnionType) else (expected,)
    for kind in types:
        if isinstance(kind, inspect.IntType) and type(value) is int:
            return (kind.ge is None or value >= kind.ge) and (kind.le is None or value <= kind.le)
        if isinstance(kind, inspect.LiteralType) and value in kind.values:
            return True
        if isinstance(kind, inspect.StrType) and isinstance(value, str):
            return True
    return False


def _field(expected: "inspect.Type", name: str) -> "inspect.Type":
    if isinstance(expected, inspect.StructType):
        for candidate in expected.fields:
            if candidate.encode_name == name:
                return candidate.type
    return expected


def _items(expected: "inspect.Type") -> "inspect.Type":
    types = expected.types if isinstance(expected, inspect.UnionType) else (expected,)
    return next((kind.item_type for kind in types if isinstance(kind, inspect.ListType)), expected)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def allowed(expected: "inspect.Type") -> str:
    """A type and its bounds in words."""
    match expected:
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType(ge=low, le=high):
            return f"a whole number from {low} to {high}"
        case inspect.FloatType(gt=above, ge=low, le=high):
            return f"a number from {low} to {high}" if low is not None else f"a number over {above}, at most {high}"
        case inspect.StrType(pattern=pattern, min_length=length):
            return f"a text that matches {pattern}" if pattern else "a text, not empty" if length else "a text"
        case inspect.LiteralType(values=values):
            return " or ".join(f'"{value}"' for value in values)
        case inspect.UnionType(types=types):
            return ", or ".join(allowed(kind) for kind in types)
        case inspect.ListType(item_type=item, min_length=length):
            return f"a list{' of at least one' if length else ''}: {allowed(item)}"
        case inspect.DictType(value_type=value):
            return f"a table of names and for each {allowed(value)}"
        case inspect.StructType(fields=fields):
            return "a table of " + ", ".join(candidate.encode_name for candidate in fields)
        case _:
            return str(expected)
