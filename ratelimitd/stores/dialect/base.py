"""What may differ, and what most databases understand.

A statement has its names between double quotes, `%s` where a value goes and `%%` for a percent sign; `Dialect.sql`
makes it this database's. Here are also the ways in which a column is read that somebody may have filled with nonsense:
what has a plain meaning counts, as in core/rows.py:read, and no value fails a statement or loses a count.
"""

import re
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from ratelimitd.stores import Names

MARK = re.compile("%[s%]")
LONG = 4096
"""Characters: longer are statements with the time of a flush in them, of up to 65 KB."""

_FIELDS = ("quota", "configured", "persist", "used", "expiry")
_MORE = ("seen", "until", "in_parts")


def remembered(make: Callable[..., str]) -> Callable[..., str]:
    """Have what is made of statements remembered: of long ones the last few, for the next flush has others."""
    of_short, of_long = lru_cache(256)(make), lru_cache(4)(make)

    def made(statement: str, *args: Hashable) -> str:
        return (of_long if len(statement) > LONG else of_short)(statement, *args)

    return made


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
    default_of: ClassVar[str]
    """The DEFAULT of a table's column, for (table, column) as the database has them."""

    def sql(self, names: "Names", statement: str) -> str:
        """A statement with the configured names, as this database's driver takes it."""
        return _applied(statement, names, self.quote)

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
        before = ['"limit_name"', self.name('"sender"'), *(f'"{field}"' for field in _FIELDS)]
        return ", ".join([*before, self.updated, *(f'"{column}"' for column in (*_MORE, *more))])

    def among(self, column: str, count: int) -> str:
        """Whether a column is one of so many values, which `spread` gives."""
        return f'"{column}" IN ({", ".join(["%s"] * count)})'

    def parts(self, accounts: int) -> str:
        """The parts of so many accounts of a limit, a text for each, `LEAVES USED;` for each part.

        For (limit, after, until, keys), the keys as `spread` gives them.
        """
        raise NotImplementedError

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

    def beyond(self) -> str:
        """Whether a row of the history stands after a place, in the order of the primary key; `spot` has the values."""
        return '("sender", "limit_name", "expiry") > (%s, %s, %s)'

    def spot(self, key: str, limit: str, expiry: int) -> Sequence[object]:
        """The values for the marks of `beyond`."""
        return key, limit, expiry

    # -- columns that may hold anything ------------------------------------------------------------------------------

    def value(self, column: str) -> str:
        """The number that a column holds, or NULL."""
        return self.old(column)

    def whole(self, column: str) -> str:
        """The number that a column holds, from 0 on; NULL for NULL, and where it is none."""
        return self.value(column)

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


@remembered
def _applied(statement: str, names: "Names", quote: str) -> str:
    return names.apply(statement, quote)
