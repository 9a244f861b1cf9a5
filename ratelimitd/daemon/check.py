"""`--check`: a configuration is resolved as a start resolves it, by the same functions; nothing is opened or made."""

import os
from collections.abc import Iterator
from pathlib import Path

from ratelimitd.config.read import Configuration, naming, read
from ratelimitd.daemon import handover, privileges
from ratelimitd.daemon.parts import make_store
from ratelimitd.net.listeners import control_address, group_id, parse_address


def check(file: Path) -> tuple[Configuration, list[str]]:
    """The configuration of a file, and warnings, a line each. Raises ConfigError, StartError.

    A file of secrets that this user may not read is a warning: the daemon's user may be able to read it. So is a
    missing folder: a service manager may make it before the start (systemd's RuntimeDirectory=).
    """
    config = read(file, lenient=True)
    resolve(config)
    warnings = [*config.credentials.unreadable, *_missing_folders(config)]
    return config, [f"{config.file}: {warning}" for warning in warnings]


def resolve(config: Configuration) -> None:
    """Resolve hosts' ports, users, groups, and files of secrets and certificates. Raises ConfigError, StartError."""
    settings = config.settings
    with naming(config.file):
        make_store(config)
        if settings.user:
            identity = privileges.resolve(settings.user, settings.group)
            if os.geteuid() == 0:
                handover.check_state(config.state_dir, identity)
        group_id(settings.server.unix_group)
        control_address(config.control_socket)


def _missing_folders(config: Configuration) -> Iterator[str]:
    settings = config.settings
    paths = {"pid_file": settings.pid_file, "log.file": settings.log.file}
    for i, text in enumerate(settings.server.listen):
        address = parse_address(text)
        paths[f"server.listen[{i}]"] = str(address) if isinstance(address, Path) else ""
    for setting, path in paths.items():
        folder = config.path(path).parent
        if path and not folder.is_dir():
            yield f"{setting}: the folder {folder} does not exist; a start needs it"
