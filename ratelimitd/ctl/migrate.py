"""`ratelimitctl migrate`: converts the Perl daemon's table to ours, in place and in use; safe to run again."""

import re
import time
from collections.abc import Collection, Iterable
from math import inf
from typing import NamedTuple

import trio

from ratelimitd.config.read import Configuration, naming
from ratelimitd.core.limits import UNLIMITED, Limit
from ratelimitd.errors import ConfigError, StoreError
from ratelimitd.keys import normalise
from ratelimitd.stores import MAX_USED, schema
from ratelimitd.stores.mysql.access import USUAL_PORT, Access
from ratelimitd.stores.mysql.layout import (
    ADDED,
    Layout,
    create,
    layout,
    missing,
    renew_view,
    repairs,
    statements,
    tables,
)
from ratelimitd.stores.mysql.session import MySQLSession, connect
from ratelimitd.stores.remarks import Remarks
from ratelimitd.stores.shared.addresses import place
from ratelimitd.text import counted

CONNECT_TIMEOUT_S = 10.0
PAGE = 5000

_TYPES = {
    "id": r"(big)?int\b.*",
    "sender": r"(var)?(char|binary)\b.*",
    "persist": r"(tiny|small|medium|big)?int\b.*",
    "quota": r"(big)?int\b.*",
    "used": r"(big)?int\b.*",
    "updated": r"timestamp\b.*",
    "expiry": r"(big)?int\b.*",
}
"""The Perl daemon's columns, and what they may be."""


def migrate(config: Configuration, dry_run: bool = False) -> list[str]:
    """Migrate the table of `[store]`; what was done, or with `dry_run` would be, one line each.

    Raises ConfigError for another backend; StoreError. A table that is neither the Perl daemon's nor ours is an
    error too, and left alone.
    """
    if config.settings.store.backend != "mysql":
        found = f'"{config.settings.store.backend}"'
        with naming(config.file):
            raise ConfigError("store.backend", found, '"mysql" (in other databases a start completes the tables)')
    return trio.run(_migrate, config, dry_run)


async def _migrate(config: Configuration, dry_run: bool) -> list[str]:
    known = Access.of(config.settings.store, config.credentials)
    try:
        session = await _connect(known)
        try:
            return await Migration(config, session, dry_run).run()
        finally:
            await session.quit()
    except StoreError as error:
        raise StoreError(f"migrate: {known.name}: {error}") from error


async def _connect(known: Access) -> MySQLSession:
    """A session with the first server, in the order of `store.host`, that takes one. Raises StoreError."""
    reasons: list[str] = []
    for address in known.addresses:
        try:
            return await connect(known, address, CONNECT_TIMEOUT_S, patience_s=inf)
        except StoreError as error:
            reasons.append(f"{place(address, USUAL_PORT)}: {error}")
    raise StoreError("; ".join(reasons))


class OldRow(NamedTuple):
    """What matters of a row when it is merged with another."""

    id: int
    limit: str
    sender: str
    persist: int
    quota: int
    configured: int | None
    used: int
    expiry: int

    def __str__(self) -> str:
        quota = "unlimited" if self.quota == UNLIMITED else f"quota {self.quota}"
        return f'"{self.sender}" (used {self.used}, {quota}{", persist" if self.persist else ""})'


