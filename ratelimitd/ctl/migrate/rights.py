"""What the account of a MySQL or MariaDB database may do, by SHOW GRANTS; the GRANT of what it lacks.

Unlike the daemon (stores/mysql/rights.py), which counts in tables that are there, a migration must know the rights that
no column shows, and before its first statement: of those that change tables none can be taken back.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ratelimitd.errors import StoreError
from ratelimitd.stores.mysql.rights import who
from ratelimitd.stores.shared.session import Session

_NAME = r"(?:`(?:[^`]|``)+`|\*)"
_LINE = re.compile(rf"(?P<verb>GRANT|REVOKE) (?P<rights>.+?) ON (?P<where>{_NAME})\.(?P<table>{_NAME}) (?:TO|FROM) ")
_OF_COLUMNS = re.compile(r"\w[\w ]*\([^)]*\)")
_ALL = "ALL PRIVILEGES"
ON_ROWS = ("SELECT", "INSERT", "UPDATE", "DELETE")
"""What any use of a table of ours needs."""
_ONE_BY_ONE = ("DROP",)
"""Rights that are asked for of single tables: with them somebody could remove what is counted."""


class _Granted(NamedTuple):
    rights: frozenset[str]
    database: str
    table: str
    taken: bool

    def covers(self, right: str, database: str, table: str) -> bool:
        if self.table != "*" and self.table != table:
            return False
        if not self.rights & {right, _ALL}:
            return False
        return self.database == "*" or bool(re.fullmatch(_pattern(self.database, plain=self.table != "*"), database))


class Rights:
    """What SHOW GRANTS says, with the roles that are active in the session."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._granted: list[_Granted] = []
        for line in lines:
            if match := _LINE.match(line):
                rights = frozenset(right.strip() for right in _OF_COLUMNS.sub("", match["rights"]).split(","))
                where, table = _unquoted(match["where"]), _unquoted(match["table"])
                self._granted.append(_Granted(rights, where, table, taken=match["verb"] == "REVOKE"))

    def may(self, right: str, database: str, table: str) -> bool:
        """Whether a right is granted on a table. A REVOKE takes away what is granted on all databases alone."""
        found = [one for one in self._granted if one.covers(right, database, table)]
        taken = any(one.taken for one in found)
        return any(not one.taken and not (taken and one.database == "*") for one in found)


async def lacking(session: Session, needed: Mapping[str, Iterable[str]]) -> str:
    """The statements that give the account what it lacks of the `needed` rights by table; "": it lacks nothing.

    So does one of whose rights the server does not say anything.
    """
    try:
        lines = [str(line) for (line,) in await session.run("SHOW GRANTS")]
    except StoreError:  # then the statements themselves show it
        return ""
    account, database = await who(session)
    rights, of_all, of_one = Rights(lines), dict[str, None](), list[str]()
    for table, wanted in needed.items():
        for right in wanted:
            if rights.may(right, database, table):
                continue
            if right in _ONE_BY_ONE:
                of_one.append(f"GRANT {right} ON `{database}`.`{table}` TO {account};")
            else:
                of_all[right] = None
    everywhere = [f"GRANT {', '.join(of_all)} ON `{database}`.* TO {account};"] if of_all else []
    return " ".join([*everywhere, *of_one])


def _unquoted(name: str) -> str:
    return name[1:-1].replace("``", "`") if name.startswith("`") else name


def _pattern(name: str, *, plain: bool) -> str:
    """A regular expression for a database's name in a GRANT: one on all tables is a pattern, as of LIKE."""
    if plain:
        return re.escape(name)
    wild = {"%": ".*", "_": "."}
    return "".join(re.escape(part[-1]) if len(part) > 1 else wild.get(part, re.escape(part)) for part in _parts(name))


def _parts(name: str) -> list[str]:
    return re.findall(r"\\.|.", name, re.DOTALL)
