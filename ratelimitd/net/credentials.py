"""Reads the files of secrets and certificates that settings name."""

import codecs
import ssl
from pathlib import Path

from ratelimitd.errors import ConfigError


class Credentials:
    """The files that a configuration in `folder` names; a relative path is relative to that folder.

    Where `lenient` is true, a file that this user may not read is noted in `unreadable` and is no error: the daemon's
    user may be able to read it.
    """

    def __init__(self, folder: Path, *, lenient: bool = False) -> None:
        self.unreadable: list[str] = []
        self._folder = folder
        self._lenient = lenient

    def path(self, name: str) -> Path:
        """The path of a file."""
        return self._folder / name

    def read(self, setting: str, name: str) -> bytes | None:
        """The content of a file, which `setting` names; None: it is unreadable. Raises ConfigError.

        The mark that some editors begin UTF-8 with is no part of it.
        """
        file = self.path(name)
        try:
            return file.read_bytes().removeprefix(codecs.BOM_UTF8)
        except OSError as error:
            self._note(setting, file, error, "a readable file")
            return None

    def tls(self, setting: str, name: str) -> "ssl.SSLContext":
        """A client's context that trusts the certificates in a file, or, for the name "", the system's.

        Raises ConfigError.
        """
        if not name:
            return ssl.create_default_context()
        file = self.path(name)
        try:
            return ssl.create_default_context(cafile=file)
        except OSError as error:  # an ssl.SSLError is one
            self._note(setting, file, error, "a file of PEM certificates")
            return ssl.create_default_context()

    def _note(self, setting: str, file: Path, error: OSError, allowed: str) -> None:
        if not (self._lenient and isinstance(error, PermissionError)):
            raise ConfigError(setting, f"{file}: {error.strerror or error}", allowed) from error
        self.unreadable.append(f"{setting} is not checked: this user may not read {file}")
