"""What root makes for the user before it becomes that user, and what an earlier run as root has left.

The user may have prepared the place. So nothing is opened by a path that it could swap, no link is followed, a file
with a second name is left alone, and only names that a run of ours makes are given away, in folders that are ours.
"""

import errno
import os
import re
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ratelimitd.daemon.privileges import Identity, acting_as
from ratelimitd.errors import StartError
from ratelimitd.folders import opened

OURS = re.compile(
    r"\.?(lock|ratelimit\.sqlite3.*|cache\.dump|notices\.jsonl|rejected\.tsv|control\.sock)(\.new)?"
    r"|\.?[0-9]+\.(segment|new)|[0-9a-f]+-[0-9]+\.damaged"
)
"""The names of files that a run of ours makes in state_dir and its journal."""
FOLDERS = ("journal", "past")
"""The folders that a run of ours makes: in state_dir, and in each other."""
NAME = "ratelimitd"
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER = _READ | os.O_DIRECTORY
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def may_write(folder: os.stat_result, identity: Identity) -> bool:
    """Whether the user can make files in a folder: then it does so itself, later."""
    if folder.st_uid == identity.uid:
        return bool(folder.st_mode & stat.S_IWUSR)
    if folder.st_gid in (identity.gid, *identity.groups):
        return bool(folder.st_mode & stat.S_IWGRP)
    return bool(folder.st_mode & stat.S_IWOTH)


def refuse_closed(setting: str, path: Path, identity: Identity) -> None:
    """Refuse a path that leads through a folder which the user may not enter, as root's home. Raises StartError."""
    with acting_as(identity):
        for folder in reversed(path.absolute().parents):
            if os.path.lexists(folder) and not os.access(folder, os.X_OK, effective_ids=True):
                raise StartError(f"{setting}: {path}: {identity.user} may not enter {folder}")


def give_state(path: Path, identity: Identity, also: Collection[str] = ()) -> None:
    """Make state_dir where only root can, and give the user what root's run has left in it. Raises StartError.

    `also` are names of ours that the configuration has chosen.
    """
    with _named("state_dir", path):
        _make_parents(path.parent, identity)
        with opened(path.parent) as parent:
            above = os.fstat(parent)
            is_sticky = above.st_mode & stat.S_ISVTX and above.st_uid != identity.uid
            if may_write(above, identity) and not is_sticky:
                return  # it makes, and could swap, state_dir itself
            with suppress(FileExistsError):
                os.mkdir(path.name or ".", 0o700, dir_fd=parent)
                with _descriptor(path.name, _FOLDER, parent) as made:
                    os.fchmod(made, 0o750)
                    os.fchown(made, identity.uid, identity.gid)
        with opened(path) as found, _descriptor(".", _FOLDER, found) as folder:
            _give_folder(folder, path, identity, also)


def _make_parents(path: Path, identity: Identity) -> None:
    """Make the folders above state_dir that are missing, as root's, down to where the user can write itself."""
    missing: list[str] = []
    while not os.path.lexists(path):
        missing.append(path.name)
        path = path.parent
    for name in reversed(missing):
        with opened(path) as folder:
            if may_write(os.fstat(folder), identity):
                return
            os.mkdir(name, 0o755, dir_fd=folder)
        path /= name


def check_state(path: Path, identity: Identity) -> None:
    """Refuse what `give_state` would, where the folder is there. Raises StartError."""
    with (
        _named("state_dir", path),
        suppress(FileNotFoundError),
        opened(path) as found,
        _descriptor(".", _FOLDER, found) as folder,
    ):
        _refuse_others(folder, path, identity)


def _give_folder(folder: int, path: Path, identity: Identity, also: Collection[str]) -> None:
    _refuse_others(folder, path, identity)
    if os.fstat(folder).st_uid in (0, identity.uid):
        _give_inside(folder, identity, also)


def _refuse_others(folder: int, path: Path, identity: Identity) -> None:
    """Refuse a folder of root's that neither bears our name nor has what each run of ours leaves. Raises StartError."""
    is_roots = os.fstat(folder).st_uid == 0 and identity.uid
    if is_roots and NAME not in path.name and not {"lock", "journal"} <= set(os.listdir(folder)):
        raise StartError(
            f"state_dir: {path} is root's, and not a folder of ratelimitd: make one for it alone, or, if this is "
            f"one: chown {identity.user} {path}"
        )


def _give_inside(folder: int, identity: Identity, also: Collection[str] = (), inner: Sequence[str] = FOLDERS) -> None:
    """Give a folder with the files of ours in it, and the first of `inner`, which holds the next ones."""
    for name in os.listdir(folder):
        if OURS.fullmatch(name) or name in also:
            _give_file(name, folder, identity)
    for name in inner[:1]:
        with suppress(FileNotFoundError, NotADirectoryError), _descriptor(name, _FOLDER, folder) as below:
            _give_inside(below, identity, inner=inner[1:])
    if os.fstat(folder).st_uid == 0:
        os.fchown(folder, identity.uid, identity.gid)


def _give_file(name: str, folder: int, identity: Identity) -> None:
    """Give a file of root's that has one name. A socket that root's run left is removed: nobody listens on it."""
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if stat.S_ISSOCK(status.st_mode) and status.st_uid == 0:
        os.unlink(name, dir_fd=folder)
    elif stat.S_ISREG(status.st_mode):
        with suppress(FileNotFoundError), _descriptor(name, _READ, folder) as file:
            status = os.fstat(file)
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_uid == 0:
                os.fchown(file, identity.uid, identity.gid)


def give_log(path: Path, identity: Identity) -> None:
    """Make the log file where only root can, and give the user one that root's run has left. Raises StartError."""
    with _named("log.file", path), opened(path.parent) as folder:
        if not may_write(os.fstat(folder), identity):
            with suppress(FileExistsError), _descriptor(path.name, _NEW_FILE, folder) as made:
                os.fchown(made, identity.uid, identity.gid)
                return
        with suppress(FileNotFoundError):
            _give_file(path.name, folder, identity)


@contextmanager
def _descriptor(name: str, flags: int, folder: int) -> Iterator[int]:
    try:
        descriptor = os.open(name, flags, 0o640, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link: whatever it stands for, it is nothing that a run of ours made
            raise FileNotFoundError(error.errno, error.strerror) from error
        raise
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _named(setting: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StartError(f"{setting}: {path}: {error.strerror}") from error
