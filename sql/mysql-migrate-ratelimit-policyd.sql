-- The table of the Perl daemon ratelimit-policyd becomes ratelimitd's, in place: what `ratelimitctl migrate` runs, with
-- 'default' replaced by the name of the first [[limit]], to which the rows belong then. Afterwards it normalises the
-- senders, and creates the other tables and the view as in sql/mysql.sql. The way back is in
-- sql/mysql-migrate-back.sql.

-- Some of its forks have columns that may be NULL, or signed ones: NULL is 0, and a negative quota is unlimited.
UPDATE `ratelimit` SET `persist` = COALESCE(`persist`, 0), `quota` = LEAST(GREATEST(COALESCE(`quota`, 0), 0), 4294967295),
    `used` = LEAST(GREATEST(COALESCE(`used`, 0), 0), 4294967295),
    `expiry` = LEAST(GREATEST(COALESCE(`expiry`, 0), 0), 4294967295), `updated` = `updated`
WHERE `persist` IS NULL OR `quota` IS NULL OR `used` IS NULL OR `expiry` IS NULL
    OR `quota` NOT BETWEEN 0 AND 4294967295 OR `used` NOT BETWEEN 0 AND 4294967295
    OR `expiry` NOT BETWEEN 0 AND 4294967295;

-- A quota of 0 was unlimited for the Perl daemon, whatever persist said, and stays so.
UPDATE `ratelimit` SET `persist` = 1, `updated` = `updated` WHERE `quota` = 0;

-- A quota without persist lasted until expiry: if that has passed, the configured one replaces it at the next mail.
ALTER TABLE `ratelimit` ADD `configured` INT UNSIGNED DEFAULT NULL AFTER `quota`;
UPDATE `ratelimit` SET `configured` = `quota`, `updated` = `updated`
WHERE `persist` = 0 AND `expiry` BETWEEN 1 AND UNIX_TIMESTAMP();

ALTER TABLE `ratelimit`
    MODIFY `id` BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
    MODIFY `sender` VARCHAR(255) COLLATE utf8mb4_bin NOT NULL,
    ADD `limit_name` VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT 'default' AFTER `sender`,
    MODIFY `persist` TINYINT(1) NOT NULL DEFAULT 0,
    MODIFY `quota` INT UNSIGNED NOT NULL DEFAULT 0,
    MODIFY `used` INT UNSIGNED NOT NULL DEFAULT 0,
    MODIFY `expiry` INT UNSIGNED NOT NULL DEFAULT 0,
    ADD `seen` INT UNSIGNED DEFAULT NULL AFTER `configured`,
    ADD `until` INT UNSIGNED DEFAULT NULL AFTER `seen`,
    ADD `in_parts` INT UNSIGNED DEFAULT NULL AFTER `used`,
    MODIFY `updated` TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
    DROP INDEX `sender`,
    ADD UNIQUE KEY `account` (`sender`, `limit_name`),
    ADD KEY `changes` (`updated`),
    ENGINE=InnoDB, ROW_FORMAT=DYNAMIC, DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- After a way back: the rows of the other limits, which it had set aside, come back. Where there are rows of that limit
-- by now, these stay. Without a way back there is no such table, and nothing to do.
CREATE TABLE IF NOT EXISTS `ratelimit_aside` LIKE `ratelimit`;
START TRANSACTION;
INSERT INTO `ratelimit` (`sender`, `limit_name`, `persist`, `quota`, `configured`, `seen`, `until`, `used`, `in_parts`,
    `updated`, `expiry`)
SELECT `sender`, `limit_name`, `persist`, `quota`, `configured`, `seen`, `until`, `used`, `in_parts`, `updated`, `expiry`
FROM `ratelimit_aside`
ON DUPLICATE KEY UPDATE `id` = `ratelimit`.`id`;
DELETE FROM `ratelimit_aside`;
COMMIT;
DROP TABLE `ratelimit_aside`;
