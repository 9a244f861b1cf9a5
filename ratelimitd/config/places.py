"""Where a setting stands in the file: its line, and what it is called there.

The line is found with the TOML parser itself. The beginning of a file can be parsed up to the end of each statement,
and nowhere in between; so the statement that sets something ends with the first beginning that has it.
"""

import re
from typing import Any

import tomli

MAX_PARSED = 200
"""So many beginnings are parsed at most: a list of thousands of lines is no reason to think for minutes."""
_STEP = re.compile(r'"(?P<quoted>[^"]*)"|\[(?P<index>[0-9]+)\]|(?P<name>[^.\[\]"]+)')

_CLOSES = re.compile(r"\]|\"{3}|'{3}")
"""What the last line of a statement over several lines has in it."""

Steps = tuple[str | int, ...]


def named(path: str, data: dict[str, Any]) -> str:
    """The path with the limit's name in place of its number: `limit[0].quota` is `limit "daily".quota`."""
    found = re.match(r"limit\[(\d+)\]", path)
    limit = _walk(("limit", int(found[1])), data) if found else None
    name = limit.get("name", "default") if isinstance(limit, dict) else None
    if found is None or not isinstance(name, str) or not name.isprintable():
        return path
    return f'limit "{name}"{path[found.end() :]}'


def line_of(path: str, text: str, data: dict[str, Any]) -> int | None:
    """The line of a setting, or, where it is not there, of the table that it belongs to; None: neither is there.

    `data` is what the text says.
    """
    steps = _there(path, data)
    lines = text.split("\n")
    parsed: dict[int, dict[str, Any] | None] = {}

    def beginning(end: int) -> dict[str, Any] | None:
        if end not in parsed:
            if len(parsed) >= MAX_PARSED:
                raise TimeoutError
            try:
                parsed[end] = tomli.loads("\n".join(lines[:end]) + "\n")
            except (ValueError, RecursionError):
                parsed[end] = None
        return parsed[end]

    low, high = 0, len(lines)  # the first `low` lines lack it; what can be parsed of `high` lines or more has it
    try:
        while steps and high - low > 1:
            middle = at = (low + high) // 2
            while at < high and beginning(at) is None:
                at = next((end for end in range(at + 1, high) if _CLOSES.search(lines[end - 1])), high)
            if at < high and _walk(steps, beginning(at)) is None:
                low = at
            else:
                high = middle
        return high if steps else None
    except TimeoutError:
        return None


def _there(path: str, data: dict[str, Any]) -> Steps:
    """The steps of a path, as far as the file has them."""
    steps: Steps = ()
    for found in _STEP.finditer(path):
        step = int(found["index"]) if found["index"] else found["quoted"] or found["name"]
        if _walk((*steps, step), data) is None:
            break
        steps = (*steps, step)
    return steps


def _walk(steps: Steps, data: Any) -> Any:
    """What is at the end of the steps; None: nothing."""
    for step in steps:
        if isinstance(data, dict) and isinstance(step, str):
            data = data.get(step)
        elif isinstance(data, list) and isinstance(step, int) and step < len(data):
            data = data[step]
        else:
            return None
    return data
