"""Which real components this machine has."""

import os
import shutil
from glob import glob
from pathlib import Path

_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin", "/usr/local/sbin"])

GALERA_PROVIDER = Path("/usr/lib/galera/libgalera_smm.so")

_PROGRAMS: dict[str, tuple[str, ...]] = {
    "postfix": ("postfix", "postconf", "saslpasswd2"),
    "postfix-mysql": ("postfix", "postconf"),
    "cyrus-mysql": ("postfix", "postconf"),
    "dovecot": ("dovecot",),
    "dovecot-mysql": ("dovecot",),
    "sqlite3": ("sqlite3",),
    "openssl": ("openssl",),
    "mariadb": ("mariadbd", "mariadb-install-db", "mariadb"),
    "galera": ("mariadbd", "mariadb-install-db", "mariadb", "rsync"),
    "mysql9": ("debootstrap", "chroot"),
    "chroot": ("debootstrap", "unshare", "nsenter"),
    "postgresql": ("setpriv",),
    "gcc": ("gcc",),
    "curl": ("curl",),
    "tmux": ("tmux",),
    "groff": ("groff",),
    "logrotate": ("logrotate",),
    "start-stop-daemon": ("start-stop-daemon",),
    "systemd": ("systemd-analyze",),
    "chromium": ("chromium", "chromedriver"),
    "debhelper": ("dpkg-buildpackage", "dh", "dh_python3"),
    "lintian": ("lintian",),
    "poppler": ("pdftotext",),
}
_FILES = {
    "galera": str(GALERA_PROVIDER),
    "postfix-mysql": "/usr/lib/postfix/postfix-mysql.so",
    "cyrus-mysql": "/usr/lib/*/sasl2/libsql.so*",
    "dovecot-mysql": "/usr/lib/dovecot/modules/auth/libdriver_mysql.so",
}
_NEED_ROOT = {"postfix", "postfix-mysql", "cyrus-mysql", "dovecot", "dovecot-mysql", "mysql9", "chroot"}


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
    if component in _FILES and not glob(_FILES[component]):
        raise ComponentMissing(f"{_FILES[component]} is not installed")
    if component in _NEED_ROOT and os.geteuid() != 0:
        raise ComponentMissing(f"{component} needs root")
