"""Opens the sockets that Postfix connects to: TCP on v4 and v6, and unix sockets.

Addresses are as Postfix's own: `127.0.0.1:10032`, `[::1]:10032`, `unix:/path`.
"""

import errno
import grp
import os
import re
import socket
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ratelimitd.errors import ConfigError, StartError

BACKLOG = 1024
_TCP = re.compile(r"(?:\[(?P<v6>[0-9a-fA-F:.%a-z]+)\]|(?P<v4>[0-9.]+|localhost)):(?P<port>[0-9]{1,5})")

Address = tuple[str, int] | Path


def parse_address(text: str) -> Address:
    """An address of `server.listen`; raises ValueError."""
    if text.startswith("unix:"):
        path = Path(text.removeprefix("unix:"))
        if not path.is_absolute() or len(os.fsencode(path)) > 107 or "\0" in text:  # sun_path of unix(7)
            raise ValueError(text)
        return path
    match = _TCP.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        raise ValueError(text)
    return match["v6"] or match["v4"], int(match["port"])


def describe(listener: socket.socket) -> str:
    """The address as it is written in the configuration and in main.cf."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"unix:{name}"
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def control_address(path: Path) -> str:
    """The address of the control socket, as `server.listen` would have it. Raises ConfigError."""
    text = f"unix:{path}"
    try:
        parse_address(text)
    except ValueError as error:
        raise ConfigError("control.socket", f'"{path}"', "a path of at most 107 bytes") from error
    return text


class Inherited(socket.socket):
    """A listening socket that a service manager opened: where it has a path, the path is the manager's."""


class Listeners:
    """Listening sockets by their configured addresses; `setting` is the one that errors name.

    Sockets that a service manager opened (`inherited`) stay, whatever is configured.
    """

    def __init__(self, setting: str) -> None:
        self.inherited = False
        self._setting = setting
        self._sockets: dict[str, socket.socket] = {}

    def __iter__(self) -> Iterator[socket.socket]:
        return iter(list(self._sockets.values()))

    @property
    def addresses(self) -> list[str]:
        """Where they listen, as it is written in the configuration and in main.cf."""
        return [describe(listener) for listener in self]

    def inherit(self, listeners: Sequence[socket.socket]) -> None:
        """Take over what a service manager opened, if it opened any."""
        self.inherited = bool(listeners)
        self._sockets = {describe(listener): listener for listener in listeners}

    def prepare(
        self, addresses: Sequence[str], unix_mode: int = 0o660, unix_group: str = ""
    ) -> dict[str, socket.socket]:
        """Open those of the addresses that are not open yet, all or none; `adopt` takes them. Raises StartError."""
        opened: dict[str, socket.socket] = {}
        try:
            for address in [] if self.inherited else addresses:
                if address not in self._sockets:
                    opened[address] = open_listener(address, unix_mode, unix_group, self._setting)
        except BaseException:
            close_all(list(opened.values()))
            raise
        return opened

    def adopt(self, addresses: Sequence[str], opened: Mapping[str, socket.socket]) -> None:
        """Listen at these addresses alone; what listens elsewhere is closed."""
        if self.inherited:
            return
        known = {**self._sockets, **opened}
        self._sockets = {address: known[address] for address in addresses}
        close_all([listener for address, listener in known.items() if address not in self._sockets])

    def open(self, addresses: Sequence[str], unix_mode: int = 0o660, unix_group: str = "") -> None:
        """Listen at these addresses alone. Raises StartError, with nothing changed."""
        self.adopt(addresses, self.prepare(addresses, unix_mode, unix_group))

    def close(self) -> None:
        """Close all, and remove the unix sockets that are ours."""
        close_all(list(self._sockets.values()))


def open_listener(text: str, unix_mode: int, unix_group: str, setting: str) -> socket.socket:
    """A listening, non-blocking socket. Raises StartError with the reason in one line."""
    address = parse_address(text)
    gid = group_id(unix_group)
    try:
        if isinstance(address, Path):
            return _open_unix(address, unix_mode, gid)
        return _open_tcp(*address)
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno == errno.EADDRINUSE:
            reason = "already in use; is another ratelimitd running?"
        raise StartError(f"{setting}: {text}: {reason}") from error
    except StartError as error:
        raise StartError(f"{setting}: {error}") from error


def _open_tcp(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _open_unix(path: Path, mode: int, gid: int) -> socket.socket:
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        before = os.umask(0o177)  # nobody connects before the mode is what was asked for
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        os.chown(path, -1, gid)
        os.chmod(path, mode)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        close_all([listener])
        raise
    return listener


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody answers on; refuse a live one, and anything that is no socket."""
    try:
        kind = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise StartError(f"unix:{path}: exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            if error.errno == errno.EPROTOTYPE:
                raise StartError(f"unix:{path}: belongs to a datagram service") from error
    raise StartError(f"unix:{path}: already in use; is another ratelimitd running?")


def group_id(name: str) -> int:
    """The group of `server.unix_group`; -1 for "": the process's own. Raises ConfigError."""
    try:
        return grp.getgrnam(name).gr_gid if name else -1
    except KeyError as error:
        raise ConfigError("server.unix_group", f'"{name}"', "a group of this system") from error


def close_all(listeners: Sequence[socket.socket]) -> None:
    """Close listening sockets, and remove those that have a path."""
    for listener in listeners:
        path = ""
        if listener.fileno() >= 0 and listener.family == socket.AF_UNIX and not isinstance(listener, Inherited):
            path = listener.getsockname()
        listener.close()
        if path:
            with suppress(OSError):  # one that root made before it became another user: the next start replaces it
                Path(path).unlink(missing_ok=True)
