-- ratelimitd on SQLite: what the daemon creates by itself in a new file.
-- The columns are those of the Perl daemon's MySQL table, with limit_name, configured, seen, until and in_parts added.
-- 'default' stands for the name of the first [[limit]]: rows that name no limit are its.
-- Times are seconds since 1970 (expiry) and UTC text (updated).

CREATE TABLE IF NOT EXISTS "ratelimit" (
    "id"         INTEGER PRIMARY KEY AUTOINCREMENT,
    "sender"     TEXT    NOT NULL,                     -- the key: a login or a domain, normalised
    "limit_name" TEXT    NOT NULL DEFAULT 'default',   -- [[limit]] name
    "persist"    INTEGER NOT NULL DEFAULT 0,           -- 1: the quota stays; 0: it lasts until until, or expiry
    "quota"      INTEGER NOT NULL DEFAULT 0,           -- recipients per period; 0: unlimited
    "configured" INTEGER DEFAULT NULL,                 -- the configuration's quota when the daemon last wrote the row
    "seen"       INTEGER DEFAULT NULL,                 -- the quota that the daemon last saw in this period
    "until"      INTEGER DEFAULT NULL,                 -- when the quota ends, seconds since 1970; NULL: with the period
    "used"       INTEGER NOT NULL DEFAULT 0,           -- recipients in the period that ends at expiry
    "in_parts"   INTEGER DEFAULT NULL,                 -- what of used the parts in ratelimit_history are; NULL: none
    "updated"    TEXT    NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "expiry"     INTEGER NOT NULL DEFAULT 0,
    UNIQUE ("sender", "limit_name")
);

-- Changes made by hand are found by their time.
CREATE INDEX IF NOT EXISTS "ratelimit_updated" ON "ratelimit" ("updated");
CREATE TRIGGER IF NOT EXISTS "ratelimit_touched"
AFTER UPDATE OF "quota", "persist", "until", "used", "expiry" ON "ratelimit" WHEN NEW."updated" = OLD."updated"
BEGIN
    UPDATE "ratelimit" SET "updated" = CURRENT_TIMESTAMP WHERE "id" = NEW."id";
END;

CREATE VIEW IF NOT EXISTS "view_ratelimit" AS
SELECT *, datetime("expiry", 'unixepoch', 'localtime') AS "expirytime" FROM "ratelimit";

-- Which of its journal's segments each run of a daemon has stored: this is what makes a flush exact.
CREATE TABLE IF NOT EXISTS "ratelimit_node" (
    "node"    TEXT    NOT NULL PRIMARY KEY,
    "segment" INTEGER NOT NULL,
    "updated" TEXT    NOT NULL DEFAULT CURRENT_TIMESTAMP
);

-- What each account used in each window, by its end: as long as store.history_days says. Of a sliding limit a row is a
-- part of the window, which counts until expiry: these rows are what the limit counts by.
CREATE TABLE IF NOT EXISTS "ratelimit_history" (
    "sender"     TEXT    NOT NULL,
    "limit_name" TEXT    NOT NULL,
    "expiry"     INTEGER NOT NULL,
    "used"       INTEGER NOT NULL,
    PRIMARY KEY ("sender", "limit_name", "expiry")
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS "ratelimit_ended" ON "ratelimit_history" ("expiry");
