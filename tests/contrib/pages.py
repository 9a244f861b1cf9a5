"""contrib/man/make.py as it is when it is run as a program: its names, by name."""

import runpy
import sys
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parents[2] / "contrib" / "man"
sys.path.insert(0, str(_FOLDER))  # a program's own folder is there, and make.py imports from it
make: dict[str, Any] = runpy.run_path(str(_FOLDER / "make.py"))
