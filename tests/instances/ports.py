"""Free ports of 127.0.0.1."""

import random
import socket

# Below the ephemeral range of Linux and the BSDs, so that no outgoing connection takes one meanwhile.
_FIRST, _LAST = 11_000, 32_000
_given: set[int] = set()


def free_port() -> int:
    """A TCP port nobody listens on; never the same one twice in a test run."""
    for _ in range(1000):
        port = random.randint(_FIRST, _LAST)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise RuntimeError(f"no free port between {_FIRST} and {_LAST}")
