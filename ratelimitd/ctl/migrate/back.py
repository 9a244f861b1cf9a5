"""The way back: our table becomes the Perl daemon's again, which goes on with the counts of the first limit.

The rows of other limits are set aside in a table of their own, and come back with the way to ratelimitd. The tables
ratelimit_node, ratelimit_window and ratelimit_history stay: the Perl daemon does not see them, the first keeps a
segment from being stored twice, and the last is the history of what was counted.
"""

import re
import time
from collections.abc import Collection, Iterable

from ratelimitd.config.read import Configuration
from ratelimitd.core.limits import Limit
from ratelimitd.ctl.migrate import ours, rights, theirs
from ratelimitd.ctl.migrate.senders import text_of
from ratelimitd.ctl.migrate.steps import Steps
from ratelimitd.errors import StoreError
from ratelimitd.state.directory import StateDir
from ratelimitd.stores import MAX_USED, schema
from ratelimitd.stores.mysql.layout import Layout, layout, statements, tables
from ratelimitd.text import counted

SCRIPT = "mysql-migrate-back"
SAID = 50
"""Accounts that are named because their quotas will not last."""


class Back:
    """One run over one table."""

    def __init__(self, config: Configuration, steps: Steps) -> None:
        self._config = config
        self._limit: Limit = next(limit for limit in config.limits if limit.name == config.names.limit)
        self._names = config.names
        self._steps = steps

    async def run(self) -> None:
        """Migrate back. Raises StoreError."""
        steps, table = self._steps, self._names.table
        there = await tables(steps.session)
        found = await layout(steps.session, self._names)
        if not found.columns:
            await steps.check_rights({table: rights.ON_ROWS}, f"the account sees nothing of a table {table}")
            raise StoreError(f"there is no table {table}: the Perl daemon's own schema creates one")
        if theirs.MIGRATED not in found.columns:
            for oddity in theirs.oddities(found):
                raise StoreError(f"the table {table} is neither ratelimitd's nor the Perl daemon's: {oddity}")
            await self._check_rights(there, altered=True)
            steps.say(f"the table {table} is the Perl daemon's already")
            await steps.run_all(list(statements(steps.sql(schema(SCRIPT))))[-1:])  # the view, which may be of before
            return
        for fault in found.faults():
            raise StoreError(f"the table {table} cannot be read as ours: {fault}: run `ratelimitctl migrate` first")
        await self._check_collations(there, found)
        held = self._hold()
        try:
            await self._check_ours(there)
            await self._check_rights(there, altered=False)
            await self._check_limit()
            await self._say_rows()
            await steps.run_all(await self._script(found, there))
        finally:
            if held is not None:
                held.release()

    # -- before anything is changed --------------------------------------------------------------------------------

    def _hold(self) -> StateDir | None:
        try:
            return ours.holding(self._config.state_dir)
        except StoreError as error:
            self._steps.refuse(str(error))
            return None

    async def _check_collations(self, there: Collection[str], found: Layout) -> None:
        """Raises StoreError where the table cannot be joined with its history."""
        name = f"{self._names.table}_history"
        if name in there:
            history = await layout(self._steps.session, self._names._replace(table=name))
            if history.columns["sender"].collation != found.columns["sender"].collation:
                raise StoreError(
                    f"{name} compares senders in another way than its table: run `ratelimitctl migrate` first"
                )

    async def _check_ours(self, there: Collection[str]) -> None:
        """Refuse while a daemon of ours may count in this table, or has counted what is not in it."""
        session, folder = self._steps.session, self._config.state_dir / "journal"
        if others := await ours.sessions(session):
            self._steps.refuse(
                f"other sessions of this account are open in the database: {others}: stop the ratelimitd that has "
                f"them; where it is none, KILL them"
            )
        node_table = f"{self._names.table}_node" in there
        if left := await ours.unstored(session, self._names, folder, node_table=node_table):
            self._steps.refuse(left)
        if doubtful := ours.doubtful(folder):
            self._steps.say(
                f"nobody knows whether the counts in {', '.join(doubtful)} in {folder} are in the database: the log of "
                f"the start that has kept them aside says why; they are left there"
            )

    async def _check_rights(self, there: Collection[str], *, altered: bool) -> None:
        """Refuse where the account lacks rights, with the GRANT that gives them."""
        table, view = self._names.table, f"view_{self._names.table}"
        needed: dict[str, Iterable[str]] = {view: ["CREATE VIEW", *(["DROP"] if view in there else [])]}
        if altered:
            needed[table] = ["SELECT"]
        else:
            needed[table] = [*rights.ON_ROWS, "ALTER", "CREATE"]
            needed[f"{table}_aside"] = [*rights.ON_ROWS, "CREATE"]
            if f"{table}_history" in there:
                needed[f"{table}_history"] = rights.ON_ROWS
        await self._steps.check_rights(needed)

    async def _check_limit(self) -> None:
        """Refuse where none of the rows is the first limit's: the Perl daemon would begin from 0."""
        select = "SELECT `limit_name`, COUNT(*) FROM `ratelimit` GROUP BY `limit_name` ORDER BY `limit_name`"
        rows = {str(name): int(str(count)) for name, count in await self._steps.ask(select)}
        if rows and self._names.limit not in rows:
            others = ", ".join(f"{name} ({counted(count, 'row')})" for name, count in rows.items())
            self._steps.refuse(
                f"the first limit is {self._names.limit}, of which there are no rows, but of {others}: put the limit "
                f"first in the configuration that the Perl daemon is to go on with"
            )
        for name, count in rows.items():
            if name != self._names.limit:
                self._steps.say(f"{counted(count, 'row')} of the limit {name}: set aside in {self._names.table}_aside")

    async def _say_rows(self) -> None:
        """Say of which accounts the Perl daemon will make something else: it knows no exceptions, and no `until`."""
        now = int(time.time())
        select = (
            "SELECT `sender`, `quota`, `configured`, `until` FROM `ratelimit` "
            "WHERE `limit_name` = 'default' AND `persist` = 0 AND "
            "(`until` > %s OR `quota` = 0 AND NOT `configured` <=> 0 OR `quota` = `configured` AND `quota` <> %s) "
            "ORDER BY `sender`"
        )
        found = await self._steps.ask(select, (now, self._limit.quota))
        for sender, quota, configured, until in found[:SAID]:
            of = f'"{text_of(sender if isinstance(sender, bytes) else str(sender))}": '
            if until is not None and int(str(until)) > now:
                end = time.strftime("%Y-%m-%d %H:%M", time.localtime(int(str(until))))
                self._steps.say(f"{of}its quota {quota} was until {end}; now it ends with its period")
            elif quota == configured:
                end = "ends with its period" if quota else "stays"
                self._steps.say(
                    f"{of}its configured quota {quota or 'unlimited'} {end}; with persist = 1 a quota stays"
                )
            else:
                self._steps.say(f"{of}unlimited until its period ends: quota {MAX_USED} until then")
        if len(found) > SAID:
            self._steps.say(f"and so on: {counted(len(found) - SAID, 'account')} more")

    # -- the table -------------------------------------------------------------------------------------------------

    async def _script(self, found: Layout, there: Collection[str]) -> list[str]:
        """The statements that are to be run."""
        account = [name for name, columns in found.unique.items() if sorted(columns) == ["limit_name", "sender"]]
        select = (
            "SELECT DISTINCT INDEX_NAME FROM information_schema.STATISTICS "
            "WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = %s AND COLUMN_NAME = %s AND SEQ_IN_INDEX = 1"
        )
        updated = dict(self._names.columns).get("updated", "updated")
        changes = [str(name) for (name,) in await self._steps.session.run(select, (self._names.table, updated))]
        script = self._steps.sql(schema(SCRIPT))
        for name, indexes in (("account", account), ("changes", changes)):
            drops = "".join(f"DROP INDEX `{index.replace('`', '``')}`,\n" for index in indexes)
            script = re.sub(rf"DROP INDEX `{name}`,\s*", drops.replace("\\", r"\\"), script)
        history = f"{self._names.table}_history"
        return [one for one in statements(script) if history in there or f"`{history}`" not in one]
