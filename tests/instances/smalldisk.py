"""A file system of its own that is soon full."""

import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from .components import ComponentMissing

SIZE_KIB = 16384


class SmallDisk:
    """A tmpfs at `path`, which is made: `fill` it and `empty` it at will. Raises ComponentMissing where one may not."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def __enter__(self) -> Self:
        self.path.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_KIB}k", "tmpfs", str(self.path)]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
            raise ComponentMissing("the right to mount a file system")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        subprocess.run(["umount", "--lazy", str(self.path)], check=True)

    def fill(self) -> None:
        """Take all that is left."""
        with self._filler.open("ab", buffering=0) as file:
            for size in (65536, 4096):
                try:
                    while True:
                        file.write(b"x" * size)
                except OSError:
                    pass

    def empty(self) -> None:
        """Give it back."""
        self._filler.unlink(missing_ok=True)
