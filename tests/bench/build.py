"""Compiles the bench's C programs, once for each version of their text."""

import hashlib
import subprocess
import tempfile
from pathlib import Path

from tests.instances import cache
from tests.instances.components import program

SOURCES = Path(__file__).parent
FLAGS = ("-O2", "-Wall", "-Wextra", "-Werror")


def build(name: str) -> Path:
    """The program made of NAME.c. Raises ComponentMissing without a compiler, CalledProcessError for a bad text."""
    source = SOURCES / f"{name}.c"
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    kept = cache.folder()
    made = kept / f"{name}-{digest}"
    if not made.exists():
        kept.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept) as folder:
            fresh = Path(folder) / name
            command = [program("gcc"), *FLAGS, "-o", str(fresh), str(source), "-lm"]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
            fresh.rename(made)
    return made
