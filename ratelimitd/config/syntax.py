"""What an administrator reads of a file that is no TOML: the line, and how it is written. It does not parse.

It takes the text of tomli's errors apart; tests/core/test_places.py holds those texts.
"""

import re

from ratelimitd.errors import ConfigError

_AT_LINE = re.compile(r"\(at (?:line (?P<line>[0-9]+), column [0-9]+|end of document)\)$")
_TWICE = re.compile(r"Cannot declare \((?P<names>.*?),?\) twice")
_HOW = {
    "Cannot overwrite a value": "each setting once; a table is [one] or [[several]], not both",
    "Invalid value": '"a text", a number, true, false or ["a", "list"]',
    "Expected '=' after a key": 'name = value; a name with other signs than letters, digits, _ and - is "in quotes"',
}


def wrong(error: Exception, text: str) -> ConfigError:
    """The error of the TOML parser about a text, for people."""
    said = str(error)
    how = next((how for begin, how in _HOW.items() if said.startswith(begin)), "") or _once(said, text)
    return ConfigError("syntax", said, f"TOML: {how}" if how else "TOML", line=_line_in(said, text))


def _once(said: str, text: str) -> str:
    """Where a table begins that stands in the file twice; "" of another error."""
    twice = _TWICE.match(said)
    if twice is None:
        return ""
    name = ".".join(re.findall(r"'([^']*)'", twice["names"]))
    begins = (number for number, line in enumerate(text.split("\n"), 1) if line.strip().startswith(f"[{name}]"))
    first = next(begins, None)
    if first is None or first == _line_in(said, text):
        return f"the table [{name}] once, with all its settings"
    return f"the table [{name}] once, with all its settings: it begins in line {first}"


def _line_in(said: str, text: str) -> int | None:
    """The line that the error names."""
    found = _AT_LINE.search(said)
    if found is None:
        return None
    return int(found["line"]) if found["line"] else text.rstrip().count("\n") + 1
