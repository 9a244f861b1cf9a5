"""The stores' statements: what a flush and an administrator write to the table `ratelimit`, whatever stands in the row.

Each is written once; what differs between databases, dialect.py says. A statement takes what has a plain meaning and
puts something readable in the place of the rest, so that no count is lost to it.
"""

from ratelimitd.core.rows import MAX_USED, Delta
from ratelimitd.stores.dialect import Dialect

DELTA = "ttnnnnn"
"""The kinds of a delta's values: limit, key, expiry, used, quota, configured, seen."""


def _window(d: Dialect, latest: int) -> str:
    """The end of the row's window, 0 for none."""
    expiry = d.count("expiry")
    return f"CASE WHEN {expiry} > {latest} THEN 0 ELSE {expiry} END"


def upsert(d: Dialect, one: Delta, count: int = 1) -> str:
    """Add so many deltas (limit, key, expiry, used, quota, configured, seen) whose other fields are as this one's.

    Of a sliding limit `used` is 0, and neither it nor the end of the row's window is changed; nor are they where the
    row counts in parts, for the limit slid before. What becomes of them, history.py says.

    The order is for a database that assigns in turn: quota needs the old configured, seen, until, expiry and updated,
    used the old expiry.
    """
    window, quota, end = _window(d, one.latest), d.quota(), d.new("expiry")
    both_run = f"{d.least(window, end)} > {one.now}"
    near_s = f"CASE WHEN {both_run} THEN {max(one.apart_s, one.overlap_s)} ELSE {one.apart_s} END"
    same = f"{d.greatest(window, end)} - {d.least(window, end)} < {near_s}"
    row_ends_both = f"{both_run} AND {same} AND {window} + {one.apart_s} < {end}"
    if one.sliding:
        same = f"{window} > {one.now}"
    new_quota = _new_quota(d, window, same, d.kept_quota())
    quota_then = quota if d.assigns_in_turn else _new_quota(d, window, same, quota)
    persists = f"{quota} IS NOT NULL AND {d.count('persist')} = 1"
    until = d.count("until")
    return f"""
INSERT INTO "ratelimit" ("limit_name", "sender", "expiry", "used", "quota", "configured", "seen", "updated")
{d.rows(DELTA, count, touched=True)}
{d.conflict("sender", "limit_name")}
    "persist" = CASE WHEN {persists} THEN 1 ELSE 0 END,
    "quota" = {new_quota},
    "seen" = CASE WHEN {d.greatest(window, end)} <= {d.now} AND {quota_then} <> {d.new("configured")}
                  THEN {d.whole("seen")} ELSE {quota_then} END,
    "until" = CASE WHEN {until} > {d.now} THEN {until} END,
    "configured" = {d.new("configured")},
    {_new_use_of_parts(d) if one.sliding else _new_use(d, window, same, row_ends_both)},
    "updated" = {d.touch}
"""


def _new_quota(d: Dialect, window: str, same: str, kept: str) -> str:
    """The quota that a row gets with a delta; `kept`: the one that it has."""
    quota, until, end, configured = d.quota(), d.count("until"), d.new("expiry"), d.new("configured")
    updated = f"COALESCE({d.updated_of_row}, 0)"
    # What was given since the window ended (of the delta, if that has ended, too) is for the one to come.
    given_since = (
        f"{d.differ(quota, d.value('seen'))} AND {updated} >= CASE WHEN {end} <= {d.now} THEN {end} ELSE {window} END"
    )
    return f"""CASE WHEN {quota} IS NULL THEN {configured}
                   WHEN {d.count("persist")} = 1 OR {until} > {d.now} THEN {kept}
                   WHEN {until} > 0 AND (NOT ({d.differ(quota, d.value("seen"))}) OR {updated} < {until})
                        THEN {configured}
                   WHEN {quota} = {d.value("configured")} THEN {configured}
                   WHEN {window} > {end} THEN {kept}
                   WHEN {given_since} THEN {kept}
                   WHEN {end} <= {d.now} THEN {configured}
                   WHEN {window} < {end} AND NOT ({same}) THEN {d.new("quota")}
                   ELSE {kept} END"""


