"""The first process of a private Debian (see chroot): puts it together, then ends when its standard input does.

With it, the kernel kills every process of its namespace, and forgets its mounts.
"""

import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


def _mount(*arguments: str) -> bool:
    return subprocess.run(["mount", *arguments], stdin=subprocess.DEVNULL, capture_output=True).returncode == 0


def _loopback() -> None:
    with socket.socket() as sock:
        answer = fcntl.ioctl(sock, _SIOCGIFFLAGS, struct.pack("16sh14x", b"lo", 0))
        flags = struct.unpack("16sh14x", answer)[1]
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


def _root(lower: Path, folder: Path, layered: bool) -> Path:
    """Where to change root to: `lower` itself, or a layer above it in `folder`, or, where that may not be, a copy."""
    if not layered:
        return lower
    root, upper, work = (folder / name for name in ("root", "upper", "work"))
    for path in (root, upper, work):
        path.mkdir()
    if not _mount("-t", "overlay", "-o", f"lowerdir={lower},upperdir={upper},workdir={work}", "overlay", str(root)):
        subprocess.run(["cp", "-a", "--reflink=auto", f"{lower}/.", str(root)], check=True)
    return root


def main() -> None:
    """Hold a system: lower folder, folder for the layer, `layer` or `bare`."""
    _loopback()
    root = _root(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "layer")
    if not _mount("-t", "proc", "proc", str(root / "proc")):
        raise SystemExit("proc cannot be mounted")
    os.chroot(root)
    os.chdir("/")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # orphans are reaped
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
