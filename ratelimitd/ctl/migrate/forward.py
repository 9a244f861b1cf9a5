"""The way to ratelimitd: the Perl daemon's table becomes ours, in place; one that is ours gets what an upgrade needs.

Every statement may be run again, and what is left to do is seen in the table: a migration that was interrupted is
completed by the next one.
"""

import re
from collections.abc import Collection, Sequence

from ratelimitd.config.read import Configuration
from ratelimitd.ctl.migrate import perl, rights, theirs
from ratelimitd.ctl.migrate.senders import Senders, text_of
from ratelimitd.ctl.migrate.steps import Steps
from ratelimitd.errors import StoreError
from ratelimitd.stores import schema
from ratelimitd.stores.mysql.layout import (
    ADDED,
    Layout,
    create,
    exact,
    layout,
    missing,
    renew_view,
    repairs,
    statements,
    tables,
)
from ratelimitd.stores.remarks import Remarks

SCRIPT = "mysql-migrate-ratelimit-policyd"
COLLATION = "utf8mb4_bin"
RECENT_S = 60
"""The Perl daemon writes every account in its memory every 30 s."""


class Forward:
    """One run over one table."""

    def __init__(self, config: Configuration, steps: Steps, *, perl_stopped: bool = False) -> None:
        """`perl_stopped`: an administrator says that the Perl daemon is, whatever looks like it."""
        self._listen = config.settings.server.listen
        self._perl_stopped = perl_stopped
        self._senders = Senders(config, steps)
        self._names = config.names
        self._steps = steps
        self._aside = f"{self._names.table}_aside"

    async def run(self) -> None:
        """Migrate. Raises StoreError."""
        steps, table = self._steps, self._names.table
        there = await tables(steps.session)
        found = await layout(steps.session, self._names)
        if not found.columns:
            await steps.check_rights({table: rights.ON_ROWS}, f"the account sees nothing of a table {table}")
            steps.say(f"there is no table {table}: the daemon creates it when it starts")
            return
        ours = all(name in found.columns for name in ADDED)
        fault = next(found.lasting_faults() if ours else found.faults(), None)
        if fault is not None:
            self._recognise(found, fault)
        due = list(repairs(found, self._names, thorough=True)) if fault is None else await self._script(found)
        stiff = await self._stiff(there)
        await self._check_rights(there, alters=bool(due or stiff))
        if fault is None:
            steps.say(f"the table {table} is migrated already")
            await steps.run_all(due)
        else:
            await self._check_perl()
            await self._say_unlimited()
            await steps.run_all(due)
        await self._bring_back(there)
        await self._create(there)
        await self._senders.normalise(migrated=fault is None or not steps.dry_run)
        for name in stiff:
            await self._collate(name)

    # -- before anything is changed --------------------------------------------------------------------------------

    def _recognise(self, found: Layout, fault: str) -> None:
        """Raises StoreError unless it is the Perl daemon's table."""
        table = self._names.table
        if theirs.MIGRATED in found.columns:
            raise StoreError(f"the table {table} was partly migrated by other means and cannot be used: {fault}")
        for oddity in theirs.oddities(found):
            raise StoreError(f"the table {table} is not the Perl daemon's: {oddity}")

    async def _check_rights(self, there: Collection[str], *, alters: bool) -> None:
        """Refuse where the account lacks rights, with the GRANT that gives them; that of the view may be missing."""
        table, view = self._names.table, f"view_{self._names.table}"
        needed = {table: [*rights.ON_ROWS, *(["ALTER", "CREATE"] if alters else [])]}
        for name, _ in missing(self._names, there):
            needed[name] = ["CREATE VIEW"] if name == view else ["CREATE"]
        if view in there:
            needed[view] = ["CREATE VIEW"]
        if self._aside in there:
            needed[self._aside] = ["SELECT", "DELETE", "DROP"]
        await self._steps.check_rights(needed)

    async def _check_perl(self) -> None:
        """Refuse where the Perl daemon certainly runs; say where it may."""
        for found in perl.running(self._listen):
            if self._perl_stopped:
                self._steps.say(f"not taken for the Perl daemon (--perl-stopped): {found.partition(': ')[0]}")
            else:
                self._steps.refuse(
                    f"the Perl daemon is running: {found}; if that is not the one that writes to this table, run it "
                    f"with --perl-stopped"
                )
        age = "SELECT UNIX_TIMESTAMP() - UNIX_TIMESTAMP(MAX(`updated`)) FROM `ratelimit`"
        ((since,),) = await self._steps.ask(age)
        if since is not None and 0 <= int(str(since)) < RECENT_S:
            self._steps.say(
                f"a row was written {since} s ago: if a Perl daemon still runs on another machine, stop it (it writes "
                f"every 30 s), and run this again"
            )

    # -- the table -------------------------------------------------------------------------------------------------

    async def _script(self, found: Layout) -> list[str]:
        """The statements for the Perl daemon's table that are to be run."""
        drops = ", ".join(
            f"DROP INDEX `{index.replace('`', '``')}`"
            for index, columns in found.unique.items()
            if columns == ("sender",)
        )
        script = self._steps.sql(schema(SCRIPT))
        due = list(statements(re.sub(r"DROP INDEX `\w+`", drops.replace("\\", r"\\"), script)))
        adds = f"ADD `{dict(self._names.columns).get(theirs.BEGUN, theirs.BEGUN)}`"
        begun = theirs.BEGUN in found.columns
        return [one for one in due if not self._is_of_aside(one) and not (begun and adds in one)]

    def _is_of_aside(self, statement: str) -> bool:
        return f"`{self._aside}`" in statement or statement in ("START TRANSACTION", "COMMIT")

    async def _say_unlimited(self) -> None:
        without = "COALESCE(`quota`, 0) <= 0 AND COALESCE(`persist`, 0) = 0"
        for (sender,) in await self._steps.ask(f"SELECT `sender` FROM `ratelimit` WHERE {without} ORDER BY `sender`"):
            self._steps.say(f'"{_sender(sender)}": quota 0 was unlimited and stays so: persist = 1')

    async def _bring_back(self, there: Collection[str]) -> None:
        """Bring back the rows of other limits that a way back has set aside."""
        if self._aside not in there:
            return
        for limit, sender, used in await self._conflicts():
            self._steps.say(
                f'"{_sender(sender)}" has a row under {_sender(limit)} by now, which stays; the one that was set aside '
                f"(used {used}) goes"
            )
        script = statements(self._steps.sql(schema(SCRIPT)))
        await self._steps.run_all(one for one in script if self._is_of_aside(one) and not one.startswith("CREATE"))

    async def _conflicts(self) -> Sequence[Sequence[object]]:
        """The rows that are aside, and have a counterpart in the table, which in a dry run may not be ours yet."""
        limit = "'default'" if self._steps.dry_run else "`r`.`limit_name`"
        return await self._steps.ask(
            "SELECT `a`.`limit_name`, `a`.`sender`, `a`.`used` FROM `ratelimit_aside` AS `a` JOIN `ratelimit` AS `r` "
            f"ON `r`.`sender` = `a`.`sender` AND `a`.`limit_name` = {limit} ORDER BY `a`.`id`"
        )

    async def _create(self, there: Collection[str]) -> None:
        """Create what is missing, and give a view that is there the columns that the table has got."""
        steps = self._steps
        wanted = [name for name, _ in missing(self._names, there)]
        if steps.dry_run:
            for name in wanted:
                steps.say(f"would create: {name}")
            return
        remarks, view = Remarks(), f"view_{self._names.table}"
        await create(steps.session, self._names, there, remarks)
        now = await tables(steps.session)
        for name in wanted:
            if name in now:
                steps.say(f"created: {name}")
        for remark in remarks.take():
            steps.say(f"{remark.event}: {remark.said}")
        if view in there:
            try:
                await renew_view(steps.session, self._names)
            except StoreError as error:
                grant = await rights.lacking(steps.session, {view: ["DROP"]})
                steps.say(f"{view} is left as it is, without columns that are new: {error}; {grant}".removesuffix("; "))

    async def _stiff(self, there: Collection[str]) -> list[str]:
        """Our tables whose senders join with no column of utf8mb4_bin: those of versions before, without padding."""
        names = [name for name in (self._names.table, f"{self._names.table}_history") if name in there]
        found = {name: (await layout(self._steps.session, self._names._replace(table=name))).columns for name in names}
        return [
            name
            for name, columns in found.items()
            if "sender" in columns and exact(kind := columns["sender"].collation) and kind != COLLATION
        ]

    async def _collate(self, name: str) -> None:
        """Have a table's senders join with any other column; where that fails, it only is as it was."""
        alter = self._steps.sql(f"ALTER TABLE `{name}` MODIFY `sender` VARCHAR(255) COLLATE {COLLATION} NOT NULL")
        try:
            await self._steps.run(alter)
        except StoreError as error:
            self._steps.say(f"the senders of {name} stay as they are, and join with no column of {COLLATION}: {error}")


def _sender(value: object) -> str:
    return text_of(value if isinstance(value, bytes) else str(value))
