"""A Perl daemon that still runs, as far as this machine shows it.

What it counts until it is stopped would be lost where a sender is merged with another, and afterwards both would count.

Proof is a process of Perl by the name of the daemon, the one that its pid file names, or its own answer at an address
(`printshm`, which its init script sends for `status`). Its sessions in the database are none: it has one for some
milliseconds every 30 s, by the account that ours may use, too. All of that can also be another daemon's, on another
database, or made up by any user of the machine: so each line says whose process it is, and an administrator who knows
better is believed (`--perl-stopped`).
"""

import os
import pwd
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from ratelimitd.net.listeners import parse_address

PROC = Path("/proc")
PID_FILES = (Path("/var/run/ratelimit-policyd.pid"),)
USUAL = ("127.0.0.1", 10032)
ANSWER_S = 2.0
_ANSWER = b"Printing shm:"
_SCRIPT, _NAME = "daemon.pl", "ratelimit-policyd"
_COMMS = ("perl", _SCRIPT, _NAME[:15])
"""What the kernel calls a process that runs a script of Perl: Perl, the script, or the name that it gave itself."""
_IN_PATH = ("rate", "policyd")
"""Others have a daemon.pl, too: ours is in /opt/ratelimit-policyd or /opt/send_rate_policyd, or some folder like it."""


def running(addresses: Iterable[str]) -> Iterator[str]:
    """Where it runs, a line each, with what to do. `addresses` are those at which ratelimitd is to take its place."""
    for pid, script in _processes():
        yield f"process {pid} of {_owner(PROC / pid)} is {script}: stop it first, as by `service {_NAME} stop`"
    for file in PID_FILES:
        number, program = _of_file(file)
        if program:
            whose = _owner(PROC / str(number))
            yield (
                f"{file} names process {number} of {whose}, {program}: stop it, or remove the file where it is another "
                f"program"
            )
    for host, port in _tcp(addresses):
        if _answers(host, port):
            yield f"{host}:{port} answers as it does: stop it first, as by `service {_NAME} stop`"


def _processes() -> Iterator[tuple[str, str]]:
    """The processes that are the daemon: number and script."""
    for folder in sorted(PROC.iterdir()) if PROC.is_dir() else []:
        if folder.name.isdigit() and folder.name != str(os.getpid()) and _is_perl(folder):
            with suppress(OSError):
                words = (folder / "cmdline").read_bytes().decode("utf-8", "replace").replace("\0", " ").split()
                for word in words[:3]:
                    script = Path(_cwd(folder), word)
                    if script.name.startswith(_NAME) or (
                        script.name == _SCRIPT and any(part in str(script.parent) for part in _IN_PATH)
                    ):
                        yield folder.name, str(script)
                        break


def _is_perl(folder: Path) -> bool:
    """Whether a process runs Perl. Of another user's only root is told that; for others its name must do, which a
    program that reads the daemon's log or script does not have."""
    try:
        return (folder / "exe").readlink().name.startswith("perl")
    except PermissionError:
        with suppress(OSError):
            return (folder / "comm").read_text("utf-8", "replace").strip().startswith(_COMMS)
    except OSError:  # it has ended, or is the kernel's
        pass
    return False


def _owner(folder: Path) -> str:
    """Whose process it is: a name, or a number; "?" for one that has ended."""
    try:
        uid = folder.stat().st_uid
    except OSError:
        return "?"
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _cwd(folder: Path) -> Path:
    try:
        return (folder / "cwd").readlink()
    except OSError:
        return Path("/")


def _of_file(file: Path) -> tuple[int, str]:
    """The number in a pid file, and what runs under it where that is Perl."""
    with suppress(OSError, ValueError):
        pid = int(file.read_text("ascii", "replace")[:20])
        program = (PROC / str(pid) / "cmdline").read_bytes().decode("utf-8", "replace").replace("\0", " ").strip()
        return pid, program if _is_perl(PROC / str(pid)) else ""
    return 0, ""


def _tcp(addresses: Iterable[str]) -> list[tuple[str, int]]:
    """The addresses to ask, each once."""
    found = dict.fromkeys([USUAL])
    for text in addresses:
        address = parse_address(text)
        if not isinstance(address, Path):
            host, port = address
            found[{"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port] = None  # noqa: S104
    return list(found)


def _answers(host: str, port: int) -> bool:
    """Whether the Perl daemon answers there."""
    answer, end = b"", time.monotonic() + ANSWER_S
    with suppress(OSError), socket.create_connection((host, port), ANSWER_S) as connection:
        connection.sendall(b"printshm\n")
        while len(answer) < len(_ANSWER) and time.monotonic() < end:
            connection.settimeout(max(0.01, end - time.monotonic()))
            data = connection.recv(4096)
            if not data:
                break
            answer += data
    return answer.startswith(_ANSWER)
