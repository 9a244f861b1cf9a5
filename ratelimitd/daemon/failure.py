"""A start that fails says why where it is looked for: in the log, and in the file that an init script names.

On stderr it is said in any case; an init script starts the daemon without one.
"""

import os
import stat
from contextlib import nullcontext, suppress
from pathlib import Path

import msgspec

from ratelimitd.config.read import Configuration
from ratelimitd.daemon import handover, privileges
from ratelimitd.errors import RatelimitdError, StartError
from ratelimitd.folders import opened
from ratelimitd.log.destinations import open_sinks
from ratelimitd.log.log import Log
from ratelimitd.log.sinks import Sink
from ratelimitd.settings import LogSettings
from ratelimitd.text import escape

_OWN = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class FailureFile:
    """The file that an init script reads. It is opened before the user changes, and empty until `write`.

    Root may be told a folder where others place something, as /tmp: nothing is followed, waited for, or emptied that
    could be another file.
    """

    def __init__(self, path: Path) -> None:
        """Raises StartError."""
        try:
            with opened(path.parent) as folder:
                self._descriptor = os.open(path.name, _OWN, 0o600, dir_fd=folder)
            found = os.fstat(self._descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or found.st_uid != os.geteuid():
                os.close(self._descriptor)
                raise StartError(f"--failure-file: {path}: not a file of its own")
            os.ftruncate(self._descriptor, 0)
        except OSError as error:
            raise StartError(f"--failure-file: {path}: {error.strerror}") from error

    def write(self, error: RatelimitdError) -> None:
        """Say why the start has failed."""
        with suppress(OSError):
            os.write(self._descriptor, f"ratelimitd: {escape(str(error))}\n".encode())


def log_it(config: Configuration | None, error: RatelimitdError) -> None:
    """Say it in the log of the configuration; where that could not be read, in syslog. Never fails.

    Nothing is said twice where stderr is seen: as the log, or as the journal of systemd.
    """
    settings = config.settings.log if config else LogSettings()
    try:
        sinks = _as_its_user(config) if config else open_sinks(settings, Path("/"))
    except RatelimitdError:  # the file of the log may be what is wrong
        sinks = open_sinks(msgspec.structs.replace(settings, file=""), Path("/"))
    log = Log([sink for sink in sinks if not sink.on_stderr], settings)
    if settings.file or not _stderr_is_the_journal():
        log.error("ratelimitd cannot start", reason=error)
    log.close()


def _as_its_user(config: Configuration) -> list[Sink]:
    """As the daemon would have opened them. Raises StartError, ConfigError."""
    settings = config.settings
    identity = privileges.find(settings.user, settings.group)
    if identity and settings.log.file:
        handover.give_log(config.path(settings.log.file), identity)
    with privileges.acting_as(identity) if identity else nullcontext():
        return open_sinks(settings.log, config.folder)


def _stderr_is_the_journal() -> bool:
    """By the variable of systemd.exec(5)."""
    with suppress(OSError):
        stderr = os.fstat(2)
        return os.environ.get("JOURNAL_STREAM") == f"{stderr.st_dev}:{stderr.st_ino}"
    return False
