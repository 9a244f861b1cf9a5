"""Opens the sockets that Postfix connects to: TCP on v4 and v6, and unix sockets.

Addresses are as Postfix's own: `127.0.0.1:10032`, `[::1]:10032`, `unix:/path`.
"""

import errno
import grp
import os
import re
import socket
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ratelimitd.errors import ConfigError, StartError

BACKLOG = 1024
_TCP = re.compile(r"(?:\[(?P<v6>[0-9a-fA-F:.%a-z]+)\]|(?P<v4>[0-9.]+|localhost)):(?P<port>[0-9]{1,5})")

Address = tuple[str, int] | Path


class Inherited(socket.socket):
    """A listening socket that a service manager opened: where it has a path, the path is the manager's."""


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


def open_control(path: Path, mode: int) -> socket.socket:
    """The control socket, listening, non-blocking. Raises StartError."""
    return open_listener(control_address(path), mode, setting="control.socket")


def control_address(path: Path) -> str:
    """The address of the control socket, as `server.listen` would have it. Raises ConfigError."""
    text = f"unix:{path}"
    try:
        parse_address(text)
    except ValueError as error:
        raise ConfigError("control.socket", f'"{path}"', "a path of at most 107 bytes") from error
    return text


def open_listeners(texts: Sequence[str], unix_mode: int, unix_group: str) -> list[socket.socket]:
    """Listening sockets for all addresses, or none of them. Raises StartError as open_listener."""
    opened: list[socket.socket] = []
    try:
        for text in texts:
            opened.append(open_listener(text, unix_mode, unix_group))  # noqa: PERF401 those opened before a failure are closed
    except BaseException:
        close_all(opened)
        raise
    return opened


def open_listener(
    text: str, unix_mode: int = 0o660, unix_group: str = "", setting: str = "server.listen"
) -> socket.socket:
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
