"""The file of a page: it is there whole, or not at all. `-` is standard output; a pipe or a device is written to."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from ratelimitd.control.commands import Refused
from ratelimitd.ctl.page import render
from ratelimitd.ctl.page.content import Page

STDOUT = "-"
_MODE = 0o644

Write = Callable[[Page], None]


@contextlib.contextmanager
def page_file(name: str) -> Iterator[Write]:
    """What writes the page; that it cannot be written is said before any work is done for it. Raises Refused."""
    render.check()
    if name == STDOUT:
        yield lambda page: _print(render.html(page))
        return
    path = Path(name)
    with _refusing(name):
        if path.exists() and not path.is_file():
            new, file = "", path.open("w", encoding="utf-8")
        else:
            path = path.resolve()  # the file that a link leads to is replaced, not the link
            descriptor, new = tempfile.mkstemp(prefix=".ratelimitctl-", suffix=".html", dir=path.parent)
            file = os.fdopen(descriptor, "w", encoding="utf-8")
    try:
        yield lambda page: _write(name, render.html(page), file, new, path)
    finally:
        file.close()
        if new:
            Path(new).unlink(missing_ok=True)


def _print(text: str) -> None:
    sys.stdout.buffer.write(text.encode())  # as the page says that it is, whatever the terminal reads


def _write(name: str, text: str, file: IO[str], new: str, path: Path) -> None:
    with _refusing(name):
        file.write(text)
        file.close()
        if new:
            os.chmod(new, _MODE & ~_umask())
            os.replace(new, path)


@contextlib.contextmanager
def _refusing(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Refused(f"{name}: {error.strerror or error}") from error


def _umask() -> int:
    """What this process takes away from the modes of new files."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