def _new_use(d: Dialect, window: str, same: str, row_ends_both: str) -> str:
    used, end = d.count("used"), d.new("expiry")
    added = d.least(f"{used} + {d.new('used')}", str(MAX_USED))
    slid = f"{d.whole('in_parts')} IS NOT NULL"
    return f""""used" = CASE WHEN {slid} THEN {used}
                  WHEN {same} THEN {added}
                  WHEN {window} < {end} THEN {d.new("used")}
                  ELSE {used} END,
    "expiry" = CASE WHEN {slid} THEN {d.count("expiry")}
                    WHEN {row_ends_both} THEN {window}
                    ELSE {d.greatest(window, end)} END,
    "in_parts" = {d.whole("in_parts")}"""


def _new_use_of_parts(d: Dialect) -> str:
    in_parts = d.whole("in_parts")
    return f""""in_parts" = {in_parts},
    "used" = CASE WHEN {d.unreadable("used")} THEN COALESCE({in_parts}, 0) ELSE {d.count("used")} END,
    "expiry" = {d.count("expiry")}"""


def grant(d: Dialect, latest: int, now: int) -> str:
    """Give a quota: (limit, key, quota, configured, persist, expiry, seen, until). What was used in parts stays."""
    window = _window(d, latest)
    slides = f"{d.whole('in_parts')} IS NOT NULL AND {d.count('expiry')} > {now}"
    return f"""
INSERT INTO "ratelimit"
    ("limit_name", "sender", "quota", "configured", "persist", "expiry", "seen", "until", "used", "updated")
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, 0, {d.touch})
{d.conflict("sender", "limit_name")}
    "used" = CASE WHEN {slides} OR {window} > {now} THEN {d.count("used")} ELSE 0 END,
    "in_parts" = CASE WHEN {slides} THEN {d.whole("in_parts")} END,
    "expiry" = CASE WHEN {slides} THEN {d.count("expiry")}
                    WHEN {window} > {now} THEN {window} ELSE {d.new("expiry")} END,
    "quota" = {d.new("quota")}, "configured" = {d.new("configured")}, "persist" = {d.new("persist")},
    "seen" = {d.new("seen")}, "until" = {d.new("until")}, "updated" = {d.touch}
"""


def select(d: Dialect, keys: int, lock: str = "") -> str:
    """The rows of a limit, and so many senders."""
    return f"SELECT {d.row()} {_of(d, keys)}{lock}"


def lock(d: Dialect, keys: int) -> str:
    """Keep others from the rows of a limit, and so many senders, until the transaction ends."""
    return f'SELECT "id" {_of(d, keys)} ORDER BY "sender" FOR UPDATE'


SOME = 'SELECT "sender" FROM "ratelimit" ORDER BY "id" DESC LIMIT 50'
"""Some accounts, the latest that came."""


def odd(d: Dialect, keys: int) -> str:
    """The senders, of these, whose rows say nothing readable of what was used."""
    sender = d.name('"sender"')
    return f"SELECT {sender} {_of(d, keys)} AND ({d.odd('used')} OR {d.odd('expiry')})"


def _of(d: Dialect, keys: int) -> str:
    return f'FROM "ratelimit" WHERE "limit_name" = %s AND {d.among("sender", keys)}'


RENAME = 'UPDATE "ratelimit" SET "sender" = %s WHERE "sender" = %s AND "limit_name" = %s'
DELETE = 'DELETE FROM "ratelimit" WHERE "sender" = %s AND "limit_name" = %s'


def merge(d: Dialect) -> str:
    """Write all of a row: what two were."""
    return f"""
UPDATE "ratelimit" SET "quota" = %s, "configured" = %s, "seen" = %s, "persist" = %s, "until" = %s, "used" = %s,
    "in_parts" = %s, "expiry" = %s, "updated" = {d.touch}
WHERE "sender" = %s AND "limit_name" = %s
"""


def step(d: Dialect, name: str) -> str:
    """The statement of a step of survey.py."""
    return {"RENAME": RENAME, "DELETE": DELETE, "MERGE": merge(d)}[name]


