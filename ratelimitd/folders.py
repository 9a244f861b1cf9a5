"""Folders by descriptor: what is done in one by `dir_fd` is done in that folder, whoever swaps names meanwhile.

As root a path may lead through folders of other users. So root walks it one name at a time, and follows a symbolic link
only where nobody but root can have placed it (as /var/run on most systems).
"""

import errno
import os
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_LOOK = os.O_PATH | os.O_CLOEXEC
MAX_LINKS = 40


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A folder's descriptor, for `dir_fd`. Raises OSError."""
    descriptor = _walk(path) if os.geteuid() == 0 else os.open(path, _LOOK | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _walk(path: Path) -> int:
    names = deque(path.absolute().parts[1:])
    links = 0
    here = os.open("/", _LOOK)
    try:
        while names:
            name = names.popleft()
            there = os.open(name, _LOOK | os.O_NOFOLLOW, dir_fd=here)
            kind = os.fstat(there)
            if not stat.S_ISLNK(kind.st_mode):
                os.close(here)
                here = there
                continue
            try:
                links += 1
                if links > MAX_LINKS or kind.st_uid or not is_roots(os.fstat(here)):
                    raise OSError(errno.ELOOP, f"{name} is a symbolic link, which root does not follow there")
                target = Path(os.readlink("", dir_fd=there))
            finally:
                os.close(there)
            names.extendleft(reversed(target.parts))  # "/" as a name leads to the root again
        if not stat.S_ISDIR(os.fstat(here).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    except BaseException:
        os.close(here)
        raise
    return here


def is_there(path: Path) -> bool:
    """Whether there is such a file or folder. Raises OSError where that is hidden from this user, which Path.exists()
    does not from Python 3.14 on."""
    with suppress(FileNotFoundError):
        path.stat()
        return True
    return False


def is_roots(folder: os.stat_result) -> bool:
    """Whether nobody but root can place anything in a folder."""
    return folder.st_uid == 0 and not folder.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def replace(path: Path, text: str, mode: int) -> None:
    """Write a file whole or not at all, never through a link. Raises OSError."""
    fresh = f".{path.name}.new"
    with opened(path.parent) as folder:
        with suppress(FileNotFoundError):
            os.unlink(fresh, dir_fd=folder)
        new = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(fresh, new, mode, dir_fd=folder), "w", encoding="ascii") as file:
            file.write(text)
        os.rename(fresh, path.name, src_dir_fd=folder, dst_dir_fd=folder)
