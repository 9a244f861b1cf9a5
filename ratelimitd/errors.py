"""The errors that an administrator sees. Each is one line that says what is wrong, and where."""

import re
import sys
from collections.abc import Mapping
from pathlib import Path

from ratelimitd.text import escape, public

_SECRET = re.compile(
    r"(?<![a-z])(passwords?|passwd|passphrase|pwd|secrets?|tokens?|credentials?|"
    r"(api|access|auth|private|signing|encryption|tls|ssl)[_-]?key)(?![a-z])(?!_file|_path)"
)
_CAPITAL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_QUOTED = re.compile(r'"[^"]*"')

UNKNOWN = object()
"""Found in an OptionError: the plugin has no such option."""


def is_secret(path: str) -> bool:
    """Whether the setting of this path, ours or a plugin's, is never shown: a name in it says so.

    Names of accounts and columns, which are in quotes, say nothing.

    >>> [is_secret(path) for path in ("store.password", "keys.x.apiToken[0]", "notify[0].secret_file", "keys.x.key")]
    [True, True, False, False]
    """
    return _SECRET.search(_CAPITAL.sub("_", _QUOTED.sub("", path)).lower()) is not None


_DEBIAN = Path("/usr/lib/ratelimitd")
"""Where the Debian package (contrib/debian) has this program; its README.Debian says where key plugins go."""


def install(what: str) -> str:
    """The command that installs something beside this program: in its virtual environment, where it is in one.

    Beside the Debian package, which lacks none of our extras, these are key plugins.
    """
    if Path(__file__).parents[1] == _DEBIAN:
        return f"pip install --no-deps --upgrade --target /usr/local/lib/ratelimitd-plugins {what}"
    own = Path(sys.prefix, "bin", "pip")
    return f"{own if sys.prefix != sys.base_prefix else 'pip'} install {what}"


def shown(value: object) -> str:
    """A TOML value as an error shows it: in words; of a table or a list only that it is one, of a URL only its host."""
    if value is UNKNOWN:
        return "an unknown option"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{public(value)}"'
    if isinstance(value, Mapping):
        return "a table"
    return "a list" if isinstance(value, list) else str(value)


class RatelimitdError(Exception):
    """The base of all errors of this program; its text is one line for the administrator."""


class StartError(RatelimitdError):
    """The daemon cannot start: a port in use, a folder that is not ours, a configuration that is wrong."""


class InUse(StartError):
    """Another process has the state directory or an address: starting again later may help."""


class ConfigError(StartError):
    """The configuration is wrong: the path of the setting, what was found there, what is allowed.

    `line`: the one of the file, where what is wrong there is no setting.
    """

    def __init__(self, path: str, found: str, allowed: str, *, line: int | None = None) -> None:
        super().__init__(path, found, allowed)
        self.line = line
        self.path = path
        self.found = found
        self.allowed = allowed

    def __str__(self) -> str:
        return escape(f"{self.path}: found {self.found}; allowed: {self.allowed}")


class RequestTooLong(RatelimitdError):
    """A client sent more than max_request_bytes without ending its request."""


class InternalError(RatelimitdError):
    """The running daemon has met a fault of its own, and has ended."""


class NotPostfix(RatelimitdError):
    """A client began in a way that Postfix does not: its text says what was seen, and quotes nothing of it."""

    def __str__(self) -> str:
        return f"not Postfix: {self.args[0]}"


class StoreError(RatelimitdError):
    """An operation of the database failed; nothing is lost, and it may be tried again."""


class StoreUnsuitable(StoreError):
    """The database answers, but cannot be used as configured: trying again is of no use until somebody changes that."""


class RecordRefused(StoreError):
    """The database refuses what is to be written to one row, by a trigger or a CHECK, say; all else it takes."""


class JournalError(RatelimitdError):
    """A journal segment that this version does not understand; it is left as it is."""


class OutcomeUnknown(StoreError):
    """A change that the database was told to commit, and nobody knows whether it did."""


class NotStored(StoreError):
    """A flush that the database has certainly rolled back: nothing of it is stored."""


class TableRefuses(NotStored, StoreUnsuitable):
    """A flush that is rolled back, for the table takes no record at all: somebody has to repair it."""


class RunUnknown(RatelimitdError):
    """What the database records of an earlier run's segments cannot be true of those that are here."""


class StoreReplaced(StoreError):
    """The database is not the one that was written to: replaced, removed, or put back to an earlier state."""
