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
from contextlib import contextmanager, suppress
from pathlib import Path

from ratelimitd.errors import ConfigError, InUse, StartError
from ratelimitd.folders import opened

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
        return [
            address if address.startswith("unix:") else describe(listener)
            for address, listener in self._sockets.items()
        ]

    def inherit(self, listeners: Sequence[socket.socket]) -> None:
        """Take over what a service manager opened, if it opened any."""
        self.inherited = bool(listeners)
        self._sockets = {describe(listener): listener for listener in listeners}

    def prepare(
        self, addresses: Sequence[str], unix_mode: int = 0o660, unix_group: str = ""
    ) -> dict[str, socket.socket]:
        """Open those of the addresses that are not open yet, all or none; `adopt` takes them. Raises StartError."""
        fresh: dict[str, socket.socket] = {}
        try:
            for address in [] if self.inherited else addresses:
                if address not in self._sockets:
                    fresh[address] = open_listener(address, unix_mode, unix_group, self._setting)
        except BaseException:
            close_all(fresh)
            raise
        return fresh

    def adopt(self, addresses: Sequence[str], fresh: Mapping[str, socket.socket]) -> None:
        """Listen at these addresses alone; what listens elsewhere is closed."""
        if self.inherited:
            return
        known = {**self._sockets, **fresh}
        self._sockets = {address: known[address] for address in addresses}
        close_all({address: listener for address, listener in known.items() if address not in self._sockets})

    def open(self, addresses: Sequence[str], unix_mode: int = 0o660, unix_group: str = "") -> None:
        """Listen at these addresses alone. Raises StartError, with nothing changed."""
        self.adopt(addresses, self.prepare(addresses, unix_mode, unix_group))

    def close(self) -> None:
        """Close all, and remove the unix sockets that are ours."""
        if self.inherited:  # their paths are the manager's
            for listener in self:
                listener.close()
        else:
            close_all(self._sockets)
        self._sockets = {}


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
            raise InUse(f"{setting}: {text}: already in use; is another ratelimitd running?") from error
        raise StartError(f"{setting}: {text}: {reason}") from error
    except StartError as error:
        raise type(error)(f"{setting}: {error}") from error


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
    """A socket at a path, with its mode and group from the start: nobody gets at it before, or instead of it."""
    with opened(path.parent) as folder:
        _remove_stale(path, folder)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with _creating(mode, gid):
                listener.bind(_by_descriptor(folder, path.name) if os.geteuid() == 0 else str(path))
            try:
                _set_group(path.name, folder, gid)
                listener.listen(BACKLOG)
                listener.setblocking(False)
            except BaseException:
                os.unlink(path.name, dir_fd=folder)
                raise
        except BaseException:
            listener.close()
            raise
    return listener


def _by_descriptor(folder: int, name: str = "") -> str:
    """A path that leads into the folder of a descriptor, whoever swaps names above it; or to what is opened itself."""
    return f"/proc/self/fd/{folder}/{name}".rstrip("/")


@contextmanager
def _creating(mode: int, gid: int) -> Iterator[None]:
    """Have what is created get this mode, and as root this group."""
    own_gid, umask = os.getegid(), os.umask(~mode & 0o777)
    try:
        if gid >= 0 and os.geteuid() == 0:
            os.setegid(gid)
        yield
    finally:
        os.umask(umask)
        os.setegid(own_gid)


def _set_group(name: str, folder: int, gid: int) -> None:
    """Give our new socket its group where it was not created with it: we are not root, or the folder has its own."""
    socket_fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        status = os.fstat(socket_fd)
        is_ours = stat.S_ISSOCK(status.st_mode) and status.st_nlink == 1 and status.st_uid == os.geteuid()
        if gid >= 0 and is_ours and status.st_gid != gid:
            os.chown(_by_descriptor(socket_fd), -1, gid)
    finally:
        os.close(socket_fd)


def _remove_stale(path: Path, folder: int) -> None:
    """Remove a socket that nobody answers on; refuse a live one, and anything that is no socket."""
    try:
        found = os.open(path.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISSOCK(os.fstat(found).st_mode):
            raise StartError(f"unix:{path}: exists and is not a socket")
        if _answers(_by_descriptor(found) if os.geteuid() == 0 else str(path), path):
            raise InUse(f"unix:{path}: already in use; is another ratelimitd running?")
    finally:
        os.close(found)
    with suppress(FileNotFoundError):
        os.unlink(path.name, dir_fd=folder)


def _answers(address: str, path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(address)
        except ConnectionRefusedError:
            return False
        except FileNotFoundError:  # gone meanwhile; as root, whose address cannot go, /proc is missing
            return address != str(path)
        except OSError as error:
            if error.errno == errno.EPROTOTYPE:
                raise StartError(f"unix:{path}: belongs to a datagram service") from error
    return True


def group_id(name: str) -> int:
    """The group of `server.unix_group`; -1 for "": the process's own. Raises ConfigError."""
    try:
        return grp.getgrnam(name).gr_gid if name else -1
    except KeyError as error:
        raise ConfigError("server.unix_group", f'"{name}"', "a group of this system") from error


def close_all(listeners: Mapping[str, socket.socket]) -> None:
    """Close listening sockets, by their addresses, and remove those that have a path."""
    for text, listener in listeners.items():
        listener.close()
        address = parse_address(text)
        if isinstance(address, Path):
            with suppress(OSError):  # one that root made before it became another user: the next start replaces it
                _unlink(address)


def _unlink(path: Path) -> None:
    with opened(path.parent) as folder:
        if stat.S_ISSOCK(os.stat(path.name, dir_fd=folder, follow_symlinks=False).st_mode):
            os.unlink(path.name, dir_fd=folder)
