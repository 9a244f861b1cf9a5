"""Whether a MySQL or MariaDB database has our tables, as they must be; and their creation where there are none."""

import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

from ratelimitd.errors import StoreError, StoreUnsuitable
from ratelimitd.stores import COLUMNS, MAX_USED, Names, schema
from ratelimitd.stores.mysql.rights import lacking, remedy
from ratelimitd.stores.mysql.room import NO_INT, is_narrow, is_short, lacks_room
from ratelimitd.stores.remarks import Remarks
from ratelimitd.stores.shared.session import DatabaseError, Session

MIGRATE = "run `ratelimitctl migrate`"
ADDED = ("limit_name", "configured")
"""The columns that the Perl daemon's table lacks."""
NUMBERS = ("persist", "quota", "used", "expiry")
"""Columns that are never NULL in a table that we have made; what is NULL there counts as 0."""
LARGE = ("quota", "configured", "seen", "until", "used", "in_parts", "expiry")
"""Columns that must hold MAX_USED, or a time."""

_COMMENT = re.compile(r"--[^\n]*")
_CREATES = re.compile(r"CREATE\b.*?\b(?:TABLE|VIEW)\s+(?:IF NOT EXISTS\s+)?`(?P<name>\w+)`", re.DOTALL)
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
        elif "id" in columns and columns["id"].required:
            yield "its id is not AUTO_INCREMENT, and has no default"
        if "sender" in columns and not exact(columns["sender"].collation):
            yield f"its senders compare by {columns['sender'].collation}"
        if "updated" in columns and "on update" not in columns["updated"].extra.lower():
            yield "its column updated does not follow changes"
        if "updated" not in self.indexed:
            yield "it has no index on updated"
        for name in LARGE:
            if name in columns and is_short(columns[name].type):
                yield f"its column {name} is too short: {columns[name].type}"
        yield from self.narrow()

    def narrow(self) -> Iterator[str]:
        """Which numbers have no room for what the daemon writes, or are not kept as they are: `repairs` can do that."""
        for name in LARGE:
            if name in self.columns and is_narrow(name, self.columns[name].type):
                yield f"its column {name} is too narrow: {self.columns[name].type}"

    def lasting_faults(self) -> Iterator[str]:
        """The faults of a table of ours that `repairs` cannot do anything about."""
        passing = {*map(_lacks, LATER), *self.narrow()}
        return (fault for fault in self.faults() if fault not in passing)


def _lacks(column: str) -> str:
    return f"it lacks the column {column}"


LATER = {"seen": "configured", "until": "seen", "in_parts": "used"}
"""Columns that tables of earlier versions lack, with those that they stand behind."""


def _no_numbers_of_ours(found: Layout) -> dict[str, str]:
    """The columns that hold numbers, but no whole ones, or not all; and what each must be."""
    kinds = dict.fromkeys(LARGE, "INT UNSIGNED NOT NULL DEFAULT 0")
    kinds |= dict.fromkeys(("configured", "seen", "until", "in_parts"), "INT UNSIGNED DEFAULT NULL")
    kinds["persist"] = "TINYINT(1) NOT NULL DEFAULT 0"
    wrong: dict[str, str] = {}
    for name, kind in kinds.items():
        is_now = found.columns[name].type if name in found.columns else ""
        number = NO_INT.match(is_now)
        if number and ("int" not in number[1] or (name in LARGE and is_narrow(name, is_now))):
            wrong[name] = kind
    return wrong


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
    """The statements that a table needs which is ours, and of an earlier version.

    `thorough`: those, too, that write the whole table, or are for another first limit.
    """
    if any(name not in found.columns for name in COLUMNS if name not in LATER):
        return
    for name, before in LATER.items():
        if name not in found.columns:
            add = f"ALTER TABLE `ratelimit` ADD `{name}` INT UNSIGNED DEFAULT NULL AFTER `{before}`"
            yield names.apply(add, "`")
    if not thorough:
        return
    if found.columns["limit_name"].default != names.limit:
        yield names.apply("ALTER TABLE `ratelimit` ALTER `limit_name` SET DEFAULT 'default'", "`")
    wrong = _no_numbers_of_ours(found)
    if wrong:
        values = ", ".join(f"`{name}` = {_clamped(name)}" for name in wrong)
        odd = " OR ".join(f"NOT (`{name}` <=> {_clamped(name)})" for name in wrong)
        yield names.apply(f"UPDATE `ratelimit` SET {values}, `updated` = `updated` WHERE {odd}", "`")
        kinds = ", ".join(f"MODIFY `{name}` {kind}" for name, kind in wrong.items())
        yield names.apply(f"ALTER TABLE `ratelimit` {kinds}", "`")
    columns = {name: found.columns[name] for name in NUMBERS if name not in wrong}
    loose = [name for name, column in columns.items() if column.nullable and "int" in column.type]
    if loose:
        zero = ", ".join(f"`{name}` = COALESCE(`{name}`, 0)" for name in loose)
        null = " OR ".join(f"`{name}` IS NULL" for name in loose)
        yield names.apply(f"UPDATE `ratelimit` SET {zero}, `updated` = `updated` WHERE {null}", "`")
        kinds = ", ".join(f"MODIFY `{name}` {found.columns[name].type} NOT NULL DEFAULT 0" for name in loose)
        yield names.apply(f"ALTER TABLE `ratelimit` {kinds}", "`")


