"""Whether a PostgreSQL database has our tables, as they must be; their creation where there are none, and what a table
of an earlier version lacks.

Only one daemon at a time changes anything.
"""

import re
from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

from ratelimitd.errors import StoreError, StoreUnsuitable
from ratelimitd.stores import COLUMNS, Names, schema
from ratelimitd.stores.postgresql import room
from ratelimitd.stores.postgresql.rights import remedy
from ratelimitd.stores.remarks import Remarks
from ratelimitd.stores.shared import beside
from ratelimitd.stores.shared.session import DatabaseError, Session

_COMMENT = re.compile(r"--[^\n]*")
_STATEMENT = re.compile(r"(?:\$\$.*?\$\$|[^;])+", re.DOTALL)
_CREATES = re.compile(r'CREATE (?:OR REPLACE )?(\w+) (?:IF NOT EXISTS )?"(\w+)"')
_COLUMN = re.compile(r'^    "(\w+)" +([A-Z][^\n]*?),? *(?:--[^\n]*)?$', re.MULTILINE)
"""A column of the table `ratelimit` in sql/postgresql.sql, and what it is."""
_CONSTRAINT = re.compile(r'CONSTRAINT "ratelimit_(\w+)" CHECK [^\n]*[^\n,]')
_LARGE = ("quota", "configured", "seen", "until", "used", "in_parts", "expiry")
"""Columns of numbers that must hold what is beyond INTEGER."""
_SMALL = ("smallint", "integer")
COUNTS = ("used", "expiry")
"""Columns that a constraint keeps from being odd, where they hold whole numbers."""
_FIXED = ("id", "sender", "limit_name", "updated")
"""Columns that cannot be added to a table of ours: without them it is none."""

_COLUMNS = """
SELECT "attname", format_type("atttypid", "atttypmod"),
    "attnotnull" AND "attidentity" = '' AND NOT EXISTS (
        SELECT FROM "pg_trigger" WHERE "tgrelid" = "attrelid" AND "tgtype" & 6 = 6 AND NOT "tgisinternal"),
    pg_get_expr("adbin", "adrelid"),
    COALESCE("collisdeterministic", TRUE)
FROM "pg_attribute" LEFT JOIN "pg_attrdef" ON "adrelid" = "attrelid" AND "adnum" = "attnum"
LEFT JOIN "pg_collation" AS c ON c."oid" = "attcollation"
WHERE "attrelid" = to_regclass($1) AND "attnum" > 0 AND NOT "attisdropped"
"""
_INDEXES = """
SELECT "indisunique" AND "indpred" IS NULL AND "indexprs" IS NULL AND "indisvalid" AND "indimmediate",
    array_to_string(ARRAY(
    SELECT "attname" FROM unnest("indkey"::smallint[]) WITH ORDINALITY AS k (number, place)
    JOIN "pg_attribute" ON "attrelid" = "indrelid" AND "attnum" = number WHERE place <= "indnkeyatts"
    ORDER BY place), ',')
FROM "pg_index" WHERE "indrelid" = to_regclass($1)
"""
_CHECKS = """
SELECT "conname" FROM "pg_constraint" WHERE "conrelid" = to_regclass($1) AND "contype" = 'c' AND "convalidated"
UNION ALL
SELECT "tgname" FROM "pg_trigger" WHERE "tgrelid" = to_regclass($1) AND "tgenabled" <> 'D' AND NOT "tgisinternal"
"""
_GRANTED = """
SELECT format('GRANT %s ON "view_ratelimit" TO %s', string_agg("privilege_type", ', '),
    CASE "grantee" WHEN 0 THEN 'PUBLIC' ELSE "grantee"::regrole::text END)
FROM "pg_class", aclexplode("relacl") WHERE "oid" = to_regclass($1) AND "grantee" <> "relowner" GROUP BY "grantee"
"""
_IS_TABLE = "SELECT 1 FROM pg_class WHERE oid = to_regclass($1) AND relkind IN ('r', 'p')"
_THERE = "SELECT name FROM unnest($1::text[]) AS name WHERE to_regclass(quote_ident(name)) IS NOT NULL"
_MISSING = "%s is missing, and the daemon's account may not create it"
_ALONE = "SELECT pg_advisory_lock(hashtext('ratelimitd'), hashtext($1))::text"
_NOT_ALONE = "SELECT pg_advisory_unlock(hashtext('ratelimitd'), hashtext($1))"


class Column(NamedTuple):
    """A column as the database describes it. `exact`: texts are the same only where all their bytes are.

    `required`: an INSERT must name it, and no trigger of somebody's does.
    """

    type: str
    required: bool
    default: str
    exact: bool

    @property
    def is_exact_text(self) -> bool:
        """Whether it tells all keys apart."""
        return self.exact and self.type.startswith(("character varying", "text"))


