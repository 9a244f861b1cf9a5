"""The SQLite store's statements: what a flush and an administrator write, whatever stands in the row.

Any column may hold anything (SQLite's types are a habit). A statement takes what has a plain meaning, as
core/rows.py:read does, and puts something readable in the place of the rest, so that no count is lost to it.
"""

from ratelimitd.core.rows import MAX_USED, Delta

ROW = (
    '"limit_name", "sender", "quota", "configured", "persist", "used", "expiry", '
    'CAST(strftime(\'%s\', "updated") AS INTEGER), "seen", "until", "in_parts"'
)
_NOW = "CAST(strftime('%s', 'now') AS INTEGER)"
_UPDATED = "IFNULL(CAST(strftime('%s', \"updated\") AS INTEGER), 0)"


def _number(column: str) -> str:
    """The whole number that a column holds, 0 for NULL and what is below; NULL where it is none."""
    text = f'CAST("{column}" AS TEXT)'
    return (
        f"CASE typeof(\"{column}\") WHEN 'integer' THEN max(\"{column}\", 0) WHEN 'null' THEN 0 ELSE "
        f"CASE WHEN {_short(text)} AND {_digits(text)} THEN CAST({text} AS INTEGER) END END"
    )


def _short(text: str) -> str:
    """Whether a text has the length of a number; what stands behind a NUL is seen by no other function."""
    return f"length({text}) BETWEEN 1 AND 18 AND length({text}) = length(CAST({text} AS BLOB))"


def _digits(text: str) -> str:
    """Whether a text begins with digits, and has nothing behind them but a fraction of zeros."""
    return f"{text} GLOB '[0-9]*' AND rtrim(ltrim({text}, '0123456789'), '0') IN ('', '.')"


def _quota() -> str:
    """The quota, NULL where it is none; what is negative is unlimited."""
    text = 'CAST("quota" AS TEXT)'
    negative = f"{_short(text)} AND {text} GLOB '-*' AND {_digits(f'substr({text}, 2)')}"
    return f"CASE WHEN {negative} THEN 0 ELSE {_number('quota')} END"


def _window(latest: int) -> str:
    """The end of the row's window, 0 for none."""
    return f"CASE WHEN IFNULL({_number('expiry')}, 0) > {latest} THEN 0 ELSE IFNULL({_number('expiry')}, 0) END"


def _until() -> str:
    """When a quota ends that was given until a time; 0: it was not, or that makes no sense."""
    return f"IFNULL({_number('until')}, 0)"


def upsert(one: Delta) -> str:
    """Add deltas (limit, key, expiry, used, quota, configured, seen) whose other fields are as this one's.

    Of a sliding limit `used` is 0, and neither it nor the end of the row's window is changed. What was counted in parts
    is one with any window that runs.
    """
    window, quota, apart_s, until = _window(one.latest), _quota(), one.apart_s, _until()
    persists = f"{_number('persist')} IS 1"
    both_run = f'min({window}, excluded."expiry") > {one.now}'
    slid = f'"in_parts" IS NOT NULL AND {both_run}'
    near_s = f"CASE WHEN {both_run} THEN {max(apart_s, one.overlap_s)} ELSE {apart_s} END"
    same = f'({slid} OR abs({window} - excluded."expiry") < {near_s})'
    if one.sliding:
        both_run, same = "0", f"{window} > {one.now}"
    row_ends_both = f'{both_run} AND NOT ({slid}) AND {same} AND {window} + {apart_s} < excluded."expiry"'
    # What was given since the window ended (of the delta, if that has ended, too) is for the one to come.
    given_since = (
        f'{quota} IS NOT "seen" AND {_UPDATED} >= '
        f'CASE WHEN excluded."expiry" <= {_NOW} THEN excluded."expiry" ELSE {window} END'
    )
    new_quota = f"""CASE WHEN {quota} IS NULL THEN excluded."configured"
                   WHEN {persists} OR {until} > {_NOW} THEN "quota"
                   WHEN {until} > 0 AND ({quota} IS "seen" OR {_UPDATED} < {until}) THEN excluded."configured"
                   WHEN {quota} = "configured" THEN excluded."configured"
                   WHEN {window} > excluded."expiry" THEN "quota"
                   WHEN {given_since} THEN "quota"
                   WHEN excluded."expiry" <= {_NOW} THEN excluded."configured"
                   WHEN {window} < excluded."expiry" AND NOT ({same}) THEN excluded."quota"
                   ELSE "quota" END"""
    used = f"""CASE WHEN {same} THEN min(IFNULL({_number("used")}, 0) + excluded."used", {MAX_USED})
                  WHEN {window} < excluded."expiry" THEN excluded."used"
                  ELSE IFNULL({_number("used")}, 0) END"""
    expiry = f'CASE WHEN {row_ends_both} THEN {window} ELSE max({window}, excluded."expiry") END'
    in_parts = "NULL"
    if one.sliding:  # what becomes of them, the parts say: history.py
        in_parts = f'CASE WHEN "in_parts" IS NOT NULL THEN {_number("in_parts")} END'
        used = f"COALESCE({_number('used')}, {in_parts}, 0)"
        expiry = f"IFNULL({_number('expiry')}, 0)"
    return f"""
INSERT INTO "ratelimit" ("limit_name", "sender", "expiry", "used", "quota", "configured", "seen", "updated")
VALUES (?, ?, ?, min(?, {MAX_USED}), ?, ?, ?, CURRENT_TIMESTAMP)
ON CONFLICT ("sender", "limit_name") DO UPDATE SET
    "used" = {used},
    "in_parts" = {in_parts},
    "persist" = {quota} IS NOT NULL AND {persists},
    "quota" = {new_quota},
    "seen" = CASE WHEN max({window}, excluded."expiry") <= {_NOW} AND {new_quota} <> excluded."configured"
                  THEN {_number("seen")} ELSE max(CAST({new_quota} AS INTEGER), 0) END,
    "until" = CASE WHEN {until} > {_NOW} THEN {until} END,
    "configured" = excluded."configured",
    "expiry" = {expiry},
    "updated" = CURRENT_TIMESTAMP
"""