def reset(d: Dialect) -> str:
    """Set the use to 0: (key, limit). When a part leaves is no end of a window."""
    return f"""
UPDATE "ratelimit" SET "used" = 0,
    "expiry" = CASE WHEN {d.whole("in_parts")} IS NULL THEN {d.count("expiry")} ELSE 0 END,
    "in_parts" = NULL, "updated" = {d.touch} WHERE "sender" = %s AND "limit_name" = %s
"""


# -- what stands in the table -----------------------------------------------------------------------------------------


def limits(d: Dialect) -> str:
    """Each limit_name, the number of its rows, and one of them."""
    example = d.name('MIN("sender")')
    return f'SELECT "limit_name", COUNT(*), {example} FROM "ratelimit" GROUP BY "limit_name"'


def written_wrongly(d: Dialect) -> tuple[str, str, str]:
    """Rows that may be: a sender that is not normalised, one without any use, one of a domain under each limit."""
    sender, example = d.name('"sender"'), d.name('MIN("sender")')
    return (
        f'SELECT "limit_name", {sender} FROM "ratelimit" WHERE "sender" <> {d.normal} LIMIT %s',
        f"""SELECT "limit_name", {sender} FROM "ratelimit" WHERE "configured" IS NULL
            AND ("sender" LIKE '%%*%%' OR "sender" NOT LIKE '%%@%%') LIMIT %s""",
        f"""SELECT "limit_name", {example} FROM "ratelimit" WHERE "sender" LIKE '@%%'
            GROUP BY "limit_name" LIMIT %s""",
    )


# -- segments ---------------------------------------------------------------------------------------------------------

RECORDED = 'SELECT "segment" FROM "ratelimit_node" WHERE "node" = %s'
FORGET_RUN = 'DELETE FROM "ratelimit_node" WHERE "node" = %s'


def record(d: Dialect) -> str:
    """Record a segment: (node, segment)."""
    return f"""
INSERT INTO "ratelimit_node" ("node", "segment") VALUES (%s, %s) {d.conflict("node")}
    "segment" = {d.new("segment")}, "updated" = {d.touch}
"""


def note_run(d: Dialect) -> str:
    """Have a row for a run, unless there is one: (node)."""
    segment = d.old("segment", "ratelimit_node")
    return f"""
INSERT INTO "ratelimit_node" ("node", "segment") VALUES (%s, 0) {d.conflict("node")} "segment" = {segment}
"""


def ended_runs(d: Dialect) -> str:
    """Runs that have stored nothing for a time: (now, seconds)."""
    since = d.at(f"{d.least('%s', d.now)} - %s")
    return f'SELECT "node" FROM "ratelimit_node" WHERE "updated" < {since}'


# -- quotas that somebody gave ----------------------------------------------------------------------------------------


def _runs(d: Dialect) -> str:
    return f"{d.greatest(d.count('expiry'), d.count('until'))} > {d.now}"


def _seen(d: Dialect) -> str:
    """What other nodes look for, `updated`, stays."""
    return f'UPDATE "ratelimit" SET "seen" = {d.quota()}, "updated" = "updated" WHERE {_runs(d)}'


def seen(d: Dialect) -> str:
    """Note a quota of a running window, which it ends with, or one that is given until a time: (key, limit)."""
    return f'{_seen(d)} AND "sender" = %s AND "limit_name" = %s'


def given(d: Dialect) -> str:
    """Rows after an id whose quota was given in a running window, or until a time, and is not noted: (id, count)."""
    return f"""
SELECT "id" FROM "ratelimit" WHERE "id" > %s AND {d.count("persist")} <> 1
AND {d.differ(d.quota(), d.value("configured"))} AND {d.differ(d.quota(), d.value("seen"))}
AND {_runs(d)} ORDER BY "id" LIMIT %s
"""


def note(d: Dialect, ids: int) -> str:
    """Note the quotas of so many rows, by their ids."""
    return f"{_seen(d)} AND {d.among('id', ids)}"
