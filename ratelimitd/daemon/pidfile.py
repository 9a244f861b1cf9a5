"""The daemon's process id in a file, for service managers that want one."""

import os
from contextlib import suppress
from pathlib import Path

from ratelimitd.errors import StartError


def write(path: Path) -> None:
    """Write this process's id, whole or not at all. Raises StartError."""
    fresh = path.with_name(f".{path.name}.new")
    try:
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with os.fdopen(fd, "w", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")
        fresh.replace(path)
    except OSError as error:
        raise StartError(f"pid_file: {path}: {error.strerror}") from error


def remove(path: Path) -> None:
    """Remove the file, where it is ours and we may: one that root wrote stays, and names a process that is gone."""
    with suppress(OSError):
        if path.read_text("ascii").strip() == str(os.getpid()):
            path.unlink()
