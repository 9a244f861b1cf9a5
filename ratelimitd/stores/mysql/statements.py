"""The MySQL store's statements: what a flush and an administrator write, whatever stands in the row.

A column that somebody made may hold NULL or a text. In strict mode one text that is no number fails a whole statement,
so none is used as a number before it is known to be one: what has a plain meaning counts, as in core/rows.py:read, and
something readable takes the place of the rest, so that no count is lost to it.
"""

from collections.abc import Mapping

from ratelimitd.core.rows import MAX_USED, Delta

# The sender as bytes: the driver would give up the whole result for one text that is not UTF-8.
ROW = (
    "`limit_name`, CAST(`sender` AS BINARY), `quota`, `configured`, `persist`, `used`, `expiry`, "
    "UNIX_TIMESTAMP(`updated`), `seen`, `until`, `in_parts`"
)
VALUES = "(%s, %s, %s, %s, %s, %s, %s, CURRENT_TIMESTAMP)"
_FRACTION = "(2E(30)*)?"
_DIGITS = f"^(3[0-9]){{1,19}}{_FRACTION}$"
"""A whole number as HEX shows its text: a pattern that a text of any character set can be matched with.

12.00 is one, too; strict mode refuses to CAST a text of it as a whole.
"""


NUMBERS = frozenset({"quota", "configured", "seen", "until", "persist", "used", "in_parts", "expiry"})
"""The columns that hold numbers. Those of them that may hold anything, `texts`, are looked at before they are used."""
_NEGATIVE = f"^2D(3[0-9]){{1,18}}{_FRACTION}$"


def _number(column: str, texts: frozenset[str] = NUMBERS) -> str:
    """The whole number that a column holds; NULL where it is none."""
    if column not in texts:
        return f"`{column}`"
    text = f"CONCAT(`{column}`)"
    return f"CASE WHEN HEX({text}) REGEXP '{_DIGITS}' THEN CAST(SUBSTRING_INDEX({text}, '.', 1) AS UNSIGNED) END"


def _count(column: str, texts: frozenset[str] = NUMBERS) -> str:
    """The same; 0 where it is none, or below."""
    return f"GREATEST(COALESCE({_number(column, texts)}, 0), 0)"


def _quota(texts: frozenset[str] = NUMBERS) -> str:
    """The quota, NULL where it is none; NULL and what is negative are unlimited. No more than `seen` can hold."""
    if "quota" not in texts:
        return f"LEAST({_count('quota', texts)}, {MAX_USED})"
    unlimited = f"`quota` IS NULL OR HEX(CONCAT(`quota`)) REGEXP '{_NEGATIVE}'"
    return f"CASE WHEN {unlimited} THEN 0 ELSE LEAST({_number('quota')}, {MAX_USED}) END"


def _window(latest: int, texts: frozenset[str] = NUMBERS) -> str:
    """The end of the row's window, 0 for none."""
    expiry = _count("expiry", texts)
    return f"CASE WHEN {expiry} > {latest} THEN 0 ELSE {expiry} END"


