"""What `ratelimitctl` does by itself while no daemon is running: on its store, and on what its journal has left.

It becomes the daemon's user and runs the daemon's code. To change something it takes the daemon's place for a moment,
and holds its lock; to look at something it locks, creates and writes nothing.
"""

import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import NamedTuple, TypeVar

import trio

from ratelimitd.config.read import Configuration
from ratelimitd.control import record
from ratelimitd.control.accounts import Accounts
from ratelimitd.control.answers import StoppedStatus, StoreHealth
from ratelimitd.control.commands import NO, NO_DAEMON, WRONG, Refused
from ratelimitd.control.record import Asker, Edit, Edited
from ratelimitd.control.status import not_stored
from ratelimitd.daemon import privileges
from ratelimitd.daemon.backends import make_store
from ratelimitd.daemon.parts import Parts, compose, hold
from ratelimitd.daemon.start import load_what_is_loaded_late
from ratelimitd.errors import StartError, StoreError, StoreUnsuitable
from ratelimitd.log.destinations import open_sinks
from ratelimitd.log.log import Log
from ratelimitd.log.sinks import StderrSink
from ratelimitd.settings import LogSettings
from ratelimitd.stores import Store
from ratelimitd.stores.history import Kept

CHECK_TIMEOUT_S = 10.0
T = TypeVar("T")


def change(config: Configuration, command: Edit) -> Edited:
    """What a change of accounts gives; the state directory is locked meanwhile, and the daemon's log says who changed
    what. Raises Refused, StartError."""
    asker = Asker.of(os.getuid())  # before the user changes

    async def work(parts: Parts, accounts: Accounts) -> Edited:
        with _log_of(config, parts.log) as log:
            return await record.carried_out(log, asker, command, accounts.edit)

    return _run(config, lambda parts: parts.at_rest(config), work)


@contextmanager
def _log_of(config: Configuration, ours: Log) -> Iterator[Log]:
    """The daemon's log, as its user may write it; without it only ours, which says why."""
    settings = config.settings.log
    try:
        log = Log(open_sinks(settings, config.folder), settings, several_limits=len(config.limits) > 1)
    except StartError as error:
        ours.warning("the change is not in the daemon's log", reason=error)
        yield Log([])
        return
    try:
        yield log
    finally:
        log.close()


def look(config: Configuration, work: Callable[[Accounts], Awaitable[T]]) -> T:
    """What a look at accounts gives; nothing is changed. Raises Refused, StartError."""
    return _run(config, Parts.looked_at, lambda _, accounts: work(accounts), only_look=True)


def status(config: Configuration) -> StoppedStatus:
    """What the store and the journal have. Raises Refused, StartError."""
    return _run(config, Parts.looked_at, _status, only_look=True)


async def _status(parts: Parts, _: Accounts) -> StoppedStatus:
    link = parts.sync.link
    return StoppedStatus(
        config=str(parts.status.file),
        store=StoreHealth(link.name, link.up),
        not_stored=not_stored(parts.policy.pending),
    )


def _run(
    config: Configuration,
    opened: Callable[[Parts], AbstractAsyncContextManager[Accounts]],
    work: Callable[[Parts, Accounts], Awaitable[T]],
    *,
    only_look: bool = False,
) -> T:
    async def run() -> T:
        async with opened(parts) as accounts:
            return await work(parts, accounts)

    try:
        # As in a start, secrets are read before the user changes: only root may be able to read them.
        held = hold(config, only_look=only_look)
        settings = LogSettings(level="warning")
        parts = compose(config, held, Log([StderrSink(settings.max_backlog_bytes)], settings))
        try:
            _become_owner(config, or_user=only_look and not _is_in_state_dir(config))
            return trio.run(run, strict_exception_groups=True)
        finally:
            parts.close()
    except StartError as error:
        raise Refused(str(error), NO_DAEMON) from error


class CheckedStore(NamedTuple):
    """A store's name, whether it is there yet, and what in it can never count anybody, or is otherwise of note."""

    name: str
    is_there: bool
    remarks: list[str]


def read(config: Configuration, work: Callable[[Store], Awaitable[T]]) -> tuple[T, list[str]]:
    """What a look at the store alone gives, whether a daemon runs or not, and what the store has to say. Nothing is
    changed, and the journal is not read. Raises Refused, StartError."""
    store = make_store(config, only_look=True)
    _become_owner(config, or_user=not _is_in_state_dir(config))

    async def run() -> T:
        store.configure(config.settings.store.timeout_s, Kept.of(config.limits, config.settings.store.history_days))
        try:
            with trio.fail_after(CHECK_TIMEOUT_S):
                await store.open()
            found = await work(store)
            await store.check()
            return found
        finally:
            await store.close()

    try:
        found = trio.run(run, strict_exception_groups=True)
    except StoreError as error:
        raise Refused(f"store: {error}", NO) from error
    except trio.TooSlowError as error:
        raise Refused(f"store: no answer within {CHECK_TIMEOUT_S:g} s", NO) from error
    return found, [f"{remark.event}: {remark.said}" for remark in store.remarks.take()]


def check_store(config: Configuration) -> CheckedStore:
    """Open the store as a start does. Raises Refused if it cannot be opened; StartError."""
    store = make_store(config)  # as a start does: it reads the secrets before it becomes its user
    has_run = _become_owner(config, or_user=True)
    if _is_in_state_dir(config) and not has_run:
        remark = f"state_dir: {config.state_dir} does not exist: a start creates it, and the database in it"
        return CheckedStore(store.name, is_there=False, remarks=[remark])
    return trio.run(_check_store, store, config)


def _is_in_state_dir(config: Configuration) -> bool:
    return config.settings.store.backend == "sqlite"


async def _check_store(store: Store, config: Configuration) -> CheckedStore:
    try:
        with trio.fail_after(CHECK_TIMEOUT_S):
            try:
                await store.open()
                await store.settle_default(change=False)
                remarks = store.remarks.take()
                found = [f"{remark.event}: {remark.said}" for remark in remarks]
                for remark in remarks:
                    if remark.must:
                        raise Refused(f"store: {store.name}: {remark.event}: {remark.said}", NO)
                await store.recorded("")
                found += (await store.survey()).remarks(config.limits)
            finally:
                await store.close()
    except StoreError as error:
        raise Refused(f"store: {error}", WRONG if isinstance(error, StoreUnsuitable) else NO) from error
    except trio.TooSlowError as error:
        raise Refused(f"store: no answer within {CHECK_TIMEOUT_S:g} s", NO) from error
    return CheckedStore(store.name, is_there=True, remarks=found)


def _become_owner(config: Configuration, *, or_user: bool) -> bool:
    """As root, become the owner of state_dir: no file may be left there that the daemon cannot write.

    `or_user`: where there is no state_dir yet, become whom a start would. Whether there is one. Raises Refused,
    StartError.
    """
    is_there = True
    try:
        owner = privileges.owner_of(config.state_dir)
    except StartError as error:
        raise Refused(f"state_dir: {error}", WRONG) from error
    except OSError as error:
        is_there = not isinstance(error, FileNotFoundError)
        if is_there or not or_user:
            reason = f"state_dir: {config.state_dir}: {error.strerror}"
            raise Refused(f"no ratelimitd is running, and none has ever run: {reason}", NO_DAEMON) from error
        owner = privileges.find(config.settings.user, config.settings.group)
    if owner is None:
        privileges.settle()
    else:
        load_what_is_loaded_late(config)
        privileges.become(owner)
    return is_there
