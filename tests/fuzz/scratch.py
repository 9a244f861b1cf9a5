"""Where the targets write the files that are read: in memory, if there is such a place."""

import atexit
import shutil
import tempfile
from pathlib import Path

_MEMORY = Path("/dev/shm")

FOLDER = Path(tempfile.mkdtemp(prefix="ratelimitd-fuzz-", dir=_MEMORY if _MEMORY.is_dir() else None))

atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
