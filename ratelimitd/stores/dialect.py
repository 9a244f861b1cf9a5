"""How the databases differ in SQL: the one place that says it. What the statements are, statements.py says, for all.

A statement has its names between double quotes, `%s` where a value goes and `%%` for a percent sign; `Dialect.sql`
makes it this database's. Here are also the ways in which a column is read that somebody may have filled with nonsense:
what has a plain meaning counts, as in core/rows.py:read, and no value fails a statement or loses a count.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from ratelimitd.stores import Names

NUMBERS = frozenset({"quota", "configured", "seen", "until", "persist", "used", "expiry"})
"""The columns of `ratelimit` that hold numbers."""

_FIELDS = ("quota", "configured", "persist", "used", "expiry")
_MARK = re.compile("%[s%]")
_NO_BOUND = 1 << 62


class Dialect:
    """What most of them understand. The names of columns are those of `ratelimit`."""

    quote: ClassVar[str] = '"'
    now: ClassVar[str]
    """Seconds since 1970."""
    touch: ClassVar[str] = "CURRENT_TIMESTAMP"
    """What a change writes as `updated`."""
    updated: ClassVar[str]
    """`updated` of a row that is read, in seconds since 1970; NULL where it is no date."""
    assigns_in_turn: ClassVar[bool] = False
    """Whether an update's later assignments see what its earlier ones have written."""
    deletes_in_order: ClassVar[bool] = False
    """Whether DELETE knows ORDER BY and LIMIT."""
    may_be_odd: bool = True
    """Whether there may be a use, or the end of a window, that is none."""
    place: ClassVar[tuple[str, ...]] = ("sender", "limit_name", "expiry")
    normal: ClassVar[str]
    """A sender as it is normalised by default."""
    parts: ClassVar[str] = ""
    """All parts of an account in one text: `LEAVES USED;` for each."""

    def sql(self, names: "Names", statement: str) -> str:
        """A statement with the configured names, as this database's driver takes it."""
        return _applied(names, statement, self.quote)

    def greatest(self, one: str, other: str) -> str:
        """The greater of two numbers."""
        return f"GREATEST({one}, {other})"

    def least(self, one: str, other: str) -> str:
        """The smaller of two numbers."""
        return f"LEAST({one}, {other})"

    def differ(self, one: str, other: str) -> str:
        """Whether two values differ, of which each may be NULL."""
        return f"{one} IS DISTINCT FROM {other}"

    @property
    def updated_of_row(self) -> str:
        """The same of the row that is there, in a statement that inserts another."""
        return self.updated.replace('"updated"', self.old("updated"))

    def at(self, seconds: str) -> str:
        """A time as `updated` has it."""
        raise NotImplementedError

    def old(self, column: str, table: str = "ratelimit") -> str:
        """A column of the row that is there."""
        return f'"{table}"."{column}"'

    def new(self, column: str) -> str:
        """What an INSERT gives to a column."""
        return f'excluded."{column}"'

    def conflict(self, *key: str) -> str:
        """What stands before the assignments to a row that is there already."""
        return "ON CONFLICT ({}) DO UPDATE SET".format(", ".join([f'"{column}"' for column in key]))

    def name(self, expression: str) -> str:
        """A sender, as it is to be read."""
        return expression

    def row(self, *more: str) -> str:
        """The values of a row, in the order of core/rows.py:read, and `more` columns."""
        fields = [self.name('"sender"'), *(f'"{field}"' for field in _FIELDS), self.updated, '"seen"', '"until"']
        return ", ".join(['"limit_name"', *fields, *(f'"{column}"' for column in more)])

    def among(self, column: str, count: int) -> str:
        """Whether a column is one of so many values, which `spread` gives."""
        return f'"{column}" IN ({", ".join(["%s"] * count)})'

    def spread(self, values: Sequence[object]) -> Sequence[object]:
        """The values for the marks of `among`."""
        return values

    def rows(self, kinds: str, count: int, *, touched: bool = False) -> str:
        """Where an INSERT takes so many rows from, with a letter for each column: t a text, n a number.

        `touched`: and `updated`.
        """
        row = ", ".join([*["%s"] * len(kinds), *([self.touch] if touched else [])])
        return f"VALUES {', '.join([f'({row})'] * count)}"

    def flat(self, rows: Sequence[Sequence[object]]) -> Sequence[object]:
        """The values for the marks of `rows`."""
        return list(chain.from_iterable(rows))

    # -- columns that may hold anything ------------------------------------------------------------------------------

    def value(self, column: str) -> str:
        """The number that a column holds, or NULL."""
        return self.old(column)

    def count(self, column: str, table: str = "ratelimit") -> str:
        """The number that a column holds; 0 for NULL, what is below, and what is none."""
        raise NotImplementedError

    def kept_quota(self) -> str:
        """The quota as it is."""
        return self.old("quota")

    def quota(self) -> str:
        """The quota; 0 for NULL and what is negative, NULL where it is none."""
        raise NotImplementedError

    def unreadable(self, column: str) -> str:
        """Whether a column holds something that is no number."""
        raise NotImplementedError

    def odd(self, column: str) -> str:
        """Whether a column says nothing readable of what was used."""
        return f"({self.unreadable(column)})"


