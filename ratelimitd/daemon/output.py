"""The standard streams as a program finds them: closed, full, read by nobody, or of an encoding of few characters.

None of that is a traceback. What an answer is, and which status follows, is said elsewhere.
"""

import io
import os
import sys
from typing import Literal


class NotWritten(Exception):
    """Standard output takes no more; the text says why, and is empty where nobody reads it any longer."""


def prepare() -> None:
    """Make all three usable: one that is closed has nothing to read, and takes everything; a character that an encoding
    has not is written as its number."""
    sys.stdin = sys.stdin or _nowhere("r")
    sys.stdout = sys.stdout or _nowhere("w")
    sys.stderr = sys.stderr or _nowhere("w")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def write(text: str) -> None:
    """Write to standard output, so that it has left this process. Raises NotWritten."""
    try:
        print(text, end="", flush=True)
    except OSError as error:
        raise _given_up(error) from error


def write_bytes(content: bytes) -> None:
    """The same for bytes, whatever the encoding is. Raises NotWritten."""
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    except OSError as error:
        raise _given_up(error) from error


def _nowhere(mode: Literal["r", "w"]) -> io.TextIOWrapper:
    return open(os.devnull, mode, encoding="utf-8")


def _given_up(error: OSError) -> NotWritten:
    """What is left goes nowhere, or the interpreter would try it again as it ends, and fail."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
    return NotWritten("" if isinstance(error, BrokenPipeError) else error.strerror or str(error))
