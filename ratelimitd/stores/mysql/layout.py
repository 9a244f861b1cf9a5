"""Whether a MySQL or MariaDB database has our tables, as they must be; and their creation where there are none."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from ratelimitd.errors import StoreError, StoreUnsuitable
from ratelimitd.stores import COLUMNS, Names, schema
from ratelimitd.stores.mysql.session import Session
from ratelimitd.stores.remarks import Remarks

MIGRATE = "run `ratelimitctl migrate`"
ADDED = ("limit_name", "configured")
"""The columns that the Perl daemon's table lacks."""
NUMBERS = ("persist", "quota", "used", "expiry")
"""Columns that are never NULL in a table that we have made; what is NULL there counts as 0."""

_COMMENT = re.compile(r"--[^\n]*")
_CREATES = re.compile(r"CREATE\b.*?\b(?P<kind>TABLE|VIEW)\s+(?:IF NOT EXISTS\s+)?`(?P<name>\w+)`", re.DOTALL)
_COLUMNS = (
    "SELECT COLUMN_NAME, COLUMN_TYPE, COLLATION_NAME, EXTRA, IS_NULLABLE, COLUMN_DEFAULT "
    "FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = %s"
)
_INDEXES = (
    "SELECT INDEX_NAME, NON_UNIQUE, COLUMN_NAME FROM information_schema.STATISTICS "
    "WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = %s ORDER BY INDEX_NAME, SEQ_IN_INDEX"
)
_TABLES = "SELECT TABLE_NAME, ENGINE FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()"


class Column(NamedTuple):
    """A column as the database describes it."""

    type: str
    collation: str
    extra: str
    nullable: bool
    default: str | None

    @property
    def required(self) -> bool:
        """Whether an INSERT must name it."""
        return not self.nullable and self.default is None and "auto_increment" not in self.extra.lower()


class Layout(NamedTuple):
    """A table as it is: its columns by our names for them, its indexes' columns, its engine ("": there is none)."""

    columns: dict[str, Column]
    unique: dict[str, tuple[str, ...]]
    indexed: frozenset[str]
    engine: str

    def faults(self) -> Iterator[str]:
        """Why the daemon cannot work with the table."""
        for name in COLUMNS:
            if name not in self.columns:
                yield _lacks(name)
        if self.engine.lower() != "innodb":
            yield f"its engine is {self.engine}, not InnoDB"
        if ("sender", "limit_name") not in self.unique.values():
            yield "it has no unique index on (sender, limit_name)"
        if ("sender",) in self.unique.values():
            yield "its unique index on sender leaves no room for a second limit"
        columns = self.columns
        if "id" in columns and not columns["id"].type.startswith("bigint"):
            yield "its id is too narrow"
        if "sender" in columns and not exact(columns["sender"].collation):
            yield f"its senders compare by {columns['sender'].collation}"
        if "updated" in columns and "on update" not in columns["updated"].extra.lower():
            yield "its column updated does not follow changes"
        if "updated" not in self.indexed:
            yield "it has no index on updated"


def _lacks(column: str) -> str:
    return f"it lacks the column {column}"


LATER = {"seen": "configured", "until": "seen"}
"""Columns that tables of earlier versions lack, with those that they stand behind."""
REPAIRED = frozenset(map(_lacks, LATER))
"""The faults that `repairs` repairs."""


def exact(collation: str) -> bool:
    """Whether a collation tells all normalised keys apart; PAD SPACE is harmless, for none of them ends in a blank."""
    return collation.startswith("utf8mb4_") and collation.endswith("_bin")


async def layout(session: Session, names: Names) -> Layout:
    """The table as it is."""
    ours = {theirs: name for name, theirs in names.columns}
    columns: dict[str, Column] = {}
    for name, kind, collation, extra, nullable, default in await session.run(_COLUMNS, (names.table,)):
        # MariaDB gives a default as it is written, MySQL as it is; and MariaDB says NULL where there is none.
        value = None if default in (None, "NULL") else str(default).strip("'")
        columns[ours.get(str(name), str(name))] = Column(kind.lower(), collation or "", extra, nullable == "YES", value)
    unique: dict[str, tuple[str, ...]] = {}
    indexed: dict[str, str] = {}
    for index, several, name in await session.run(_INDEXES, (names.table,)):
        column = ours.get(str(name), str(name))
        indexed.setdefault(index, column)
        if not int(several):
            unique[index] = (*unique.get(index, ()), column)
    return Layout(columns, unique, frozenset(indexed.values()), (await tables(session)).get(names.table, ""))


