"""Which real components this machine has."""

import os
import shutil
from pathlib import Path

_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin", "/usr/local/sbin"])

GALERA_PROVIDER = Path("/usr/lib/galera/libgalera_smm.so")

_PROGRAMS: dict[str, tuple[str, ...]] = {
    "postfix": ("postfix", "postconf", "saslpasswd2"),
    "sqlite3": ("sqlite3",),
    "openssl": ("openssl",),
    "mariadb": ("mariadbd", "mariadb-install-db", "mariadb"),
    "galera": ("mariadbd", "mariadb-install-db", "mariadb", "rsync"),
    "mysql9": ("debootstrap", "chroot"),
    "postgresql": ("setpriv",),
    "gcc": ("gcc",),
    "tmux": ("tmux",),
    "groff": ("groff",),
    "logrotate": ("logrotate",),
    "start-stop-daemon": ("start-stop-daemon",),
    "systemd": ("systemd-analyze",),
    "chromium": ("chromium", "chromedriver"),
    "poppler": ("pdftotext",),
}
_NEED_ROOT = {"postfix", "mysql9"}


class ComponentMissing(Exception):
    """A real component is not there, so the test cannot run."""


def program(name: str) -> str:
    """The path of a program, also where root's folders are not in PATH."""
    found = shutil.which(name, path=_PATH)
    if found is None:
        raise ComponentMissing(f"{name} is not installed")
    return found


def postgresql_program(name: str) -> str:
    """The path of a program of PostgreSQL's server, in the folder of the newest version that Debian has installed."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    return str(next((path / name for path in reversed(folders) if (path / name).exists()), "")) or program(name)


def find(component: str) -> None:
    """ComponentMissing, with the reason, unless the component can be started here."""
    for name in _PROGRAMS[component]:
        program(name)
    if component == "postgresql":
        postgresql_program("postgres")
        postgresql_program("psql")
    if component == "galera" and not GALERA_PROVIDER.exists():
        raise ComponentMissing(f"{GALERA_PROVIDER} is not installed")
    if component in _NEED_ROOT and os.geteuid() != 0:
        raise ComponentMissing(f"{component} needs root")