class SQLite(Dialect):
    """SQLite. Any column may hold anything: its types are a habit."""

    now = "CAST(strftime('%%s', 'now') AS INTEGER)"
    updated = "CAST(strftime('%%s', \"updated\") AS INTEGER)"
    normal = "lower(trim(\"sender\", ' ' || char(9)))"

    def sql(self, names: "Names", statement: str) -> str:
        """With the marks of sqlite3."""
        return _MARK.sub(lambda mark: "?" if mark[0] == "%s" else "%", super().sql(names, statement))

    def greatest(self, one: str, other: str) -> str:
        """Its function of two arguments."""
        return f"max({one}, {other})"

    def least(self, one: str, other: str) -> str:
        """Its function of two arguments."""
        return f"min({one}, {other})"

    def differ(self, one: str, other: str) -> str:
        """Its IS takes any value."""
        return f"{one} IS NOT {other}"

    def at(self, seconds: str) -> str:
        """A text in UTC."""
        return f"datetime({seconds}, 'unixepoch')"

    def _number(self, of: str) -> str:
        text = f"CAST({of} AS TEXT)"
        return (
            f"CASE typeof({of}) WHEN 'integer' THEN max({of}, 0) WHEN 'null' THEN 0 ELSE "
            f"CASE WHEN {_short(text)} AND {_digits(text)} THEN CAST({text} AS INTEGER) END END"
        )

    def count(self, column: str, table: str = "ratelimit") -> str:
        """What is no number, or an odd one, is 0."""
        return f"IFNULL({self._number(self.old(column, table))}, 0)"

    def quota(self) -> str:
        """A text of a number is one."""
        quota = self.old("quota")
        text = f"CAST({quota} AS TEXT)"
        negative = f"{_short(text)} AND {text} GLOB '-*' AND {_digits(f'substr({text}, 2)')}"
        return f"CASE WHEN {negative} THEN 0 ELSE {self._number(quota)} END"

    def unreadable(self, column: str) -> str:
        """Whatever is no whole number."""
        return f"({self._number(self.old(column))}) IS NULL"

    def odd(self, column: str) -> str:
        """Also what is below 0."""
        return f"({self.unreadable(column)} OR {self.old(column)} < 0)"


class Typed(Dialect):
    """A database whose columns have types. `types` are those of the columns that hold whole numbers, by our names: these
    need not be looked at, and so a server takes half the time."""

    def __init__(self, types: Mapping[str, str] = {}) -> None:
        self._texts = NUMBERS - types.keys()
        self.may_be_odd = not all("unsigned" in types.get(column, "") for column in ("used", "expiry"))

    def _number(self, of: str) -> str:
        """The number that a text says, NULL where it is none."""
        raise NotImplementedError

    def _is_negative(self, of: str) -> str:
        """Whether a text is a number below 0."""
        raise NotImplementedError

    def value(self, column: str) -> str:
        """The column itself where it holds numbers alone."""
        return self._number(self.old(column)) if column in self._texts else self.old(column)

    def count(self, column: str, table: str = "ratelimit") -> str:
        """What is no number is 0."""
        number = self.value(column) if table == "ratelimit" else self._number(self.old(column, table))
        return f"GREATEST(COALESCE({number}, 0), 0)"

    def quota(self) -> str:
        """A text of a number is one."""
        if "quota" not in self._texts:
            return self.count("quota")
        quota = self.old("quota")
        unlimited = f"{quota} IS NULL OR {self._is_negative(quota)}"
        return f"CASE WHEN {unlimited} THEN 0 ELSE {self.value('quota')} END"

    def unreadable(self, column: str) -> str:
        """NULL is a number: 0."""
        return f"{self.old(column)} IS NOT NULL AND {self.value(column)} IS NULL"

    def odd(self, column: str) -> str:
        """Also what is below 0."""
        return f"({self.old(column)} IS NOT NULL AND {self._number(self.old(column))} IS NULL)"


