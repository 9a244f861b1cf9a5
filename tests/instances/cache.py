"""What is kept on a machine between test runs."""

import os
from pathlib import Path


def folder() -> Path:
    """The folder of it, which may not be there yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ratelimitd-tests"
