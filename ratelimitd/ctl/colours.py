"""Which words of an answer are coloured on a terminal. The text is the same without; colour only leads the eye to it.

The text is harmless and complete by then. A pattern names what our own words are, by their places in a line, and is no
search for words that a login may have, too.
"""

import re
import sys
from collections.abc import Sequence

from ratelimitd.log.colour import BOLD, GREEN, RED, YELLOW, painted, wanted

Colours = Sequence[tuple[re.Pattern[str], str]]
"""Each pattern with a colour; what its group 1 matches gets it."""


def _of(pattern: str, colour: str) -> tuple[re.Pattern[str], str]:
    return re.compile(pattern, re.MULTILINE), colour


STATUS = (
    _of(r"^ratelimitd +(is not running)", RED),
    _of(r"^store  .*, (up)$", GREEN),
    _of(r"^store  .*, (UNAVAILABLE)", RED),
    _of(r"^  error +(?!none$)(.+)$", RED),
    _of(r"^journal  .*, (\d[\d,]* records? not written)$", RED),
    _of(r"^  flushes +[\d,]+, (?!0 failed)([\d,]+ failed)", YELLOW),
    _of(r"^  flushes .*, (?!0 records)([\d,]+ records? refused)$", YELLOW),
    _of(r"^decisions .*(?<= )(OVER_QUOTA [\d,]+)", YELLOW),
    _of(r"^log +(?!0 lines)([\d,]+ lines? dropped)", YELLOW),
)
DOCTOR = (_of(r"^(WRONG)  ", RED), _of(r"^  (fix)  ", BOLD), _of(r"^(Nothing wrong was found\.)$", GREEN))

HISTORY = (
    _of(r"^(?:until )?\d{4}-\d\d-\d\d \d\d:.*  (OVER)(?: running)?  ", RED),
    _of(r"^(?:until )?\d{4}-\d\d-\d\d \d\d:.*[│|]([█#]+)$", RED),
)


def shown(text: str, colours: Colours) -> str:
    """The text, with colours where standard output is a terminal that shows them."""
    return coloured(text, colours) if sys.stdout.isatty() and wanted(sys.stdout.fileno()) else text


def coloured(text: str, colours: Colours) -> str:
    """The text with colours."""
    for pattern, colour in colours:
        text = pattern.sub(lambda found, colour=colour: _painted(found, colour), text)  # type: ignore[misc]
    return text


def _painted(found: re.Match[str], colour: str) -> str:
    whole, start = found[0], found.start()
    return whole[: found.start(1) - start] + painted(found[1], colour) + whole[found.end(1) - start :]