class MySQL(Typed):
    """MySQL and MariaDB. A column that somebody made may hold NULL or a text, and in strict mode one text that is no
    number fails a whole statement."""

    quote = "`"
    now = "UNIX_TIMESTAMP()"
    updated = 'UNIX_TIMESTAMP("updated")'
    assigns_in_turn = True
    deletes_in_order = True
    normal = 'LOWER(TRIM("sender"))'
    parts = "GROUP_CONCAT(CONCAT(\"expiry\", ' ', REPLACE(\"used\", ';', '?'), ';') ORDER BY \"expiry\" SEPARATOR '')"

    _FRACTION: ClassVar[str] = "(2E(30)*)?"
    # As HEX shows a text, of any character set. 12.00 is a whole number, too, which strict mode refuses to CAST.
    _DIGITS: ClassVar[str] = f"^(3[0-9]){{1,19}}{_FRACTION}$"
    _NEGATIVE: ClassVar[str] = f"^2D(3[0-9]){{1,18}}{_FRACTION}$"

    def differ(self, one: str, other: str) -> str:
        """Its own operator."""
        return f"NOT ({one} <=> {other})"

    def at(self, seconds: str) -> str:
        """In the session's time zone, which is UTC."""
        return f"FROM_UNIXTIME({seconds})"

    def new(self, column: str) -> str:
        """MariaDB knows no other way."""
        return f'VALUES("{column}")'

    def conflict(self, *key: str) -> str:
        """It finds the key by itself."""
        return "ON DUPLICATE KEY UPDATE"

    def name(self, expression: str) -> str:
        """As bytes: the driver would give up the whole result for one text that is not UTF-8."""
        return f"CAST({expression} AS BINARY)"

    def _number(self, of: str) -> str:
        text = f"CONCAT({of})"
        return (
            f"CASE WHEN HEX({text}) REGEXP '{self._DIGITS}' THEN CAST(SUBSTRING_INDEX({text}, '.', 1) AS UNSIGNED) END"
        )

    def _is_negative(self, of: str) -> str:
        return f"HEX(CONCAT({of})) REGEXP '{self._NEGATIVE}'"


class PostgreSQL(Typed):
    """PostgreSQL. A column that somebody made may hold a text, and one that is no number fails a whole statement."""

    now = "FLOOR(EXTRACT(EPOCH FROM statement_timestamp()))::bigint"
    touch = "date_trunc('second', statement_timestamp())"  # CURRENT_TIMESTAMP is when the transaction began
    updated = 'CASE WHEN isfinite("updated") THEN EXTRACT(EPOCH FROM "updated")::bigint END'
    normal = "lower(btrim(\"sender\", ' ' || chr(9)))"
    parts = "string_agg(\"expiry\" || ' ' || \"used\" || ';', '' ORDER BY \"expiry\")"

    _DIGITS: ClassVar[str] = "^[0-9]{1,19}([.]0*)?$"
    _NEGATIVE: ClassVar[str] = "^-[0-9]{1,18}([.]0*)?$"
    _KINDS: ClassVar[Mapping[str, str]] = {"t": "%s::text[]", "n": "%s::bigint[]"}

    def sql(self, names: "Names", statement: str) -> str:
        """With numbered marks."""
        return _numbered(super().sql(names, statement))

    def at(self, seconds: str) -> str:
        """An instant."""
        return f"to_timestamp({seconds})"

    def row(self, *more: str) -> str:
        """As one value: libpq is asked for values one by one."""
        return f"json_build_array({super().row(*more)})"

    def among(self, column: str, count: int) -> str:
        """One value for any number: an array."""
        return f'"{column}" = ANY (%s)'

    def spread(self, values: Sequence[object]) -> Sequence[object]:
        """An array."""
        return (list(values),)

    def rows(self, kinds: str, count: int, *, touched: bool = False) -> str:
        """The columns as arrays: the statement is the same for any number of rows."""
        arrays = ", ".join(self._KINDS[kind] for kind in kinds)
        return f"SELECT *{f', {self.touch}' if touched else ''} FROM unnest({arrays})"

    def flat(self, rows: Sequence[Sequence[object]]) -> Sequence[object]:
        """The columns."""
        return [list(column) for column in zip(*rows, strict=True)]

    def count(self, column: str, table: str = "ratelimit") -> str:
        """With room for an addition."""
        return f"LEAST({super().count(column, table)}, {_NO_BOUND})"

    def kept_quota(self) -> str:
        """A text as a number: all results of an expression are of one type."""
        return self.quota() if "quota" in self._texts else self.old("quota")

    def _number(self, of: str) -> str:
        text = f"{of}::text"
        return (
            f"CASE WHEN {text} ~ '{self._DIGITS}' "
            f"THEN LEAST(split_part({text}, '.', 1)::numeric, {_NO_BOUND})::bigint END"
        )

    def _is_negative(self, of: str) -> str:
        return f"{of}::text ~ '{self._NEGATIVE}'"


def _short(text: str) -> str:
    """Whether a text has the length of a number; what stands behind a NUL is seen by no other function."""
    return f"length({text}) BETWEEN 1 AND 18 AND length({text}) = length(CAST({text} AS BLOB))"


def _digits(text: str) -> str:
    """Whether a text begins with digits, and has nothing behind them but a fraction of zeros."""
    return f"{text} GLOB '[0-9]*' AND rtrim(ltrim({text}, '0123456789'), '0') IN ('', '.')"


@lru_cache(256)
def _applied(names: "Names", statement: str, quote: str) -> str:
    return names.apply(statement, quote)


@lru_cache(256)
def _numbered(statement: str) -> str:
    count = iter(range(1, 65536))
    return _MARK.sub(lambda mark: f"${next(count)}" if mark[0] == "%s" else "%", statement)
