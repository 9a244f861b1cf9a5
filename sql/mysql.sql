-- ratelimitd on MariaDB (10.2 and later) and MySQL (5.7 and later): what the daemon creates by itself in an empty
-- database, and what an administrator may run instead: mysql policyd < sql/mysql.sql
-- The columns are those of the Perl daemon's table, with limit_name, configured, seen, until and in_parts added. 'default'
-- stands for the name of the first [[limit]], to which rows belong that name no limit: put yours there.
-- From then on the daemon's account needs only SELECT, INSERT, UPDATE, DELETE on these tables.

CREATE TABLE IF NOT EXISTS `ratelimit` (
    `id`         BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,      -- wide: every flush leaves gaps
    `sender`     VARCHAR(255) COLLATE utf8mb4_bin NOT NULL,    -- joins with any other column, unlike the NO PAD ones
    `limit_name` VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT 'default',
    `persist`    TINYINT(1) NOT NULL DEFAULT 0,                -- 1: the quota stays; 0: it lasts until until, or expiry
    `quota`      INT UNSIGNED NOT NULL DEFAULT 0,              -- recipients per period; 0: unlimited
    `configured` INT UNSIGNED DEFAULT NULL,                    -- the configuration's quota when the daemon last wrote
    `seen`       INT UNSIGNED DEFAULT NULL,                    -- the quota that the daemon last saw in this period
    `until`      INT UNSIGNED DEFAULT NULL,                    -- when the quota ends, seconds since 1970; NULL: with the period
    `used`       INT UNSIGNED NOT NULL DEFAULT 0,              -- recipients in the period that ends at expiry
    `in_parts`   INT UNSIGNED DEFAULT NULL,                    -- what of used the parts in ratelimit_history are; NULL: none
    `updated`    TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
    `expiry`     INT UNSIGNED NOT NULL DEFAULT 0,              -- seconds since 1970
    PRIMARY KEY (`id`),
    UNIQUE KEY `account` (`sender`, `limit_name`),
    KEY `changes` (`updated`)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- Which of its journal's segments each daemon has stored: this is what makes a flush exact.
CREATE TABLE IF NOT EXISTS `ratelimit_node` (
    `node`    VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    `segment` BIGINT UNSIGNED NOT NULL,
    `updated` TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP
) ENGINE=InnoDB;

-- When each limit's present window ends for the daemons of each time zone: they must agree, and say where they do not.
CREATE TABLE IF NOT EXISTS `ratelimit_window` (
    `limit_name` VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    `timezone`   VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    `expiry`     INT UNSIGNED NOT NULL,
    `updated`    TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
    PRIMARY KEY (`limit_name`, `timezone`)
) ENGINE=InnoDB;

-- What each account used in each window, by its end: as long as store.history_days says. Of a sliding limit a row is a
-- part of the window, which counts until expiry: these rows are what the limit counts by.
CREATE TABLE IF NOT EXISTS `ratelimit_history` (
    `sender`     VARCHAR(255) COLLATE utf8mb4_bin NOT NULL,    -- joins with any other column, unlike the NO PAD ones
    `limit_name` VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    `expiry`     INT UNSIGNED NOT NULL,
    `used`       INT UNSIGNED NOT NULL DEFAULT 0,
    PRIMARY KEY (`sender`, `limit_name`, `expiry`),
    KEY `ended` (`expiry`)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE OR REPLACE SQL SECURITY INVOKER VIEW `view_ratelimit` AS
SELECT *, FROM_UNIXTIME(`expiry`) AS `expirytime` FROM `ratelimit`;