def upsert(one: Delta, rows: str, texts: frozenset[str] = NUMBERS) -> str:
    """Add deltas (limit, key, expiry, used, quota, configured, seen) whose other fields are as this one's.

    `rows`: VALUES for each. With no `texts`, as in a table of ours, a server takes half the time.

    Of a sliding limit `used` is 0, and neither it nor the end of the row's window is changed. What was counted in parts
    is one with any window that runs.

    Assigned from left to right: quota needs the old configured, seen, until, expiry and updated, used the old expiry,
    and all of them the old in_parts.
    """
    window, quota, apart_s = _window(one.latest, texts), _quota(texts), one.apart_s
    until = _count("until", texts)
    both_run = f"LEAST({window}, VALUES(`expiry`)) > {one.now}"
    apart = f"GREATEST({window}, VALUES(`expiry`)) - LEAST({window}, VALUES(`expiry`))"
    slid = f"`in_parts` IS NOT NULL AND {both_run}"
    same = f"({slid} OR {apart} < IF({both_run}, {max(apart_s, one.overlap_s)}, {apart_s}))"
    if one.sliding:
        both_run, same = "FALSE", f"{window} > {one.now}"
    row_ends_both = f"{both_run} AND NOT ({slid}) AND {same} AND {window} + {apart_s} < VALUES(`expiry`)"
    # What was given since the window ended (of the delta, if that has ended, too) is for the one to come.
    given_since = (
        f"NOT ({quota} <=> {_number('seen', texts)}) AND COALESCE(UNIX_TIMESTAMP(`updated`), 0) >= "
        f"IF(VALUES(`expiry`) <= UNIX_TIMESTAMP(), VALUES(`expiry`), {window})"
    )
    assigned = f"""`used` = CASE WHEN {same} THEN LEAST({_count("used", texts)} + VALUES(`used`), {MAX_USED})
                  WHEN {window} < VALUES(`expiry`) THEN VALUES(`used`)
                  ELSE {_count("used", texts)} END,
    `expiry` = IF({row_ends_both}, {window}, GREATEST({window}, VALUES(`expiry`))),
    `in_parts` = NULL"""
    if one.sliding:  # what becomes of them, the parts say: history.py
        unreadable = f"`used` IS NOT NULL AND {_number('used', texts)} IS NULL"
        assigned = f"""`in_parts` = {_number("in_parts", texts)},
    `used` = IF({unreadable}, COALESCE(`in_parts`, 0), {_count("used", texts)}),
    `expiry` = {_count("expiry", texts)}"""
    return f"""
INSERT INTO `ratelimit` (`limit_name`, `sender`, `expiry`, `used`, `quota`, `configured`, `seen`, `updated`)
VALUES {rows}
ON DUPLICATE KEY UPDATE
    `persist` = IF({quota} IS NULL, 0, {_count("persist", texts)}),
    `quota` = CASE WHEN {quota} IS NULL THEN VALUES(`configured`)
                   WHEN `persist` = 1 OR {until} > UNIX_TIMESTAMP() THEN `quota`
                   WHEN {until} > 0 AND ({quota} <=> {_number("seen", texts)}
                        OR COALESCE(UNIX_TIMESTAMP(`updated`), 0) < {until}) THEN VALUES(`configured`)
                   WHEN {quota} = {_number("configured", texts)} THEN VALUES(`configured`)
                   WHEN {window} > VALUES(`expiry`) THEN `quota`
                   WHEN {given_since} THEN `quota`
                   WHEN VALUES(`expiry`) <= UNIX_TIMESTAMP() THEN VALUES(`configured`)
                   WHEN {window} < VALUES(`expiry`) AND NOT ({same}) THEN VALUES(`quota`)
                   ELSE `quota` END,
    `seen` = IF(GREATEST({window}, VALUES(`expiry`)) <= UNIX_TIMESTAMP() AND {quota} <> VALUES(`configured`),
                {_number("seen", texts)}, {quota}),
    `until` = CASE WHEN {until} > UNIX_TIMESTAMP() THEN {until} END,
    `configured` = VALUES(`configured`),
    {assigned},
    `updated` = CURRENT_TIMESTAMP
"""


def grant(latest: int, now: int) -> str:
    """Give a quota: (limit, key, quota, configured, persist, expiry, seen, until)."""
    window = _window(latest)
    return f"""
INSERT INTO `ratelimit`
    (`limit_name`, `sender`, `quota`, `configured`, `persist`, `expiry`, `seen`, `until`, `used`, `updated`)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, 0, CURRENT_TIMESTAMP)
ON DUPLICATE KEY UPDATE
    `used` = CASE WHEN {window} > {now} THEN {_count("used")} ELSE 0 END,
    `expiry` = CASE WHEN {window} > {now} THEN {window} ELSE VALUES(`expiry`) END,
    `quota` = VALUES(`quota`), `configured` = VALUES(`configured`), `persist` = VALUES(`persist`),
    `seen` = VALUES(`seen`), `until` = VALUES(`until`), `updated` = CURRENT_TIMESTAMP
"""


