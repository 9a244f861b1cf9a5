"""The errors an administrator sees. Each is one line that says what is wrong and where."""

from collections.abc import Mapping

from ratelimitd.text import escape

SECRETS = ("password", "secret", "token")
"""Settings that are never shown, ours or a plugin's."""


UNKNOWN = object()
"""What is found where an option has no business."""


def shown(value: object) -> str:
    """A TOML value in words, for an error: its text, or of which kind it is."""
    if value is UNKNOWN:
        return "an unknown option"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, Mapping):
        return "a table"
    return "a list" if isinstance(value, list) else str(value)


class RatelimitdError(Exception):
    """Anything this program says about itself; its text is one line for the administrator."""


class StartError(RatelimitdError):
    """The daemon cannot start: a port in use, a folder that is not ours, a configuration that is wrong."""


class ConfigError(StartError):
    """The configuration is wrong: the path of the setting, what was found there, what is allowed."""

    def __init__(self, path: str, found: str, allowed: str) -> None:
        super().__init__(path, found, allowed)
        self.path = path
        self.found = found
        self.allowed = allowed

    def __str__(self) -> str:
        return escape(f"{self.path}: found {self.found}; allowed: {self.allowed}")


class RequestTooLong(RatelimitdError):
    """A client sent more than max_request_bytes without ending its request."""


class StoreError(RatelimitdError):
    """The database did not do what it was asked; nothing is known to be lost, and it may be asked again."""


class StoreUnsuitable(StoreError):
    """The database answers but cannot serve as configured: asking again will not help before somebody changes that."""


class JournalError(RatelimitdError):
    """A journal segment that this version does not understand; it is left untouched."""


class NotStored(StoreError):
    """A flush that the database has rolled back: nothing of it is stored, beyond doubt."""
