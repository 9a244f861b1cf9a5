"""Free ports of 127.0.0.1."""

import contextlib
import fcntl
import functools
import os
import random
import socket

from . import cache

# Below the ephemeral range of Linux and the BSDs, so that no outgoing connection takes one meanwhile.
_FIRST, _LAST = 11_000, 32_000
_given: set[int] = set()


@functools.cache
def _locks() -> int:
    """A file in which a process locks the byte of each port it was given. The kernel unlocks them at its end."""
    cache.folder().mkdir(parents=True, exist_ok=True)
    return os.open(cache.folder() / "ports.lock", os.O_RDWR | os.O_CREAT, 0o600)


def free_port() -> int:
    """A TCP port nobody listens on; never the same one twice in a test run, nor in two that run at once."""
    locks = _locks()
    for _ in range(1000):
        port = random.randint(_FIRST, _LAST)
        if port in _given:
            continue
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            fcntl.lockf(locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            _given.add(port)
            return port
    raise RuntimeError(f"no free port between {_FIRST} and {_LAST}")
