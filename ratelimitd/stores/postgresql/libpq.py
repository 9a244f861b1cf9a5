"""What libpq takes from the process's environment, and what it says of a connection that failed, for an administrator.

The configuration says where the database is, and who the daemon is there: variables of whoever has started the daemon,
or runs `ratelimitctl check`, must not say otherwise. Where libpq finds its own files they may say.
"""

import ctypes
import os
import re
from collections.abc import Iterator
from pathlib import Path

from psycopg import pq
from psycopg.pq.misc import find_libpq_full_path

KEPT = ("PGPASSFILE", "PGSERVICEFILE", "PGSYSCONFDIR")
_OF_A_SESSION = ("PGDATESTYLE", "PGTZ", "PGGEQO")
"""What libpq takes from the environment besides what it is told of a connection."""

_WHERE = re.compile(r'^connection to server (at "[^"]*"( \([^)]*\))?, port [0-9]+|on socket "[^"]*") failed: +')
_LEVEL = re.compile(r"^(?:(?:FATAL|ERROR): +|\S+: +(?=[0-9A-Z]{5}: ))(?:([0-9A-Z]{5}): )?")
"""How bad it is, in the server's language, and the SQLSTATE where libpq was told to name it."""
_SOURCE = re.compile(r"^\S+: +\w+, \w+\.c:[0-9]+$")
"""Where the server's source says so."""
_USUAL, _VERBOSE = 1, 2
_ENCRYPTION = re.compile(r", ((SSL|GSS) encryption|no encryption|SSL on|SSL off)$")
"""How pg_hba.conf's refusal of one of two tries, with TLS and without, differs from that of the other."""


def forget_environment() -> None:
    """Remove from the environment what would change a connection."""
    variables = [option.envvar.decode() for option in pq.Conninfo.get_defaults() if option.envvar]
    for name in {*variables, *_OF_A_SESSION}.difference(KEPT):
        os.environ.pop(name, None)


def name_states(connection: pq.abc.PGconn, *, named: bool) -> None:
    """Have errors of a connection name their SQLSTATE: what is said while it is made has no other sign, and may be in
    any language.

    psycopg does not wrap this call, for which it gives the pointer. Where it has a libpq of its own, that of the system
    must not touch it.
    """
    pointer = getattr(connection, "pgconn_ptr", None)
    if pq.__impl__ == "python" and pointer:
        call = ctypes.CDLL(find_libpq_full_path()).PQsetErrorVerbosity
        call.argtypes = [ctypes.c_void_p, ctypes.c_int]
        call(pointer, _VERBOSE if named else _USUAL)


def states(message: bytes) -> Iterator[str]:
    """The SQLSTATEs that a message names."""
    for line in message.decode("utf-8", "replace").splitlines():
        level = _LEVEL.match(_WHERE.sub("", line.strip()))
        if level and level[1]:
            yield level[1]


def explained(message: bytes, *, keep_place: bool = False) -> str:
    """Why a connection failed, in one line, each thing once: libpq says it of each address and way that it has tried.

    `keep_place`: of which server, which nobody else says.
    """
    found: dict[str, str] = {}
    for whole in message.decode("utf-8", "replace").splitlines():
        if _SOURCE.match(whole.strip()):
            continue
        line = f"({whole.strip()})" if whole.startswith("\t") else whole.strip()  # a hint
        place = _WHERE.match(line)
        text = _LEVEL.sub("", line[place.end() :] if place else line)
        shown = f"{place[0]}{text}" if place and keep_place else text
        alike = _ENCRYPTION.sub("", shown)
        found[alike] = alike if alike in found and found[alike] != shown else shown
    text = " ".join(" ".join(found.values()).split())
    return text + _remedy(text)


def _remedy(text: str) -> str:
    if "no password supplied" in text:
        file = Path(os.environ.get("PGPASSFILE") or "~/.pgpass")
        try:
            is_open = file.expanduser().stat().st_mode & 0o077
        except (OSError, RuntimeError):
            is_open = 0
        if is_open:
            return f": libpq does not read {file}, which others may read: chmod 600"
        return f": set store.password_file or store.password, or put it into libpq's file, here {file}"
    if "Peer authentication failed" in text:  # as Debian's pg_hba.conf has it for every socket
        return (
            ": there pg_hba.conf says peer: an account with the name of the daemon's user needs no password; any other "
            "needs a line with scram-sha-256 above that one, or store.host in place of the socket"
        )
    if "definition of service" in text:
        own = os.environ.get("PGSERVICEFILE") or "~/.pg_service.conf"
        return f": neither in {own} nor in the system's pg_service.conf (Debian: /etc/postgresql-common)"
    return ""
