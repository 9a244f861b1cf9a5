"""Started as root, the daemon becomes another user for good, before it reads a byte from a client."""

import grp
import os
import pwd
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ratelimitd.errors import ConfigError, StartError


class Identity(NamedTuple):
    """Whom to become."""

    user: str
    uid: int
    gid: int
    groups: list[int]


def resolve(user: str, group: str) -> Identity:
    """The user and group of these names; the group "" is the user's own. Raises ConfigError."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError as error:
        raise ConfigError("user", f'"{user}"', "a user of this system") from error
    gid = entry.pw_gid
    if group:
        try:
            gid = grp.getgrnam(group).gr_gid
        except KeyError as error:
            raise ConfigError("group", f'"{group}"', "a group of this system") from error
    return Identity(user, entry.pw_uid, gid, os.getgrouplist(user, gid))


def find(user: str, group: str) -> Identity | None:
    """Whom the settings say to become; None: stay who we are. Raises ConfigError, StartError."""
    if not user:
        return None
    identity = resolve(user, group)
    if os.geteuid() == 0:
        return identity
    if os.geteuid() != identity.uid:
        raise StartError(f"user: only root can become {user}; this is {_name(os.geteuid())}")
    return None


def owner_of(folder: Path) -> Identity | None:
    """The owner of a folder, to become; None: stay who we are. Raises OSError for the folder; StartError."""
    status = folder.stat()
    if os.geteuid() == status.st_uid:
        return None
    if os.geteuid() != 0:
        raise StartError(f"{folder} is another user's; ask as root or as the daemon's own user")
    try:
        groups = os.getgrouplist(pwd.getpwuid(status.st_uid).pw_name, status.st_gid)
    except KeyError:  # an owner that has no name has no groups either
        groups = []
    return Identity(_name(status.st_uid), status.st_uid, status.st_gid, groups)


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def become(identity: Identity) -> None:
    """Give up root, irrevocably. Raises StartError."""
    try:
        os.setgroups(identity.groups)
        os.setresgid(identity.gid, identity.gid, identity.gid)
        os.setresuid(identity.uid, identity.uid, identity.uid)
    except OSError as error:
        raise StartError(f"user: cannot become {identity.user}: {error.strerror}") from error


def hand_over(paths: Iterable[Path], identity: Identity) -> None:
    """Give what root made there (files, and folders with all in them) to the user. Raises StartError.

    The user may have prepared the place: symbolic links are not followed, files with a second name are left alone.
    Sockets that root's run left are removed: nobody listens on them, and the user could not see that.
    """
    for path in paths:
        try:
            _give(path, identity)
            if path.is_dir() and not path.is_symlink():
                for folder, _, files, fd in os.fwalk(path, follow_symlinks=False):
                    for name in files:
                        if not _removed_socket(name, fd):
                            _give(Path(name), identity, fd)
                    _give(Path(folder), identity)
        except OSError as error:
            raise StartError(
                f"{error.filename or path}: cannot be given to {identity.user}: {error.strerror}"
            ) from error


def _removed_socket(name: str, folder: int) -> bool:
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    stale = stat.S_ISSOCK(status.st_mode) and status.st_uid == 0
    if stale:
        os.unlink(name, dir_fd=folder)
    return stale


def _give(path: Path, identity: Identity, folder: int | None = None) -> None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError:  # a link, or nothing
        return
    try:
        status = os.fstat(fd)
        alone = stat.S_ISDIR(status.st_mode) or (stat.S_ISREG(status.st_mode) and status.st_nlink == 1)
        if alone and status.st_uid == 0:
            os.fchown(fd, identity.uid, identity.gid)
    finally:
        os.close(fd)


def readable_by_all(file: Path) -> bool:
    """Whether every user of this machine may read a file."""
    try:
        return bool(file.stat().st_mode & stat.S_IROTH)
    except OSError:
        return False