class Migration:
    """One run over one table."""

    def __init__(self, config: Configuration, session: MySQLSession, dry_run: bool) -> None:
        self._keys = config.settings.keys
        self._limits = {limit.name: limit for limit in config.limits}
        self._first = config.limits[0]
        self._names = config.names
        self._session = session
        self._dry_run = dry_run
        self._report: list[str] = []

    async def run(self) -> list[str]:
        """Migrate; the report."""
        table = self._names.table
        there = await tables(self._session)
        if table not in there:
            return [f"there is no table {table}: the daemon creates it when it starts"]
        found = await layout(self._session, self._names)
        ours = all(name in found.columns for name in ADDED)
        fault = next(found.lasting_faults() if ours else found.faults(), None)
        if fault is None:
            self._report.append(f"the table {table} is migrated already")
            for statement in repairs(found, self._names, thorough=True):
                await self._run(statement)
        else:
            self._recognise(found, fault)
            await self._alter(found)
        await self._create(there)
        await self._normalise(migrated=fault is None or not self._dry_run)
        return self._report

    async def _create(self, there: Collection[str]) -> None:
        """Create what is missing, and give a view that is there the columns that the table has got."""
        wanted = [name for name, _ in missing(self._names, there)]
        if self._dry_run:
            self._report += [f"would create: {name}" for name in wanted]
            return
        remarks, view = Remarks(), f"view_{self._names.table}"
        await create(self._session, self._names, there, remarks)
        now = await tables(self._session)
        self._report += [f"created: {name}" for name in wanted if name in now]
        self._report += [f"{remark.event}: {remark.said}" for remark in remarks.take()]
        if view in there:
            try:
                await renew_view(self._session, self._names)
            except StoreError as error:
                self._report.append(f"{view} is left as it is, without columns that are new: {error}")

    def _sql(self, statement: str) -> str:
        return self._names.apply(statement, "`")

    def _recognise(self, found: Layout, fault: str) -> None:
        """Raises StoreError unless it is the Perl daemon's table."""
        table = self._names.table
        if any(name in found.columns for name in ADDED):
            raise StoreError(f"the table {table} was partly migrated by other means and cannot be used: {fault}")
        for name, wanted in _TYPES.items():
            kind = found.columns[name].type if name in found.columns else "nothing"
            if not re.fullmatch(wanted, kind):
                raise StoreError(f"the table {table} is not the Perl daemon's: its column {name} is {kind}")
        for name, column in found.columns.items():
            if name not in _TYPES and column.required:
                raise StoreError(f"the table {table} is not the Perl daemon's: it has a column {name} without default")
        if ("sender",) not in found.unique.values():
            raise StoreError(f"the table {table} is not the Perl daemon's: its senders are not unique")

    async def _alter(self, found: Layout) -> None:
        without = "COALESCE(`quota`, 0) <= 0 AND COALESCE(`persist`, 0) = 0"
        unlimited = self._sql(f"SELECT `sender` FROM `ratelimit` WHERE {without} ORDER BY `sender`")
        for (sender,) in await self._session.run(unlimited):
            self._report.append(f'"{_text(sender)}": quota 0 was unlimited and stays so: persist = 1')
        drops = ", ".join(
            f"DROP INDEX `{index.replace('`', '``')}`"
            for index, columns in found.unique.items()
            if columns == ("sender",)
        )
        script = self._sql(schema("mysql-migrate-ratelimit-policyd"))
        for statement in statements(re.sub(r"DROP INDEX `\w+`", drops.replace("\\", r"\\"), script)):
            await self._run(statement)

    async def _run(self, statement: str) -> None:
        self._report.append(f"{'would run' if self._dry_run else 'ran'}: {' '.join(statement.split())}")
        if not self._dry_run:
            await self._session.run(statement)

    # -- senders -------------------------------------------------------------------------------------------------

    async def _normalise(self, migrated: bool) -> None:
        """Normalise every sender; rows whose senders become the same are merged."""
        limit_name = "`limit_name`" if migrated else f"'{self._first.name}'"
        groups: dict[tuple[str, str], list[str]] = {}
        seen = rows = 0
        select = self._sql(
            f"SELECT `id`, {limit_name}, `sender` FROM `ratelimit` WHERE `id` > %s ORDER BY `id` LIMIT %s"
        )
        while page := await self._session.run(select, (seen, PAGE)):
            seen = page[-1][0]
            rows += len(page)
            for _, limit, sender in page:
                normal = self._normal(limit, _text(sender))
                if normal and normal != _text(sender):
                    groups.setdefault((limit, normal), []).append(_text(sender))
        odd = sum(map(len, groups.values()))
        self._report.append(f"{counted(rows, 'row')}, {odd} with a sender that is not normalised")
        configured = "`configured`" if migrated else "NULL"
        fields = f"`id`, {limit_name}, `sender`, `persist`, `quota`, {configured}, `used`, `expiry`"
        for (limit, normal), senders in sorted(groups.items()):
            await self._merge(fields, limit_name, limit, normal, [normal, *senders])

    def _normal(self, limit_name: str, sender: str) -> str:
        limit: Limit | None = self._limits.get(limit_name)
        if limit is None:
            return sender
        sender = sender.strip(" \t")
        if limit.key_name == "email":
            sender = self._keys.login_rules.login(sender)
        return normalise(sender, self._keys.lowercase)

    async def _merge(self, fields: str, limit_name: str, limit: str, normal: str, senders: list[str]) -> None:
        run = self._session.run
        marks = ", ".join(["%s"] * len(senders))
        select = f"SELECT {fields} FROM `ratelimit` WHERE {limit_name} = %s AND `sender` IN ({marks})"
        if not self._dry_run:
            await run("START TRANSACTION")
        lock = "" if self._dry_run else " FOR UPDATE"
        found = await run(self._sql(f"{select} ORDER BY `id`{lock}"), (limit, *senders))
        rows = [OldRow(row[0], row[1], _text(row[2]), *row[3:]) for row in found]
        rows = [row for row in rows if self._normal(limit, row.sender) == normal]
        merged = merge(rows, normal, int(time.time()))
        self._report.append(f"{' and '.join(map(str, rows))} -> {merged}")
        if self._dry_run:
            return
        for row in rows:
            if row.id != merged.id:
                await run(self._sql("DELETE FROM `ratelimit` WHERE `id` = %s"), (row.id,))
        update = (
            "UPDATE `ratelimit` SET `sender` = %s, `persist` = %s, `quota` = %s, `configured` = %s, `used` = %s, "
            "`in_parts` = NULL, `expiry` = %s, `updated` = `updated` WHERE `id` = %s"
        )
        await run(self._sql(update), (normal, *merged[3:], merged.id))
        await self._session.commit()


def merge(rows: Iterable[OldRow], normal: str, now: int) -> OldRow:
    """One row from several: the sum of their current uses, the largest quota, persist if any has it.

    It keeps the id of the row that had the normalised sender, else the lowest.
    """
    rows = sorted(rows)
    kept = next((row for row in rows if row.sender == normal), rows[0])
    expiry = max(row.expiry for row in rows)
    counted = [row for row in rows if row.expiry > now or row.expiry == expiry]
    largest = max(rows, key=lambda row: inf if row.quota == UNLIMITED else row.quota)
    return kept._replace(
        sender=normal,
        persist=max(row.persist for row in rows),
        quota=largest.quota,
        configured=largest.configured,
        used=min(sum(row.used for row in counted), MAX_USED),
        expiry=expiry,
    )


def _text(sender: str | bytes) -> str:
    return sender.decode("utf-8", "replace") if isinstance(sender, bytes) else sender
