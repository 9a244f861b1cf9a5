"""Puts the man pages into the wheel: makes them when it is built, since they come from the programs themselves.

What else is in the wheel stands in pyproject.toml. A checkout that is installed as it is (`pip install -e`) has none.
"""

import runpy
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ManPages(BuildHookInterface[Any]):
    """contrib/man/make.py, run in the build's environment, which has what the programs import."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Make the pages, and say where they belong; `version` is "editable" or "standard"."""
        if version == "editable":
            return
        self._folder = tempfile.TemporaryDirectory()
        pages = Path(self._folder.name)
        programs = Path(self.root, "contrib", "man")
        sys.path[:0] = [self.root, str(programs)]
        sys.dont_write_bytecode = True  # the checkout may be another user's
        runpy.run_path(str(programs / "make.py"))["main"](pages)
        for page in sorted(pages.rglob("*.[58]")):
            build_data["shared_data"][str(page)] = f"share/man/{page.relative_to(pages)}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Once they are in the wheel, they go."""
        if version != "editable":
            self._folder.cleanup()
