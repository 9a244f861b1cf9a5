"""`ratelimitctl migrate`, there and back: who is asked, in which order, and what is said at the end.

Each step is said when it is done, so also what had been done when one fails.
"""

from math import inf

import trio

from ratelimitd.config.read import Configuration, naming
from ratelimitd.ctl.migrate import ours
from ratelimitd.ctl.migrate.back import Back
from ratelimitd.ctl.migrate.forward import Forward
from ratelimitd.ctl.migrate.steps import Say, Steps
from ratelimitd.errors import ConfigError, StoreError
from ratelimitd.stores.mysql.access import USUAL_PORT, Access
from ratelimitd.stores.mysql.session import MySQLSession, connect
from ratelimitd.stores.shared.addresses import place

CONNECT_TIMEOUT_S = 10.0


def migrate(
    config: Configuration, say: Say, *, dry_run: bool = False, back: bool = False, perl_stopped: bool = False
) -> None:
    """Migrate the table of `[store]` to ours, or `back` to the Perl daemon's.

    `say` is called with each line of what was done, or with `dry_run` would be. `perl_stopped`: what looks like a
    Perl daemon that still runs is said, and is no reason to refuse.

    Raises ConfigError for another backend; StoreError. A table that is neither the Perl daemon's nor ours is an
    error too, and left alone.
    """
    if config.settings.store.backend != "mysql":
        found = f'"{config.settings.store.backend}"'
        with naming(config.file):
            why = "the Perl daemon knows no other" if back else "in other databases a start completes the tables"
            raise ConfigError("store.backend", found, f'"mysql" ({why})')
    trio.run(_migrate, config, say, dry_run, back, perl_stopped)


async def _migrate(config: Configuration, say: Say, dry_run: bool, back: bool, perl_stopped: bool) -> None:
    known = Access.of(config.settings.store, config.credentials)
    try:
        session = await _connect(known)
        try:
            steps = Steps(session, config.names, say, dry_run=dry_run)
            await (Back(config, steps) if back else Forward(config, steps, perl_stopped=perl_stopped)).run()
        finally:
            await session.quit()
    except StoreError as error:
        raise StoreError(f"migrate: {known.name}: {error}") from error
    if dry_run:
        say("nothing was changed: this was a dry run")
    elif back:
        say("now start the Perl daemon, with Postfix asking it where it counts (at DATA, or at RCPT in its fork)")
    elif ours.runs(config.state_dir):
        say("now restart ratelimitd, which is running")
    else:
        say("now start ratelimitd")


async def _connect(known: Access) -> MySQLSession:
    """A session with the first server, in the order of `store.host`, that takes one. Raises StoreError."""
    reasons: list[str] = []
    for address in known.addresses:
        try:
            return await connect(known, address, CONNECT_TIMEOUT_S, patience_s=inf)
        except StoreError as error:
            reasons.append(f"{place(address, USUAL_PORT)}: {error}")
    raise StoreError("; ".join(reasons))
