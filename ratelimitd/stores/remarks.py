"""What a store has to say in the log: rows that make no sense, and what it may not change; each is said once.

Here are also the rows themselves made: the one place where a database's values become a Row.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ratelimitd.core.rows import Account, Row, Unreadable, read, shown

MAX_SAID = 1000
"""So much that was said is remembered, and no more is said than that: a table of nonsense does not fill the log."""


class Remark(NamedTuple):
    """A line for the log. `must`: the daemon does not work as it should until somebody has changed what it says."""

    event: str
    fields: tuple[tuple[str, object], ...]
    must: bool = False

    @property
    def said(self) -> str:
        """Its fields, for people."""
        return ", ".join(f"{name} {value}" for name, value in self.fields)


class Remarks:
    """`set_aside` counts the rows that were left out, each time that one was read.

    `unread`: accounts whose row says nothing readable of their use, or did when a flush wrote it, so that it holds the
    flush's charges alone. Whoever gives these rows what they lack removes them. `given_up`: changes of a table that
    took too long, and are not tried again.
    """

    def __init__(self) -> None:
        self.set_aside = 0
        self.unread: dict[Account, None] = {}
        self.given_up: set[str] = set()
        self._said: set[Remark] = set()
        self._waiting: list[Remark] = []

    def add(self, event: str, **fields: object) -> None:
        """Have this said, unless it was."""
        self._add(Remark(event, tuple(fields.items())))

    def demand(self, event: str, statement: str) -> None:
        """Have it said, unless it was, that somebody must run a statement."""
        self._add(Remark(event, (("statement", statement),), must=True))

    def _add(self, remark: Remark) -> None:
        if remark in self._said:
            return
        if len(self._said) >= MAX_SAID:
            remark = Remark("more is wrong in the database than is said here", ())
            if remark in self._said:
                return
        self._said.add(remark)
        self._waiting.append(remark)

    def refused(self, limit: str, key: str, reason: object) -> None:
        """Have it said that the database refuses a change of a row: the row stays as it is."""
        self.add("the database refuses to change a row; it stays as it is",
                 limit=shown(limit), key=shown(key), reason=shown(reason))  # fmt: skip

    def take(self) -> list[Remark]:
        """What is to be said, once."""
        waiting, self._waiting = self._waiting, []
        return waiting

    def rows(self, found: Iterable[Sequence[object]], left_out: set[Account] | None = None) -> list[Row]:
        """The rows of these values, without those that make no sense: their accounts are added to `left_out`."""
        rows: list[Row] = []
        for values in found:
            row = read(values)
            if isinstance(row, Unreadable):
                self.set_aside += 1
                limit, key = values[:2] if len(values) > 1 else ("", "")
                account = Account(str(limit), str(key))
                if row.of_use:
                    self.unread[account] = None
                if left_out is not None:
                    left_out.add(account)
                self.add("a row of the database makes no sense; its account counts as configured", **row._asdict())
            else:
                rows.append(row)
        return rows
