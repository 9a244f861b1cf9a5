"""The file of a page: it is there whole, or not at all. `-` is standard output; a pipe or a device is written to."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

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
        yield lambda page: print(render.html(page), end="")
        return
    try:
        with _written(Path(name)) as write:
            yield lambda page: write(render.html(page))
    except OSError as error:
        raise Refused(f"{name}: {error.strerror or error}") from error


@contextlib.contextmanager
def _written(path: Path) -> Iterator[Callable[[str], None]]:
    if path.exists() and not path.is_file():
        with path.open("w", encoding="utf-8") as device:
            yield lambda text: cast("None", device.write(text))
        return
    target = path.resolve()  # the file that a link leads to is replaced, not the link
    descriptor, new = tempfile.mkstemp(prefix=f".{target.name[:100]}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            yield lambda text: cast("None", file.write(text))
        os.chmod(new, _MODE & ~_umask())
        os.replace(new, target)
    except BaseException:
        os.unlink(new)
        raise


def _umask() -> int:
    """What this process takes away from the modes of new files."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
