"""Writes a file whole or not at all. It is a program of its own, because `ratelimitctl report` becomes the daemon's
user before it has the page, and the file belongs where the one who asked for it may write.

Its argument is the file. It prints one line, empty if the file can be written, else why not. Then it reads the length
of the content, a line end and the content, writes it, and prints why it could not. If the content is not whole,
because the one who makes it has failed, nothing is written. A pipe or a device is written to as it is; a link is
replaced, wherever it leads: in /tmp it may be somebody else's.
"""

import contextlib
import errno
import os
import signal
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

_MODE = 0o644


def main(name: str) -> None:
    """Write the file."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: it is for the one who makes the content
    try:
        with _written(Path(name)) as write:
            print(flush=True)
            length, _, content = sys.stdin.buffer.read().partition(b"\n")
            if length == b"%d" % len(content):
                write(content)
    except OSError as error:
        print(error.strerror or error, flush=True)


@contextlib.contextmanager
def _written(path: Path) -> Iterator[Callable[[bytes], None]]:
    """What writes the file."""
    if _is_device(path):
        with path.open("wb", buffering=0) as device:
            yield lambda content: _all(device.write, content)
        return
    mask = os.umask(0o077)
    descriptor, new = tempfile.mkstemp(prefix=".ratelimitctl-", suffix=".html", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield lambda content: _all(file.write, content)
            whole = file.tell() > 0
        if whole:
            os.chmod(new, _MODE & ~mask)
            os.replace(new, path)
    finally:
        Path(new).unlink(missing_ok=True)


def _is_device(path: Path) -> bool:
    """Whether something is there that is no file. Raises OSError where that cannot be known: for a name that is too
    long Path.exists() does not, from Python 3.14 on."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return False
        raise


def _all(write: Callable[[bytes], int | None], content: bytes) -> None:
    while content:
        content = content[write(content) or 0 :]


if __name__ == "__main__":
    main(sys.argv[1])