def grant(latest: int, now: int) -> str:
    """Give a quota: (limit, key, quota, configured, persist, expiry, seen, until)."""
    window = _window(latest)
    return f"""
INSERT INTO "ratelimit"
    ("limit_name", "sender", "quota", "configured", "persist", "expiry", "seen", "until", "used", "updated")
VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, CURRENT_TIMESTAMP)
ON CONFLICT ("sender", "limit_name") DO UPDATE SET
    "used" = CASE WHEN {window} > {now} THEN IFNULL({_number("used")}, 0) ELSE 0 END,
    "expiry" = CASE WHEN {window} > {now} THEN {window} ELSE excluded."expiry" END,
    "quota" = excluded."quota", "configured" = excluded."configured", "persist" = excluded."persist",
    "seen" = excluded."seen", "until" = excluded."until", "updated" = CURRENT_TIMESTAMP
"""


def select(keys: int, columns: str = ROW) -> str:
    """Columns of the rows of so many senders, and a limit."""
    return f'SELECT {columns} FROM "ratelimit" WHERE "sender" IN ({",".join("?" * keys)}) AND "limit_name" = ?'


ODD = f' AND (({_number("used")}) IS NULL OR ({_number("expiry")}) IS NULL OR "used" < 0 OR "expiry" < 0)'
"""Of the rows that `select` finds, those that say nothing readable of what was used."""
RENAME = 'UPDATE "ratelimit" SET "sender" = ? WHERE "sender" = ? AND "limit_name" = ?'
MERGE = """
UPDATE "ratelimit" SET "quota" = ?, "configured" = ?, "seen" = ?, "persist" = ?, "until" = ?, "used" = ?,
    "in_parts" = ?, "expiry" = ?, "updated" = CURRENT_TIMESTAMP
WHERE "sender" = ? AND "limit_name" = ?
"""
DELETE = 'DELETE FROM "ratelimit" WHERE "sender" = ? AND "limit_name" = ?'
LIMITS = 'SELECT "limit_name", COUNT(*), MIN("sender") FROM "ratelimit" GROUP BY "limit_name"'
NOT_NORMAL = """
SELECT "limit_name", "sender" FROM "ratelimit" WHERE "sender" <> lower(trim("sender", ' ' || char(9))) LIMIT ?
"""
NEVER_USED = """
SELECT "limit_name", "sender" FROM "ratelimit"
WHERE "configured" IS NULL AND ("sender" LIKE '%*%' OR "sender" NOT LIKE '%@%') LIMIT ?
"""
OF_DOMAINS = """
SELECT "limit_name", MIN("sender") FROM "ratelimit" WHERE "sender" LIKE '@%' GROUP BY "limit_name" LIMIT ?
"""
"""One row of a domain under each limit."""
RESET = """
UPDATE "ratelimit" SET "used" = 0, "in_parts" = NULL, "updated" = CURRENT_TIMESTAMP
WHERE "sender" = ? AND "limit_name" = ?
"""
RECORD = """
INSERT INTO "ratelimit_node" ("node", "segment") VALUES (?, ?) ON CONFLICT ("node") DO UPDATE
SET "segment" = excluded."segment", "updated" = CURRENT_TIMESTAMP
"""
SEEN = f"""
UPDATE "ratelimit" SET "seen" = {_quota()}
WHERE "sender" = ? AND "limit_name" = ? AND max(IFNULL({_number("expiry")}, 0), {_until()}) > {_NOW}
"""
"""Notes a quota of a running window, which it ends with, or one that is given until a time."""
_RUNS = f"max(IFNULL({_number('expiry')}, 0), {_until()}) > {_NOW}"
GIVEN = f"""
SELECT "id" FROM "ratelimit" WHERE "id" > ? AND {_number("persist")} IS NOT 1 AND {_quota()} IS NOT "configured"
AND {_quota()} IS NOT "seen" AND {_RUNS} ORDER BY "id" LIMIT ?
"""
"""Rows whose quota was given in a running window, or until a time, and is not noted, after one's id."""
NOTE = f'UPDATE "ratelimit" SET "seen" = {_quota()} WHERE "id" = ? AND {_RUNS}'
# A value that is no date is above or below all of them: such a row would be found at every page. GLOB sees nothing of
# what stands behind a NUL.
CHANGES = f"""
SELECT {ROW}, "updated", "id" FROM "ratelimit"
WHERE ("updated", "id") > (?, ?) AND typeof("updated") = 'text' AND "updated" NOT GLOB '*[^-0-9:. TZ+]*'
AND length("updated") = length(CAST("updated" AS BLOB))
ORDER BY "updated", "id" LIMIT ?
"""