def _clamped(name: str) -> str:
    """What a number becomes as a column of ours holds it."""
    if name == "persist":
        return "COALESCE(`persist` = 1, 0)"
    number = f"`{name}`" if name in ("configured", "seen", "in_parts") else f"COALESCE(`{name}`, 0)"
    return f"LEAST(GREATEST(ROUND({number}), 0), {MAX_USED})"


async def check(session: Session, names: Names, remarks: Remarks, *, history: bool) -> None:
    """Create the tables that are missing. Raises StoreUnsuitable for tables that cannot be used or created.

    `history`: ratelimit_history is needed.

    What a table needs of `repairs` is done where the account may; otherwise it is a remark.
    """
    there = await tables(session)
    if names.table not in there:
        await create(session, names, there, remarks, history=history)
        return
    found = await layout(session, names)
    if not found.columns:  # the account sees that there is a table, and nothing of it
        grants = await lacking(session, names)
        raise StoreUnsuitable(f"the table {names.table} cannot be read: an administrator must run: {grants}")
    if not any(name in found.columns for name in ADDED):
        raise StoreUnsuitable(f"the table {names.table} is not migrated: {MIGRATE}")
    if any(repairs(found, names)):
        found = await _repair(session, names, found, remarks)
    due = "; ".join(repairs(found, names))
    how = f"an account with the right to ALTER must run: {due}" if due else MIGRATE
    for fault in found.faults():
        raise StoreUnsuitable(f"the table {names.table} cannot be used: {fault}: {how}")
    for doubt in _doubts(found):
        remarks.add("the table may refuse accounts, whose counts are set aside then", table=names.table, reason=doubt)
    await create(session, names, there, remarks, history=history)


def _doubts(found: Layout) -> Iterator[str]:
    """Why the table may refuse some accounts: what is short is enough for most, and a trigger may give a value."""
    for name, column in found.columns.items():
        if lacks_room(name, column.type):
            yield f"its column {name} is too short for all names: {column.type}"
        if name not in ("id", "sender", "limit_name") and column.required and "generated" not in column.extra.lower():
            yield f"its column {name} must not be NULL, and has no default"


async def _repair(session: Session, names: Names, found: Layout, remarks: Remarks) -> Layout:
    """Do what a table needs where the account may; the table as it is then."""
    failed: dict[str, str] = {}
    for statement in repairs(found, names):
        try:
            await session.run(statement)
        except StoreError as error:
            if isinstance(error, DatabaseError) and error.conflict:  # a lock of somebody's: it is tried again
                raise
            failed[statement] = str(error)
    found = await layout(session, names)
    for statement in repairs(found, names):  # another daemon that starts now may have done it
        if statement in failed:
            what = "the table should be changed, which the daemon could not; an administrator must"
            remarks.add(what, statement=statement, reason=failed[statement])
    return found


async def create(
    session: Session, names: Names, there: Collection[str], remarks: Remarks, *, history: bool = True
) -> None:
    """Create those of our tables, and the view, that are missing. Raises StoreUnsuitable.

    The view is for people, and the windows are compared for them: the daemon works without, and a remark says so.
    """
    parts = f"{names.table}_history"
    needed = {names.table, f"{names.table}_node", *([parts] if history else [])}
    for name, statement in missing(names, there):
        try:
            await session.run(statement)
        except StoreError as error:
            if name in needed:
                how = await remedy(session) if isinstance(error, StoreUnsuitable) else "sql/mysql.sql has it"
                raise StoreUnsuitable(f"{name} cannot be created: {error}; {how}") from error
            # Another daemon that starts now may have created it; the parts that nothing needs are not missed.
            if name != parts and name not in await tables(session):
                what = f"{name} is missing, or not shown to the daemon's account, which may not create it"
                remarks.add(what, statement=" ".join(statement.split()), reason=str(error))


async def renew_view(session: Session, names: Names) -> None:
    """Give the view the columns that the table has now; the account must be one that may drop it."""
    for name, statement in _creations(names):
        if name == f"view_{names.table}":
            await session.run(statement)


def missing(names: Names, there: Collection[str]) -> Iterator[tuple[str, str]]:
    """Our tables, and the view, that are not there: the name of each, and the statement that creates it."""
    for name, statement in _creations(names):
        if name not in there:
            yield name, statement.replace("CREATE OR REPLACE", "CREATE", 1)  # which takes the right to drop, too


def _creations(names: Names) -> Iterator[tuple[str, str]]:
    for statement in statements(names.apply(schema("mysql"), "`")):
        created = _CREATES.match(statement)
        if created is not None:
            yield created["name"], statement


def statements(script: str) -> Iterator[str]:
    """The statements of a script of ours: no semicolon in a text, comments from -- to the line's end."""
    for statement in _COMMENT.sub("", script).split(";"):
        if statement.strip():
            yield statement.strip()