async def tables(session: Session) -> dict[str, str]:
    """The tables and views that the account may use, with their engines."""
    return {name: engine or "VIEW" for name, engine in await session.run(_TABLES)}


async def whole_numbers(session: Session, names: Names) -> dict[str, str]:
    """The types of the columns, by our names, that hold whole numbers alone.

    It asks each time, for a table may be altered.
    """
    ours = {theirs: name for name, theirs in names.columns}
    select = f"{_COLUMNS} AND DATA_TYPE LIKE '%%int'"
    found = await session.run(select, (names.table,))
    return {ours.get(str(row[0]), str(row[0])): str(row[1]).lower() for row in found}


def repairs(found: Layout, names: Names, *, thorough: bool = False) -> Iterator[str]:
    """The statements that a table needs which is ours, and of an earlier version or another first limit.

    `thorough`: those, too, that write the whole table.
    """
    if any(name not in found.columns for name in COLUMNS if name not in LATER):
        return
    for name, before in LATER.items():
        if name not in found.columns:
            add = f"ALTER TABLE `ratelimit` ADD `{name}` INT UNSIGNED DEFAULT NULL AFTER `{before}`"
            yield names.apply(add, "`")
    if found.columns["limit_name"].default != names.limit:
        yield names.apply("ALTER TABLE `ratelimit` ALTER `limit_name` SET DEFAULT 'default'", "`")
    loose = [name for name in NUMBERS if found.columns[name].nullable and "int" in found.columns[name].type]
    if loose and thorough:
        zero = ", ".join(f"`{name}` = COALESCE(`{name}`, 0)" for name in loose)
        null = " OR ".join(f"`{name}` IS NULL" for name in loose)
        yield names.apply(f"UPDATE `ratelimit` SET {zero}, `updated` = `updated` WHERE {null}", "`")
        kinds = ", ".join(f"MODIFY `{name}` {found.columns[name].type} NOT NULL DEFAULT 0" for name in loose)
        yield names.apply(f"ALTER TABLE `ratelimit` {kinds}", "`")


async def check(session: Session, names: Names, remarks: Remarks) -> None:
    """Create the tables that are missing. Raises StoreUnsuitable for tables that cannot be used or created.

    What a table needs of `repairs` is done where the account may; otherwise it is a remark.
    """
    there = await tables(session)
    if names.table not in there:
        await create(session, names, there)
        return
    found = await layout(session, names)
    if not any(name in found.columns for name in ADDED):
        raise StoreUnsuitable(f"the table {names.table} is not migrated: {MIGRATE}")
    if any(repairs(found, names)):
        found = await _repair(session, names, found, remarks)
    for fault in found.faults():
        raise StoreUnsuitable(f"the table {names.table} cannot be used: {fault}: {MIGRATE}")
    await create(session, names, there)


async def _repair(session: Session, names: Names, found: Layout, remarks: Remarks) -> Layout:
    """Do what a table needs where the account may; the table as it is then."""
    failed: dict[str, str] = {}
    for statement in repairs(found, names):
        try:
            await session.run(statement)
        except StoreError as error:
            failed[statement] = str(error)
    found = await layout(session, names)
    for statement in repairs(found, names):  # another daemon that starts now may have done it
        if statement in failed:
            what = "the table should be changed, which the daemon's account may not; an administrator's can"
            remarks.add(what, statement=statement, reason=failed[statement])
    return found


async def create(session: Session, names: Names, there: dict[str, str]) -> None:
    """Create those of our tables, and the view, that are missing. Raises StoreUnsuitable."""
    for statement in statements(names.apply(schema("mysql"), "`")):
        created = _CREATES.match(statement)
        if created is None or created["name"] in there:
            continue
        try:
            await session.run(statement)
        except StoreError as error:
            if created["kind"] == "TABLE" and not created["name"].endswith("_window"):
                raise StoreUnsuitable(f"{created['name']} cannot be created: {error}; sql/mysql.sql has it") from error
            # The view is for people, and the windows are compared for them: the daemon works without.


def statements(script: str) -> Iterator[str]:
    """The statements of a script of ours: no semicolon in a text, comments from -- to the line's end."""
    for statement in _COMMENT.sub("", script).split(";"):
        if statement.strip():
            yield statement.strip()
