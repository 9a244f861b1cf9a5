"""Where a page goes: to a file, which is there whole or not at all, or to standard output (`-`)."""

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator

from ratelimitd.control.commands import Refused
from ratelimitd.ctl.page import render, writer
from ratelimitd.ctl.page.content import Page
from ratelimitd.daemon import output

STDOUT = "-"

Write = Callable[[Page], None]


@contextlib.contextmanager
def page_file(name: str) -> Iterator[Write]:
    """What writes the page; that it cannot be written is said before any work is done for it. Raises Refused."""
    render.check()
    if name == STDOUT:
        yield lambda page: output.write_bytes(render.html(page).encode())  # as the page says that it is
        return
    command = [sys.executable, "-I", writer.__file__, name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:  # noqa: S603  it is ours
        assert program.stdout is not None
        _check(name, program.stdout.readline())
        yield lambda page: _send(name, program, render.html(page).encode())


def _send(name: str, program: subprocess.Popen[bytes], content: bytes) -> None:
    said, _ = program.communicate(b"%d\n%b" % (len(content), content))
    _check(name, said if program.returncode == 0 else b"it was not written\n")


def _check(name: str, said: bytes) -> None:
    """What the program has said: nothing, or why the file cannot be written."""
    if not said.isspace() and said:
        raise Refused(f"{name}: {said.decode().strip()}")
