"""Senders as the Perl daemon has them become keys: each is normalised, and rows of one account are merged."""

import time
from collections.abc import Iterable
from math import inf
from typing import NamedTuple

from ratelimitd.config.read import Configuration
from ratelimitd.core.limits import UNLIMITED, Limit
from ratelimitd.ctl.migrate.steps import Steps
from ratelimitd.keys import normalise
from ratelimitd.stores import MAX_USED
from ratelimitd.text import counted

PAGE = 5000


class OldRow(NamedTuple):
    """What matters of a row when it is merged with another."""

    id: int
    limit: str
    sender: str
    persist: int
    quota: int
    configured: int | None
    used: int
    expiry: int

    def __str__(self) -> str:
        quota = "unlimited" if self.quota == UNLIMITED else f"quota {self.quota}"
        return f'"{self.sender}" (used {self.used}, {quota}{", persist" if self.persist else ""})'


class Senders:
    """The senders of one table."""

    def __init__(self, config: Configuration, steps: Steps) -> None:
        self._keys = config.settings.keys
        self._limits = {limit.name: limit for limit in config.limits}
        self._steps = steps

    async def normalise(self, *, migrated: bool) -> None:
        """Normalise every sender; rows whose senders become the same are merged. Raises StoreError.

        `migrated`: the table is ours already, which in a dry run it may not be.
        """
        limit_name = "`limit_name`" if migrated else f"'{self._steps.names.limit}'"
        groups: dict[tuple[str, str], list[str]] = {}
        seen = rows = 0
        select = self._steps.sql(
            f"SELECT `id`, {limit_name}, `sender` FROM `ratelimit` WHERE `id` > %s ORDER BY `id` LIMIT %s"
        )
        while page := await self._steps.session.run(select, (seen, PAGE)):
            seen = page[-1][0]
            rows += len(page)
            for _, limit, sender in page:
                normal = self._normal(limit, text_of(sender))
                if normal and normal != text_of(sender):
                    groups.setdefault((limit, normal), []).append(text_of(sender))
        odd = sum(map(len, groups.values()))
        self._steps.say(f"{counted(rows, 'row')}, {odd} with a sender that is not normalised")
        configured = "`configured`" if migrated else "NULL"
        fields = f"`id`, {limit_name}, `sender`, `persist`, `quota`, {configured}, `used`, `expiry`"
        for (limit, normal), senders in sorted(groups.items()):
            await self._merge(fields, limit_name, limit, normal, [normal, *senders])

    def _normal(self, limit_name: str, sender: str) -> str:
        limit: Limit | None = self._limits.get(limit_name)
        if limit is None:
            return sender
        sender = sender.strip(" \t")
        if limit.key_name == "email":
            sender = self._keys.login_rules.login(sender)
        return normalise(sender, self._keys.lowercase)

    async def _merge(self, fields: str, limit_name: str, limit: str, normal: str, senders: list[str]) -> None:
        run = self._steps.session.run
        marks = ", ".join(["%s"] * len(senders))
        select = f"SELECT {fields} FROM `ratelimit` WHERE {limit_name} = %s AND `sender` IN ({marks})"
        if not self._steps.dry_run:
            await run("START TRANSACTION")
        lock = "" if self._steps.dry_run else " FOR UPDATE"
        found = await run(self._steps.sql(f"{select} ORDER BY `id`{lock}"), (limit, *senders))
        rows = [OldRow(row[0], row[1], text_of(row[2]), *row[3:]) for row in found]
        rows = [row for row in rows if self._normal(limit, row.sender) == normal]
        merged = merge(rows, normal, int(time.time()))
        line = f"{' and '.join(map(str, rows))} -> {merged}"
        if self._steps.dry_run:
            self._steps.say(line)
            return
        for row in rows:
            if row.id != merged.id:
                await run(self._steps.sql("DELETE FROM `ratelimit` WHERE `id` = %s"), (row.id,))
        update = (
            "UPDATE `ratelimit` SET `sender` = %s, `persist` = %s, `quota` = %s, `configured` = %s, `used` = %s, "
            "`in_parts` = NULL, `expiry` = %s, `updated` = `updated` WHERE `id` = %s"
        )
        await run(self._steps.sql(update), (normal, *merged[3:], merged.id))
        await self._steps.session.commit()
        self._steps.say(line)


def merge(rows: Iterable[OldRow], normal: str, now: int) -> OldRow:
    """One row from several: the sum of their current uses, the largest quota, persist if any has it.

    It keeps the id of the row that had the normalised sender, else the lowest.
    """
    rows = sorted(rows)
    kept = next((row for row in rows if row.sender == normal), rows[0])
    expiry = max(row.expiry for row in rows)
    counted = [row for row in rows if row.expiry > now or row.expiry == expiry]
    largest = max(rows, key=lambda row: inf if row.quota == UNLIMITED else row.quota)
    return kept._replace(
        sender=normal,
        persist=max(row.persist for row in rows),
        quota=largest.quota,
        configured=largest.configured,
        used=min(sum(row.used for row in counted), MAX_USED),
        expiry=expiry,
    )


def text_of(sender: str | bytes) -> str:
    """A sender as text, also where the column is none of texts."""
    return sender.decode("utf-8", "replace") if isinstance(sender, bytes) else sender
