"""What is kept on a machine between test runs."""

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path


def folder() -> Path:
    """The folder of it, which may not be there yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ratelimitd-tests"


def once(kept: Path, name: str, build: Callable[[Path], None]) -> Path:
    """The folder `name` under `kept`; the first call has `build` fill it, and other processes wait for that."""
    made = kept / name
    kept.mkdir(parents=True, exist_ok=True)
    with (kept / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            building = kept / f"{name}.building"
            shutil.rmtree(building, ignore_errors=True)
            building.mkdir()
            build(building)
            building.rename(made)
    return made
