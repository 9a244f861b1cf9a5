"""What works in a configuration, or may work later, but should be looked at: for a start's log, and for `--check`.

What a start refuses is not here.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ratelimitd.config.read import Configuration
from ratelimitd.daemon import privileges
from ratelimitd.log.destinations import lacks_syslog
from ratelimitd.settings import StoreSettings

_OF_A_PLACE = ("host", "port", "unix_socket", "user", "database")
_OF_A_SERVER = (*_OF_A_PLACE, "service", "password", "password_file", "tls_ca", "tls_verify_name", "server_public_key")
_NOT_USED = {
    "sqlite": _OF_A_SERVER,
    "mysql": ("path", "service"),
    "postgresql": ("path", "server_public_key"),
}


class Advice(NamedTuple):
    """A warning, as the log has it."""

    event: str
    fields: dict[str, str]

    def __str__(self) -> str:
        fields = ", ".join(f"{name}={value}" for name, value in self.fields.items())
        return f"{self.event}: {fields}" if fields else self.event


def advice(config: Configuration) -> Iterator[Advice]:
    """All of it. Files are looked at as the user of this process."""
    settings = config.settings
    if config.has_secrets and privileges.readable_by_all(config.file):
        what = "every user may read the configuration, which has a password in it; chmod o-r"
        yield Advice(what, {"file": str(config.file)})
    secrets = {"store.password_file": settings.store.password_file}
    secrets |= {f"notify[{i}].secret_file": notify.secret_file for i, notify in enumerate(settings.notify)}
    for setting, name in secrets.items():
        if name and privileges.readable_by_all(config.path(name)):
            what = "every user may read a file with a password or another secret in it; chmod o-r"
            yield Advice(what, {"setting": setting, "file": str(config.path(name))})
    for i, notify in enumerate(settings.notify):
        if notify.command and not _can_be_run(notify.command[0]):
            what = "the program of a [[notify]] cannot be run, so its notices will not be delivered"
            yield Advice(what, {"setting": f"notify[{i}].command", "program": notify.command[0]})
    unused = ", ".join(f"store.{name}" for name in _unused(settings.store))
    if unused:
        yield Advice("settings are set that are not used beside the others of [store]", {"settings": unused})
    if not (settings.log.syslog or settings.log.file or settings.log.stderr):
        yield Advice('nothing is logged: log.syslog is "", and neither log.file nor log.stderr is set', {})


def at_start(config: Configuration) -> Iterator[Advice]:
    """The same, and what shows only where the daemon runs."""
    yield from advice(config)
    yield from hidden(config)
    log = config.settings.log
    if lacks_syslog(log):
        what = f"there is no {log.syslog}, so the log goes to stderr; set log.stderr = true if that is wanted"
        yield Advice(what, {})


def hidden(config: Configuration) -> Iterator[Advice]:
    """A configuration that the user of this process may not read: root has read it, and nobody reads it again."""
    if not os.access(config.file, os.R_OK, effective_ids=True):
        what = (
            "the daemon's user may not read the configuration, so a reload will be refused; a restart applies changes"
        )
        yield Advice(what, {"file": str(config.file)})


def _unused(store: StoreSettings) -> list[str]:
    """Settings of another backend, or of another way to the server, that differ from their defaults."""
    unused = [*_NOT_USED[store.backend]]
    if store.backend == "postgresql" and store.service:
        unused += _OF_A_PLACE
    elif store.unix_socket:
        unused.append("host")
        if store.backend == "postgresql":
            unused += ["tls_ca", "tls_verify_name"]  # it has no TLS over a socket
    if not store.tls_ca:
        unused.append("tls_verify_name")
    defaults = StoreSettings()
    return [name for name in dict.fromkeys(unused) if getattr(store, name) != getattr(defaults, name)]


def _can_be_run(program: str) -> bool:
    """Whether a program is found; True if this user may not look there, for the daemon's may."""
    if shutil.which(program) is not None:
        return True
    try:
        Path(program).stat()
    except PermissionError:
        return True
    except OSError:
        pass
    return False