def may_be_odd(types: Mapping[str, str]) -> bool:
    """Whether columns of these types, by name, may hold a use that is none: a text, or a number below 0."""
    return not all("unsigned" in types.get(column, "") for column in ("used", "expiry"))


def select(keys: int, columns: str = ROW) -> str:
    """Columns of the rows of a limit, and so many senders."""
    marks = ", ".join(["%s"] * keys)
    return f"SELECT {columns} FROM `ratelimit` WHERE `limit_name` = %s AND `sender` IN ({marks})"


def _is_odd(column: str) -> str:
    return f"(`{column}` IS NOT NULL AND {_number(column)} IS NULL)"


ODD = f" AND ({_is_odd('used')} OR {_is_odd('expiry')})"
"""Of the rows that `select` finds, those that say nothing readable of what was used."""
RENAME = "UPDATE `ratelimit` SET `sender` = %s WHERE `sender` = %s AND `limit_name` = %s"
MERGE = """
UPDATE `ratelimit` SET `quota` = %s, `configured` = %s, `seen` = %s, `persist` = %s, `until` = %s, `used` = %s,
    `in_parts` = %s, `expiry` = %s, `updated` = CURRENT_TIMESTAMP
WHERE `sender` = %s AND `limit_name` = %s
"""
DELETE = "DELETE FROM `ratelimit` WHERE `sender` = %s AND `limit_name` = %s"
LIMITS = "SELECT `limit_name`, COUNT(*), CAST(MIN(`sender`) AS BINARY) FROM `ratelimit` GROUP BY `limit_name`"
NOT_NORMAL = """
SELECT `limit_name`, CAST(`sender` AS BINARY) FROM `ratelimit` WHERE `sender` <> LOWER(TRIM(`sender`)) LIMIT %s
"""
NEVER_USED = """
SELECT `limit_name`, CAST(`sender` AS BINARY) FROM `ratelimit` WHERE `configured` IS NULL
AND (`sender` LIKE '%%*%%' OR `sender` NOT LIKE '%%@%%') LIMIT %s
"""
OF_DOMAINS = """
SELECT `limit_name`, CAST(MIN(`sender`) AS BINARY) FROM `ratelimit` WHERE `sender` LIKE '@%%'
GROUP BY `limit_name` LIMIT %s
"""
"""One row of a domain under each limit."""
RESET = """
UPDATE `ratelimit` SET `used` = 0, `in_parts` = NULL, `updated` = CURRENT_TIMESTAMP
WHERE `sender` = %s AND `limit_name` = %s
"""
RECORD = """
UPDATE `ratelimit_node` SET `segment` = %s, `updated` = CURRENT_TIMESTAMP WHERE `node` = %s
"""
_RUNS = f"GREATEST({_count('expiry')}, {_count('until')}) > UNIX_TIMESTAMP()"
_SEEN = f"UPDATE `ratelimit` SET `seen` = {_quota()}, `updated` = `updated` WHERE {_RUNS}"
SEEN = f"{_SEEN} AND `sender` = %s AND `limit_name` = %s"
"""Notes a quota of a running window, which it ends with, or one that is given until a time.

What other nodes look for, `updated`, stays.
"""
GIVEN = f"""
SELECT `id` FROM `ratelimit` WHERE `id` > %s AND {_count("persist")} <> 1
AND NOT ({_quota()} <=> {_number("configured")}) AND NOT ({_quota()} <=> {_number("seen")})
AND {_RUNS} ORDER BY `id` LIMIT %s
"""
"""Rows whose quota was given in a running window, or until a time, and is not noted, after one's id."""


def note(ids: int) -> str:
    """Note the quotas of so many rows, by their ids."""
    return f"{_SEEN} AND `id` IN ({', '.join(['%s'] * ids)})"
