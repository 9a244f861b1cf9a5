"""The Debian packages that contrib/debian/build makes of this checkout, and systems to install them in."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.instances.components import program

ROOT = Path(__file__).parents[2]
HERE = ROOT / "contrib" / "debian"

BESIDES = ("adduser", "python3-pip")
"""What the package needs whatever the release, and what README.Debian has a user install for plugins."""


@dataclass(frozen=True)
class Release:
    """A release of Debian, as the package knows it."""

    name: str
    number: int
    python: str
    architecture: str

    @property
    def depends(self) -> list[str]:
        """The packages of the release that ours takes."""
        text = re.sub(r"^#.*$", "", (HERE / f"{self.name}.depends").read_text(encoding="utf-8"), flags=re.M)
        return sorted(set(re.findall(r"[a-z][a-z0-9.+-]+", re.sub(r"\(.*?\)", "", text))) - {"python3"})

    def package(self, folder: Path) -> Path:
        """Where `build` puts the package."""
        (found,) = folder.glob(f"ratelimitd_*+deb{self.number}_{self.architecture}.deb")
        return found


def releases() -> list[Release]:
    """Those that the package is for."""
    here = subprocess.run([program("dpkg"), "--print-architecture"], capture_output=True, text=True, check=True)
    return [Release("bookworm", 12, "3.11", here.stdout.strip()), Release("trixie", 13, "3.13", "all")]


def build(folder: Path) -> None:
    """Build the packages for all releases. Raises CalledProcessError, with what was said as a note."""
    names = [release.name for release in releases()]
    done = subprocess.run(
        [HERE / "build", "-o", folder, *names],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        env={**os.environ, "PYTHON": sys.executable},
    )
    if done.returncode != 0:
        error = subprocess.CalledProcessError(done.returncode, "build")
        error.add_note(done.stdout[-8000:])
        raise error


def older(package: Path, folder: Path) -> Path:
    """The same package as an earlier version: 0.0.1."""
    tree = folder / "tree"
    deb = program("dpkg-deb")
    subprocess.run([deb, "--raw-extract", package, tree], check=True)
    control = tree / "DEBIAN" / "control"
    text = re.sub(r"^(Version: )[^+]+", r"\g<1>0.0.1", control.read_text(encoding="utf-8"), flags=re.M)
    control.write_text(text, encoding="utf-8")
    made = folder / "older.deb"
    subprocess.run([deb, "-Znone", "--root-owner-group", "--build", tree, made], check=True, capture_output=True)
    return made
