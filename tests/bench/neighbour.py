"""`neighbour.py FOLDER`: what else a mail server's disk has to do: files are written and synced, until SIGTERM."""

import os
import sys
from pathlib import Path

FILES = 8
BYTES = 4 << 20


def main() -> None:
    """Write and sync, one file after the other."""
    folder, content = Path(sys.argv[1]), os.urandom(BYTES)
    number = 0
    while True:
        number += 1
        with (folder / f"{number % FILES}").open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


if __name__ == "__main__":
    main()
