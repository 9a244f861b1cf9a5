"""What `ratelimitctl` does by itself while no daemon runs: on its store, and on what its journal has left.

It takes the daemon's place for a moment: under its lock, as its user, with its own code.
"""

import os
import pwd
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from ratelimitd.config.read import Configuration
from ratelimitd.control.commands import NO_DAEMON, WRONG, Answer, Command, Refused, Reset, Set, Show, Status
from ratelimitd.daemon.daemon import Daemon
from ratelimitd.daemon.parts import open_store
from ratelimitd.errors import StartError, StoreError
from ratelimitd.log.log import Log
from ratelimitd.log.sinks import StderrSink
from ratelimitd.stores import Store

CHECK_TIMEOUT_S = 10.0


def answer(config: Configuration, command: Command) -> Answer:
    """The answer to status, show, set or reset. Raises Refused."""
    _be_its_user(config.state_dir)
    try:
        return trio.run(_answer, config, command, strict_exception_groups=True)
    except StartError as error:
        raise Refused(str(error), NO_DAEMON) from error


async def _answer(config: Configuration, command: Command) -> Answer:
    daemon = Daemon(config, Log([StderrSink()], level="warning"))
    async with daemon.at_rest() as accounts:
        match command:
            case Show():
                return await accounts.show(command)
            case Set():
                return await accounts.set(command)
            case Reset():
                return await accounts.reset(command)
            case Status():
                pending, link = daemon.policy.pending, daemon.sync.link
                return {
                    "running": False,
                    "config": str(config.file),
                    "store": {"name": link.store.name, "up": link.up},
                    "not_stored": {"accounts": len(pending), "recipients": pending.recipients},
                }
            case _:
                raise Refused(f"{type(command).__name__.lower()}: only a running ratelimitd can do that", NO_DAEMON)


def check_store(config: Configuration) -> str:
    """The store's name, if it can be opened. Raises Refused, StartError."""
    store = open_store(config)  # as a start does: it reads the secrets before it becomes its user
    _be_its_user(config.state_dir)
    return trio.run(_within, lambda: _check_store(store))


async def _check_store(store: Store) -> str:
    try:
        try:
            await store.open()
            await store.recorded("")
        finally:
            await store.close()
    except StoreError as error:
        raise Refused(f"store: {error}", 1) from error
    return store.name


async def _within(work: Callable[[], Awaitable[str]]) -> str:
    try:
        with trio.fail_after(CHECK_TIMEOUT_S):
            return await work()
    except trio.TooSlowError as error:
        raise Refused(f"store: no answer within {CHECK_TIMEOUT_S:g} s", 1) from error


def _be_its_user(state_dir: Path) -> None:
    """As root, become the owner of state_dir: no file may be left there that the daemon cannot write."""
    try:
        owner = state_dir.stat()
    except OSError as error:
        raise Refused(
            f"no ratelimitd runs, nor has one: state_dir: {state_dir}: {error.strerror}", NO_DAEMON
        ) from error
    if os.geteuid() == owner.st_uid:
        return
    if os.geteuid() != 0:
        raise Refused(f"state_dir: {state_dir} is another user's; ask as root or as the daemon's own user", WRONG)
    try:
        os.initgroups(pwd.getpwuid(owner.st_uid).pw_name, owner.st_gid)
    except KeyError:
        os.setgroups([])
    os.setresgid(owner.st_gid, owner.st_gid, owner.st_gid)
    os.setresuid(owner.st_uid, owner.st_uid, owner.st_uid)