class Layout(NamedTuple):
    """A table as it is: its columns by our names for them, its indexes' columns, its constraints and triggers.

    `granted` are the statements that give others the rights that they have on its view.
    """

    columns: dict[str, Column]
    unique: frozenset[tuple[str, ...]]
    indexed: frozenset[str]
    checks: frozenset[str]
    granted: tuple[str, ...] = ()

    def faults(self) -> Iterator[str]:
        """Why the daemon cannot work with the table."""
        columns = self.columns
        for name in COLUMNS:
            if name not in columns:
                yield f"it lacks the column {name}"
        if ("sender", "limit_name") not in self.unique:
            yield "it has no unique index on (sender, limit_name)"
        if ("sender",) in self.unique:
            yield "its unique index on sender leaves no room for a second limit"
        if "id" in columns and columns["id"].type != "bigint":
            yield f"its id is {columns['id'].type}, not bigint"
        for name in _LARGE:
            if name in columns and not room.for_numbers(columns[name].type):
                yield f"its column {name} is {columns[name].type}, not bigint"
        if "persist" in columns and not room.for_a_flag(columns["persist"].type):
            yield f"its column persist is {columns['persist'].type}, not smallint"
        for name, length in (("sender", room.KEY_LENGTH), ("limit_name", room.LIMIT_LENGTH)):
            if name in columns and not columns[name].is_exact_text:
                yield f"its column {name} compares otherwise than by bytes"
            elif name in columns and not room.for_text(columns[name].type, length):
                yield f"its column {name} is {columns[name].type}, too short for {length} characters"
        for name in sorted(columns.keys() - {*_FIXED[1:]}):
            if columns[name].required and not columns[name].default:
                yield f"its column {name} must not be NULL, and has no default"
        if "updated" in columns and columns["updated"].type != "timestamp(0) with time zone":
            yield f"its column updated is {columns['updated'].type}, not timestamp(0) with time zone"
        if "updated" not in self.indexed:
            yield "it has no index on updated"
        if "touched" not in self.checks:
            yield "its column updated does not follow changes: it lacks its trigger"


def _sql(names: Names, statement: str) -> str:
    return names.apply(statement, '"')


async def layout(session: Session, names: Names) -> Layout:
    """The table as it is."""
    ours = {theirs: name for name, theirs in names.columns}
    table = f'"{names.table}"'
    columns: dict[str, Column] = {}
    for name, kind, required, default, exact in await session.run(_COLUMNS, (table,)):
        columns[ours.get(str(name), str(name))] = Column(kind, required, default or "", exact)
    unique: set[tuple[str, ...]] = set()
    indexed: set[str] = set()
    for is_unique, keys in await session.run(_INDEXES, (table,)):
        index = tuple(ours.get(key, key) for key in keys.split(","))
        indexed.add(index[0])
        if is_unique:
            unique.add(("sender", "limit_name") if {*index} == {"sender", "limit_name"} else index)
    checks = [name.removeprefix(f"{names.table}_") for (name,) in await session.run(_CHECKS, (table,))]
    granted = [str(text) for (text,) in await session.run(_sql(names, _GRANTED), (f'"view_{names.table}"',))]
    return Layout(columns, frozenset(unique), frozenset(indexed), frozenset(checks), tuple(granted))


async def whole_numbers(session: Session, names: Names) -> dict[str, str]:
    """The types of the columns, by our names, that hold whole numbers alone; `unsigned` where a constraint says so.

    It asks each time, for a table may be altered.
    """
    found = await layout(session, names)
    sign = " unsigned" if "counts" in found.checks else ""
    whole = {name: column.type for name, column in found.columns.items() if column.type in ("bigint", "smallint")}
    return {name: kind + (sign if name in COUNTS else "") for name, kind in whole.items()}


async def tables(session: Session, names: Names) -> set[str]:
    """Our tables, and the view, that are there."""
    wanted = [name for kind, name in _created(names) if kind in ("TABLE", "VIEW")]
    return {name for (name,) in await session.run(_THERE, (wanted,))}


def repairs(found: Layout, names: Names) -> Iterator[list[str]]:
    """The statements that a table needs which is ours, and of an earlier version; those that go together, together."""
    if any(name not in found.columns for name in _FIXED):
        return
    created = _created(names)
    touch = [text for (kind, _), text in created.items() if kind in ("FUNCTION", "TRIGGER")]
    touch.insert(0, _sql(names, 'DROP TRIGGER IF EXISTS "ratelimit_touched" ON "ratelimit"'))
    kinds = dict(_COLUMN.findall(schema("postgresql").partition(");")[0]))
    lacking = [name for name in COLUMNS if name not in found.columns]
    add = 'ALTER TABLE "ratelimit" ADD COLUMN IF NOT EXISTS "{}" {}'
    added = [_sql(names, add.format(name, " ".join(kinds[name].split()))) for name in lacking]
    if "quota" in lacking:  # 0 would be unlimited
        added.append(_sql(names, 'UPDATE "ratelimit" SET "configured" = "quota", "seen" = "quota", "persist" = 0'))
    if added:
        yield added
    narrow = [name for name in _LARGE if name in found.columns and found.columns[name].type in _SMALL]
    if lacking or narrow:  # the view names the columns that were there, and keeps their types, as the trigger does
        renewed = [_sql(names, 'DROP VIEW IF EXISTS "view_ratelimit"')]
        if narrow:
            renewed.append(touch[0])
            renewed += [_sql(names, f'ALTER TABLE "ratelimit" ALTER COLUMN "{name}" TYPE BIGINT') for name in narrow]
            renewed += touch[1:]
        yield [*renewed, created["VIEW", f"view_{names.table}"], *found.granted]
    if "updated" not in found.indexed:
        yield [_sql(names, 'CREATE INDEX ON "ratelimit" ("updated")')]
    if "touched" not in found.checks and not narrow:
        yield touch
    hold_others = any(found.columns[name].type != "bigint" for name in COUNTS if name in found.columns)
    for constraint in _CONSTRAINT.finditer(schema("postgresql")):
        if constraint[1] not in found.checks and not hold_others:
            yield [_sql(names, f'ALTER TABLE "ratelimit" ADD {constraint[0]}')]


