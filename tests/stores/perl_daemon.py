"""What the Perl daemon ratelimit-policyd does to its table: its four statements, when it runs each, and its memory.

It is not the daemon: it answers no Postfix, and its clock is the caller's.
"""

from contextlib import suppress
from dataclasses import dataclass

from tests.instances.sqlclient import SQLError
from tests.stores.backends import Sql

DEFAULT_QUOTA = 1000


@dataclass
class _Known:
    """What it keeps of an account until it writes, every 30 s and when it is stopped."""

    quota: int
    tally: int
    expiry: int
    persist: bool
    sum: int = 0


class PerlDaemon:
    """One run of it on a database; `next_expiry` is the end of the period that begins with a reset."""

    def __init__(self, sql: Sql, next_expiry: int) -> None:
        self._sql = sql
        self._next_expiry = next_expiry
        self._known: dict[str, _Known] = {}

    def ask(self, sender: str, recipients: int, now: int) -> str:
        """The reply to a message, and the line's status."""
        if sender not in self._known:
            select = (
                "SELECT `quota`, `used`, `expiry`, `persist` FROM `ratelimit` WHERE `sender` = '{}' AND `quota` > 0"
            )
            rows = self._sql(select.format(sender))
            if not rows:
                with suppress(SQLError):  # it logs what fails: of a quota of 0 the row is there
                    self._sql(
                        "INSERT INTO `ratelimit` (`sender`, `quota`, `used`, `expiry`) "
                        f"VALUES ('{sender}', {DEFAULT_QUOTA}, {recipients}, {self._next_expiry})"
                    )
                return "dunno INSERT"
            for row in rows:
                self._known[sender] = _Known(int(row[0]), int(row[1]), int(row[2]), row[3] == "1")
        one = self._known[sender]
        if one.expiry < now:
            one.sum, one.tally, one.expiry = 0, 0, self._next_expiry
            quota = one.quota if one.persist else DEFAULT_QUOTA
            self._sql(
                f"UPDATE `ratelimit` SET `quota` = {quota}, `used` = 0, `updated` = NOW(), `expiry` = {one.expiry} "
                f"WHERE `sender` = '{sender}'"
            )
        one.tally += recipients
        one.sum += recipients
        return "471 OVER_QUOTA" if one.tally > one.quota else "dunno UPDATE"

    def write(self) -> None:
        """What it does every 30 s, and when it is stopped: memory is written and forgotten."""
        for sender, one in self._known.items():
            self._sql(
                f"UPDATE `ratelimit` SET `used` = `used` + {one.sum}, `updated` = NOW(), `expiry` = {one.expiry} "
                f"WHERE `sender` = '{sender}'"
            )
        self._known = {}
