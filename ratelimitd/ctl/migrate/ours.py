"""What is left of ratelimitd before the way back: whether one still runs on the table, and what its journal holds that
the database does not have. Nothing is changed here.

The state directory belongs to the daemon's user, who may have placed anything there: root looks into it as that user.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import trio

from ratelimitd.daemon import privileges
from ratelimitd.errors import InUse, JournalError, StartError, StoreError
from ratelimitd.folders import is_there
from ratelimitd.state.backlog import ASIDE
from ratelimitd.state.directory import CTL, StateDir
from ratelimitd.state.journal import Journal
from ratelimitd.state.segments import Recovered
from ratelimitd.stores import Names, recorded_segment
from ratelimitd.stores.mysql.session import MySQLSession
from ratelimitd.text import counted

LOOKS, GAP_S = 10, 0.1
"""How often, and how far apart, it is looked at sessions that are open: a server may still list one that was closed."""
AGAIN = "start ratelimitd and stop it again, which stores them; then run this again"


def holding(state_dir: Path) -> StateDir | None:
    """The state directory, locked, so that no daemon starts meanwhile; None where none has ever run.

    Raises StoreError where a daemon runs, or where that cannot be known.
    """
    state = StateDir(state_dir)
    try:
        if not is_there(state_dir / "lock"):
            return None
        with _as_owner(state_dir):
            state.acquire(CTL)
    except InUse as error:
        raise StoreError(f"ratelimitd is running: stop it first ({error})") from error
    except (StartError, OSError) as error:
        raise StoreError(f"it is not known whether ratelimitd is running: {error}") from error
    return state


@contextmanager
def _as_owner(folder: Path) -> Iterator[None]:
    """Open what is in a folder as its owner would. Raises OSError for the folder; StartError."""
    owner = privileges.owner_of(folder)
    if owner is None:
        yield
        return
    with privileges.acting_as(owner):
        yield


def runs(state_dir: Path) -> bool:
    """Whether a daemon of ours runs, as far as this user may know."""
    try:
        state = holding(state_dir)
    except StoreError as error:
        return isinstance(error.__cause__, InUse)
    if state is not None:
        state.release()
    return False


async def unstored(session: MySQLSession, names: Names, folder: Path, *, node_table: bool) -> str:
    """What a journal holds that is not in the database, and what to do; "": nothing. Raises StoreError."""
    found = await trio.to_thread.run_sync(_segments, folder)
    recorded = await _recorded(session, names, {one.node for one in found}) if node_table else {}
    left = [one for one in found if one.number > recorded.get(one.node, 0)]
    if not left:
        return ""
    charges = counted(sum(len(one.records) for one in left), "charge")
    files = ", ".join(f"{one.number}.segment" for one in left)
    return f"{charges} in {folder} ({files}) are not in the database: {AGAIN}"


def _segments(folder: Path) -> list[Recovered]:
    try:
        if not is_there(folder):
            return []
        with _as_owner(folder):
            return Journal(folder, "", "never").recover()
    except (JournalError, StartError, OSError) as error:
        raise StoreError(f"the journal cannot be read: {error}") from error


def doubtful(folder: Path) -> list[str]:
    """The files of segments that an earlier start has kept aside: nobody knows whether they are in the database."""
    return sorted(path.name for path in folder.glob(f"*.{ASIDE}"))


async def _recorded(session: MySQLSession, names: Names, nodes: set[str]) -> Mapping[str, int]:
    select = names.apply("SELECT `segment` FROM `ratelimit_node` WHERE `node` = %s", "`")
    return {node: recorded_segment(await session.run(select, (node,))) for node in nodes}


async def sessions(session: MySQLSession) -> str:
    """The other sessions of this account in this database: "2 (ids 12, 13; from 10.0.0.2)"; "": there are none.

    A daemon has one for as long as it runs, or at least for a minute after each flush; on which machine that is does
    not matter. A daemon that was just stopped has none.
    """
    others: list[tuple[int, str]] = []
    for look in range(LOOKS):
        await trio.sleep(GAP_S if look else 0)
        others = await _others(session)
        if not others:
            return ""
    hosts = sorted({host.rpartition(":")[0] or host for _, host in others})
    return f"{len(others)} (ids {', '.join(str(number) for number, _ in others)}; from {', '.join(hosts)})"


async def _others(session: MySQLSession) -> list[tuple[int, str]]:
    ((mine, database, user),) = await session.run("SELECT CONNECTION_ID(), DATABASE(), USER()")
    name = str(user).rpartition("@")[0]
    return [
        (int(row[0]), str(row[2]))
        for row in await session.run("SHOW FULL PROCESSLIST")
        if row[3] == database and str(row[1]) == name and int(row[0]) != int(mine)
    ]