async def check(session: Session, names: Names, remarks: Remarks, *, history: bool) -> None:
    """Create the tables that are missing. Raises StoreUnsuitable for tables that cannot be used or created.

    `history`: ratelimit_history is needed.

    What a table needs of `repairs` is done where the account may; otherwise it is a remark.
    """
    there = await tables(session, names)
    found = await layout(session, names)
    if len(there) < len(_tables(names)) or any(repairs(found, names)):
        await session.run(_ALONE, (names.table,))
        await _create(session, names, remarks, history=history)
        found = await _repair(session, names, remarks)
        await _create_view(session, names, remarks)
        await session.run(_NOT_ALONE, (names.table,))
    for table, key in beside.tables(names, history=history):
        if await session.run(_IS_TABLE, (f'"{table}"',)):  # a view may stand there, too
            indexes = await session.run(_INDEXES, (f'"{table}"',))
            beside.require(table, key, [keys.split(",") for is_unique, keys in indexes if is_unique], '"')
    due = "; ".join(chain.from_iterable(repairs(found, names)))
    how = f": the table's owner must run: {due}" if due else "; sql/postgresql.sql has it"
    for fault in found.faults():
        raise StoreUnsuitable(f"the table {names.table} cannot be used: {fault}{how}")


async def _create(session: Session, names: Names, remarks: Remarks, *, history: bool) -> None:
    there = await tables(session, names)
    needed = {names.table, f"{names.table}_node", *([f"{names.table}_history"] if history else [])}
    for (kind, name), statement in _created(names).items():
        if kind != "TABLE" or name in there:
            continue
        try:
            await session.run(statement)
            if name == f"{names.table}_history":
                await session.run(_sql(names, 'CREATE INDEX ON "ratelimit_history" ("expiry")'))
        except StoreError as error:
            if isinstance(error, DatabaseError) and error.conflict:
                raise
            if name in needed:
                how = await remedy(session) if isinstance(error, StoreUnsuitable) else "sql/postgresql.sql has it"
                raise StoreUnsuitable(f"{name} cannot be created: {error}; {how}") from error
            if not name.endswith("_history"):  # the windows are compared for people: the daemon works without
                remarks.add(_MISSING % name, statement=statement, reason=str(error))


async def _create_view(session: Session, names: Names, remarks: Remarks) -> None:
    view = f"view_{names.table}"
    if view not in await tables(session, names):
        statement = _created(names)["VIEW", view]
        try:
            await session.run(statement)
        except StoreError as error:  # it is for people: the daemon works without
            remarks.add(_MISSING % view, statement=statement, reason=str(error))


async def _repair(session: Session, names: Names, remarks: Remarks) -> Layout:
    """Do what a table needs where the account may; the table as it is then."""
    for statements in repairs(await layout(session, names), names):
        statement = "; ".join(statements)
        if statement in remarks.given_up:
            continue
        await session.begin()
        try:
            for one in statements:
                await session.run(one)
            await session.commit()
        except StoreError as error:
            if isinstance(error, DatabaseError) and error.conflict:  # a lock of somebody's: it is tried again
                raise
            await session.rollback()
            if isinstance(error, DatabaseError) and error.elsewhere:  # others wait for the table meanwhile
                remarks.given_up.add(statement)
            what = "the table should be changed, which the daemon could not; its owner must"
            remarks.add(what, statement=statement, reason=str(error))
    return await layout(session, names)


def _tables(names: Names) -> list[str]:
    return [name for kind, name in _created(names) if kind in ("TABLE", "VIEW")]


def _created(names: Names) -> dict[tuple[str, str], str]:
    """What sql/postgresql.sql creates, by its kind and name."""
    script = _COMMENT.sub("", _sql(names, schema("postgresql")))
    found: dict[tuple[str, str], str] = {}
    for statement in _STATEMENT.findall(script):
        if created := _CREATES.match(statement.strip()):
            found[created[1], created[2]] = " ".join(statement.split())
    return found


LOCK = 'LOCK TABLE "ratelimit" IN SHARE ROW EXCLUSIVE MODE'
"""Keeps others from writing until the transaction ends: a row that is not there cannot be locked."""
