"""SQLite's way."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ratelimitd.stores.dialect.base import MARK, Dialect, remembered

if TYPE_CHECKING:
    from ratelimitd.stores import Names


class SQLite(Dialect):
    """SQLite. Any column may hold anything: its types are a habit."""

    now = "CAST(strftime('%%s', 'now') AS INTEGER)"
    updated = "CAST(strftime('%%s', \"updated\") AS INTEGER)"
    normal = "lower(trim(\"sender\", ' ' || char(9)))"

    def sql(self, names: "Names", statement: str) -> str:
        """With the marks of sqlite3."""
        return _marked(super().sql(names, statement))

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

    def beyond(self) -> str:
        """A text that is not UTF-8 goes as bytes; what is no text stands after all texts, and is no name. The signs
        take the affinity of the texts away: with it SQLite would look at the first column alone."""
        kinds = {"sender": "text", "limit_name": "text", "expiry": "integer"}
        are = " AND ".join(f"typeof(\"{column}\") = '{kind}'" for column, kind in kinds.items())
        return f'{are} AND ("sender", "limit_name", "expiry") > (+CAST(%s AS TEXT), +CAST(%s AS TEXT), %s)'

    def spot(self, key: str, limit: str, expiry: int) -> Sequence[object]:
        """As bytes."""
        return key.encode(errors="surrogateescape"), limit.encode(errors="surrogateescape"), expiry

    def _number(self, of: str) -> str:
        text = f"CAST({of} AS TEXT)"
        return (
            f"CASE typeof({of}) WHEN 'integer' THEN max({of}, 0) WHEN 'null' THEN 0 ELSE "
            f"CASE WHEN {_short(text)} AND {_digits(text)} THEN CAST({text} AS INTEGER) END END"
        )

    def whole(self, column: str) -> str:
        """A text of a number is one."""
        return f"CASE WHEN {self.old(column)} IS NOT NULL THEN {self._number(self.old(column))} END"

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


def _short(text: str) -> str:
    """Whether a text has the length of a number; what stands behind a NUL is seen by no other function."""
    return f"length({text}) BETWEEN 1 AND 18 AND length({text}) = length(CAST({text} AS BLOB))"


def _digits(text: str) -> str:
    """Whether a text begins with digits, and has nothing behind them but a fraction of zeros."""
    return f"{text} GLOB '[0-9]*' AND rtrim(ltrim({text}, '0123456789'), '0') IN ('', '.')"


@remembered
def _marked(statement: str) -> str:
    return MARK.sub(lambda mark: "?" if mark[0] == "%s" else "%", statement)
