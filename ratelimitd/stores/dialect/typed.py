"""The ways of databases whose columns have types: MySQL and MariaDB, PostgreSQL."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from ratelimitd.core.rows import MAX_USED
from ratelimitd.stores.dialect.base import MARK, Dialect, remembered

if TYPE_CHECKING:
    from ratelimitd.stores import Names

NUMBERS = frozenset({"quota", "configured", "seen", "until", "persist", "used", "in_parts", "expiry"})
"""The columns of `ratelimit` that hold numbers."""
_NO_BOUND = 1 << 62


class Typed(Dialect):
    """A database whose columns have types. `types` are those of the columns that hold whole numbers, by our names:
    these need not be looked at, and so a server takes half the time."""

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

    def whole(self, column: str) -> str:
        """NULL also for what is below 0."""
        value = self.value(column)
        return value if column in self._texts else f"CASE WHEN {value} >= 0 THEN {value} END"

    def count(self, column: str, table: str = "ratelimit") -> str:
        """What is no number is 0."""
        number = self.value(column) if table == "ratelimit" else self._number(self.old(column, table))
        return f"GREATEST(COALESCE({number}, 0), 0)"

    def quota(self) -> str:
        """A text of a number is one. It is no more than `seen` can hold."""
        if "quota" not in self._texts:
            return self.least(self.count("quota"), str(MAX_USED))
        quota = self.old("quota")
        unlimited = f"{quota} IS NULL OR {self._is_negative(quota)}"
        value = self.value("quota")  # PostgreSQL's LEAST passes over NULL
        return f"CASE WHEN {unlimited} THEN 0 WHEN {value} > {MAX_USED} THEN {MAX_USED} ELSE {value} END"

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
    default_of = (
        "SELECT COLUMN_DEFAULT FROM information_schema.COLUMNS "
        "WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = %s AND COLUMN_NAME = %s"
    )

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

    def beyond(self) -> str:
        """In full: of a comparison of rows it would use the first column alone."""
        own = '"sender" = %s AND "limit_name"'
        return f'("sender" > %s OR ({own} > %s) OR ({own} = %s AND "expiry" > %s))'

    def spot(self, key: str, limit: str, expiry: int) -> Sequence[object]:
        """Each as often as it is named."""
        return key, key, limit, key, limit, expiry

    def name(self, expression: str) -> str:
        """As bytes: the driver would give up the whole result for one text that is not UTF-8."""
        return f"CAST({expression} AS BINARY)"

    def _number(self, of: str) -> str:
        text = f"CONCAT({of})"
        return (
            f"CASE WHEN HEX({text}) REGEXP '{self._DIGITS}' THEN CAST(SUBSTRING_INDEX({text}, '.', 1) AS UNSIGNED) END"
        )

    def parts(self, accounts: int) -> str:
        """In order, for a text that is too long is cut off."""
        part = "CONCAT(\"expiry\", ' ', REPLACE(\"used\", ';', '?'), ';')"
        return f"""
SELECT {self.name('"sender"')}, GROUP_CONCAT({part} ORDER BY "expiry" SEPARATOR '') FROM "ratelimit_history"
WHERE "limit_name" = %s AND "expiry" > %s AND "expiry" <= %s AND {self.among("sender", accounts)} GROUP BY "sender"
"""

    def _is_negative(self, of: str) -> str:
        return f"HEX(CONCAT({of})) REGEXP '{self._NEGATIVE}'"


class PostgreSQL(Typed):
    """PostgreSQL. A column that somebody made may hold a text, and one that is no number fails a whole statement."""

    now = "(SELECT FLOOR(EXTRACT(EPOCH FROM statement_timestamp()))::bigint)"  # evaluated once, not for each row
    touch = "date_trunc('second', statement_timestamp())"  # CURRENT_TIMESTAMP is when the transaction began
    updated = 'CASE WHEN isfinite("updated") THEN FLOOR(EXTRACT(EPOCH FROM "updated"))::bigint END'
    normal = "lower(btrim(\"sender\", ' ' || chr(9)))"
    default_of = (  # information_schema shows it to the owner alone
        "SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef JOIN pg_attribute ON attrelid = adrelid AND attnum = adnum "
        "WHERE adrelid = to_regclass(quote_ident(%s)) AND attname = %s"
    )

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

    def new(self, column: str) -> str:
        """It is of the column's type, so in one of texts a text."""
        return super().new(column) + ("::bigint" if column in self._texts else "")

    def parts(self, accounts: int) -> str:
        """By the primary key alone: without statistics the server would read all that has not ended, for each.

        What is named here has a blank in its name, which no column can be configured to have.
        """
        place = ", ".join(f'"{column}"' for column in self.place)
        part = "\"expiry\" || ' ' || replace(\"used\"::text, ';', '?') || ';'"
        return f"""
SELECT "a key", string_agg("a part", '' ORDER BY "expiry")
FROM (SELECT %s::text AS "a limit", %s::bigint AS "left by", %s::bigint AS "at most") AS "is asked"
CROSS JOIN unnest(%s::text[]) AS "a key" CROSS JOIN LATERAL (
    SELECT "expiry", {part} AS "a part" FROM "ratelimit_history"
    WHERE ({place}) > ("a key", "a limit", "left by") AND ({place}) <= ("a key", "a limit", "at most")
) AS "its parts" GROUP BY "a key"
"""

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


@remembered
def _numbered(statement: str) -> str:
    count = iter(range(1, 65536))
    return MARK.sub(lambda mark: f"${next(count)}" if mark[0] == "%s" else "%", statement)
