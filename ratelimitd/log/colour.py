"""Colour on a terminal: where it is wanted, and how a text gets it.

Colour is never the only sign of anything: each text says the same without it. It is left out where the stream is no
terminal, the terminal is a dumb one, or NO_COLOR is set (no-color.org).
"""

import os

BOLD, DIM, RED, GREEN, YELLOW = "1", "2", "1;31", "32", "33"
"""Of the terminal's own sixteen colours, which its user has chosen to be readable."""


def wanted(fd: int) -> bool:
    """Whether what is written to this descriptor may be coloured."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM", "") in ("", "dumb"):
        return False
    try:
        return os.isatty(fd)
    except OSError:
        return False


def painted(text: str, colour: str) -> str:
    """A part of a line in a colour; "": as it is."""
    begin, end = around(colour)
    return begin.decode() + text + end.decode() if colour and text else text


def around(colour: str) -> tuple[bytes, bytes]:
    """What comes before and after a text that has this colour."""
    return f"\x1b[{colour}m".encode(), b"\x1b[0m"
