"""The parts of a daemon, put together in one place: `compose` makes all of them of a configuration.

Each part is whole when it is made. A reload is a walk over them (`Parts.configure`): each takes its new settings.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from ratelimitd.config.read import Configuration
from ratelimitd.control.accounts import Accounts
from ratelimitd.control.dump import CacheDump
from ratelimitd.control.status import DaemonStatus
from ratelimitd.core.memo import Memo
from ratelimitd.core.pending import Pending
from ratelimitd.core.policy import Policy, Rules
from ratelimitd.daemon.backends import make_store
from ratelimitd.daemon.start import Held, Sockets, connections_for
from ratelimitd.errors import StartError
from ratelimitd.log.destinations import open_sinks
from ratelimitd.log.keywatch import KeyWatch
from ratelimitd.log.log import Log
from ratelimitd.log.quiet import QuietLog
from ratelimitd.notify.notifier import Notifier
from ratelimitd.server.connections import Bounds, Connections
from ratelimitd.server.pump import Pump
from ratelimitd.state.backlog import Backlog
from ratelimitd.state.directory import CTL, StateDir
from ratelimitd.state.journal import Journal, Progress
from ratelimitd.stores.link import StoreLink
from ratelimitd.sync.flush import Flush
from ratelimitd.sync.loader import Loader
from ratelimitd.sync.recovery import look, recover
from ratelimitd.sync.schedule import StoreSync


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that a daemon consists of, but for its life (daemon.py)."""

    state: StateDir
    log: Log
    notifier: Notifier
    memo: Memo
    policy: Policy
    keywatch: KeyWatch
    journal: Journal
    backlog: Backlog
    sync: StoreSync
    accounts: Accounts
    sockets: Sockets
    connections: Connections
    pump: Pump
    status: DaemonStatus
    dump: CacheDump

    def configure(self, config: Configuration, clients: Bounds) -> None:
        """Apply a configuration: each part takes its settings. `clients` is what `bounds` makes of it. Never fails."""
        settings = config.settings
        self.log.configure(settings.log, several_limits=len(config.limits) > 1)
        self.notifier.configure(config.notify)
        # It asks the notifier which limits are watched.
        self.policy.configure(config.limits, rules(config), self.sync.now)
        self.memo.configure(settings.server.max_transactions, settings.server.max_remembered_recipients)
        self.journal.configure(settings.journal_sync)
        self.sync.configure(settings.store, settings.server.max_accounts)
        self.accounts.configure(settings.keys)
        self.connections.configure(clients, settings.keys.login_rules)

    async def recover(self, progress: Progress | None) -> None:
        """Take over what an earlier run left in the state directory, which is locked.

        Raises StartError, with the store closed again.
        """
        try:
            self.state.folder("journal")
            await recover(self.backlog, self.sync, self.policy, self.log, progress)
        except StartError:
            await self.sync.link.close()
            raise

    @asynccontextmanager
    async def at_rest(self, config: Configuration) -> AsyncIterator[Accounts]:
        """Memory, journal and store while no daemon runs: where ratelimitctl changes something then. Raises StartError.

        A daemon that starts meanwhile waits for the end of it.
        """
        self.state.acquire(CTL)
        await self.recover(None)
        try:
            yield self.accounts
        finally:
            await self.sync.finish(config.settings.server.shutdown_timeout_s)

    @asynccontextmanager
    async def looked_at(self) -> AsyncIterator[Accounts]:
        """The same for reading alone: nothing is locked, created or changed, and a daemon may start meanwhile."""
        try:
            await look(self.backlog, self.sync, self.policy)
            yield self.accounts
        finally:
            await self.sync.link.close()

    def close(self) -> None:
        """Release sockets, log and state directory."""
        self.pump.close()
        self.backlog.close()
        self.sockets.close()
        self.log.close()
        self.state.release()


def hold(config: Configuration, *, only_look: bool = False) -> Held:
    """What is to be held before the parts are made; nothing is opened yet. Raises StartError."""
    return Held(make_store(config, only_look=only_look), StateDir(config.state_dir))


def compose(config: Configuration, held: Held, log: Log | None = None) -> Parts:
    """All parts of a daemon; nothing more is opened yet but the log, unless one is given. Raises StartError."""
    settings = config.settings
    clients = bounds(config)
    state = held.state
    log = log or Log(open_sinks(settings.log, config.folder), settings.log, several_limits=len(config.limits) > 1)
    quiet = QuietLog(log)
    notifier = Notifier(state, quiet, config.notify)
    memo = Memo(settings.server.max_transactions, settings.server.max_remembered_recipients)
    pending = Pending()
    policy = Policy(config.limits, rules(config), pending, memo, notifier.watch)
    journal = Journal(state.path / "journal", os.urandom(16).hex(), settings.journal_sync)
    link = StoreLink(held.store, log)
    backlog = Backlog(pending, journal)
    loader = Loader(link, policy, backlog, settings.store.timeout_s)
    flusher = Flush(link, loader, backlog, state, log)
    sync = StoreSync(link, loader, flusher, policy, settings.store, settings.server.max_accounts)
    connections = Connections(held.sockets.policy, quiet, clients, settings.keys.login_rules)
    pump = Pump(connections, policy, journal, log, sync.hurry, storing=sync.storing)
    return Parts(
        state=state,
        log=log,
        notifier=notifier,
        memo=memo,
        policy=policy,
        keywatch=KeyWatch(policy, log),
        journal=journal,
        backlog=backlog,
        sync=sync,
        accounts=Accounts(policy, sync, settings.keys),
        sockets=held.sockets,
        connections=connections,
        pump=pump,
        status=DaemonStatus(config.file, policy, pump, sync, journal, log),
        dump=CacheDump(state, policy, pump, log),
    )


def bounds(config: Configuration) -> Bounds:
    """What clients may take; fewer connections where there are too few file descriptors. Raises StartError."""
    server = config.settings.server
    return Bounds(
        config.allow,
        connections_for(server.max_connections),
        server.max_request_bytes,
        server.request_timeout_s,
        config.unix_uids,
    )


def rules(config: Configuration) -> Rules:
    """What is said of all limits together; `strict_below` only where other nodes may charge an account too."""
    store = config.settings.store
    return Rules(
        failure_reply=config.failure_action.fixed,
        strict_below=store.strict_below if store.backend != "sqlite" else 0.0,
    )
