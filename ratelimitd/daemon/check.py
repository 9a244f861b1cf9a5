"""`--check`: a configuration is resolved as a start resolves it, by the same functions; nothing is opened or made."""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from ratelimitd.config.read import Configuration, naming, read
from ratelimitd.daemon import handover, privileges
from ratelimitd.daemon.advice import Advice, advice, hidden
from ratelimitd.daemon.backends import make_store
from ratelimitd.errors import StartError
from ratelimitd.net.listeners import control_address, group_id, parse_address
from ratelimitd.plugins import unused

MADE_LATE = (Path("/run"), Path("/var/run"))
"""Empty after each boot: a service manager makes folders there right before the start (systemd's RuntimeDirectory=)."""


def check(file: Path) -> tuple[Configuration, list[str]]:
    """The configuration of a file, and warnings, a line each. Raises ConfigError, StartError.

    A file of secrets that this user may not read is a warning: the daemon's user may be able to read it.
    """
    config = read(file, lenient=True)
    missing = resolve(config)
    remarks = [*advice(config), *_as_its_user(config), *unused().values()]
    warnings = [*config.credentials.unreadable, *missing, *map(str, remarks)]
    return config, [f"{config.file}: {warning}" for warning in warnings]


def _as_its_user(config: Configuration) -> list[Advice]:
    """What only the daemon's user sees. Raises StartError."""
    settings = config.settings
    if not settings.user or os.geteuid() != 0:
        return []
    with privileges.acting_as(privileges.resolve(settings.user, settings.group)):
        return list(hidden(config))


def resolve(config: Configuration) -> list[str]:
    """Resolve hosts' ports, users, groups, files of secrets and certificates, and the folders that a start needs.

    Which folders a service manager has to make first. Raises ConfigError, StartError.
    """
    settings = config.settings
    with naming(config.file):
        make_store(config)
        if settings.user:
            identity = privileges.resolve(settings.user, settings.group)
            if os.geteuid() == 0:
                handover.refuse_closed("state_dir", config.state_dir, identity)
                handover.check_state(config.state_dir, identity)
                if settings.log.file:
                    handover.refuse_closed("log.file", config.path(settings.log.file), identity)
        group_id(settings.server.unix_group)
        control_address(config.control_socket)
        return list(_missing_folders(config))


def _missing_folders(config: Configuration) -> Iterator[str]:
    """Raises StartError for one that nobody makes, as a start does."""
    settings = config.settings
    needed = [("pid_file", settings.pid_file), ("log.file", settings.log.file)]
    places = [(setting, str(config.path(name)), config.path(name)) for setting, name in needed if name]
    for text in settings.server.listen:
        address = parse_address(text)
        if isinstance(address, Path):
            places.append(("server.listen", text, address))
    for setting, shown, path in places:
        if not _is_missing(path.parent):
            continue
        if not any(path.is_relative_to(late) for late in MADE_LATE):
            raise StartError(f"{setting}: {shown}: {os.strerror(errno.ENOENT)}")
        yield f"{setting}: the folder {path.parent} does not exist; a start needs it"


def _is_missing(folder: Path) -> bool:
    try:
        return not stat.S_ISDIR(folder.stat().st_mode)  # is_dir() does not tell what is missing from what is hidden
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:  # this user may not look there; the daemon's may
        return False
