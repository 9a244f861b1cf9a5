"""Started as root, the daemon becomes another user for good, before it reads a byte from a client."""

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ratelimitd.daemon import late
from ratelimitd.errors import ConfigError, StartError
from ratelimitd.folders import opened


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
    with opened(folder) as descriptor:
        status = os.fstat(descriptor)
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
    with acting_as(identity):
        all_readable = late.readable()
    if not all_readable:
        late.load_all()
    try:
        os.setgroups(identity.groups)
        os.setresgid(identity.gid, identity.gid, identity.gid)
        os.setresuid(identity.uid, identity.uid, identity.uid)
    except OSError as error:
        raise StartError(f"user: cannot become {identity.user}: {error.strerror}") from error
    os.environ["HOME"] = _home(identity.uid)


def settle() -> None:
    """Where nobody else is to be become: have HOME be a folder that this user may look into.

    Some ways to run a program as another user leave HOME as it was, and libpq fails where it may not look there.
    """
    if _is_closed(os.environ.get("HOME", "")):
        os.environ["HOME"] = _home(os.geteuid())


def _home(uid: int) -> str:
    """The home of a user; "/" for one who has none, or may not look into it."""
    try:
        home = pwd.getpwuid(uid).pw_dir
    except KeyError:
        return "/"
    return "/" if _is_closed(home) else home


def _is_closed(folder: str) -> bool:
    """Whether this user may not look for a file in a folder; one that does not exist is not closed."""
    try:
        os.stat(f"{folder}/.")
    except OSError as error:
        return isinstance(error, PermissionError)
    return False


@contextmanager
def acting_as(identity: Identity) -> Iterator[None]:
    """Open what is the user's as the user, and be root again. Raises StartError."""
    groups, gid = os.getgroups(), os.getegid()
    try:
        os.setgroups(identity.groups)
        os.setegid(identity.gid)
        os.seteuid(identity.uid)
    except OSError as error:
        raise StartError(f"user: cannot become {identity.user}: {error.strerror}") from error
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(gid)
        os.setgroups(groups)


def readable_by_all(file: Path) -> bool:
    """Whether every user of this machine may read a file."""
    try:
        return bool(file.stat().st_mode & stat.S_IROTH)
    except OSError:
        return False
