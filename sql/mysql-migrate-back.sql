-- The way back: the table is that of the Perl daemon ratelimit-policyd again, in place: what `ratelimitctl migrate --back`
-- runs, with 'default' replaced by the name of the first [[limit]], whose counts the Perl daemon goes on with. Before, it
-- makes sure that no ratelimitd runs, and that all that was counted is in the database. Every statement may be run again.
-- `ratelimitctl migrate` (sql/mysql-migrate-ratelimit-policyd.sql) is the way to ratelimitd, also after this one.

-- For the Perl daemon a sender has one row. Those of the other limits are set aside, and come back with the way there.
CREATE TABLE IF NOT EXISTS `ratelimit_aside` LIKE `ratelimit`;
SET @now = UNIX_TIMESTAMP();
START TRANSACTION;
INSERT INTO `ratelimit_aside` (`sender`, `limit_name`, `persist`, `quota`, `configured`, `seen`, `until`, `used`,
    `in_parts`, `updated`, `expiry`)
SELECT `sender`, `limit_name`, `persist`, `quota`, `configured`, `seen`, `until`, `used`, `in_parts`, `updated`, `expiry`
FROM `ratelimit` WHERE `limit_name` <> 'default'
ON DUPLICATE KEY UPDATE `persist` = VALUES(`persist`), `quota` = VALUES(`quota`), `configured` = VALUES(`configured`),
    `seen` = VALUES(`seen`), `until` = VALUES(`until`), `used` = VALUES(`used`), `in_parts` = VALUES(`in_parts`),
    `updated` = VALUES(`updated`), `expiry` = VALUES(`expiry`);
DELETE FROM `ratelimit` WHERE `limit_name` <> 'default';

-- Under a sliding limit used is what counted at the last flush: what counts now, until the last of it would leave.
UPDATE `ratelimit` AS `r`
SET `r`.`updated` = `r`.`updated`, `r`.`used` = (
    SELECT LEAST(SUM(`p`.`used`), 4294967295) FROM `ratelimit_history` AS `p`
    WHERE `p`.`sender` = `r`.`sender` AND `p`.`limit_name` = 'default' AND `p`.`expiry` > @now
        AND `p`.`expiry` <= @now + 94867200
)
WHERE `r`.`limit_name` = 'default' AND `r`.`in_parts` = `r`.`used` AND `r`.`expiry` > @now AND EXISTS (
    SELECT 1 FROM `ratelimit_history` AS `h`
    WHERE `h`.`sender` = `r`.`sender` AND `h`.`limit_name` = 'default' AND `h`.`expiry` = `r`.`expiry`
);

-- So that it does not count twice after a return to ratelimitd, the parts of these windows end now, as one.
INSERT INTO `ratelimit_history` (`sender`, `limit_name`, `expiry`, `used`)
SELECT `r`.`sender`, 'default', @now, (
    SELECT LEAST(SUM(`h`.`used`), 4294967295) FROM `ratelimit_history` AS `h`
    WHERE `h`.`sender` = `r`.`sender` AND `h`.`limit_name` = 'default' AND `h`.`expiry` > @now
) AS `live`
FROM `ratelimit` AS `r` WHERE `r`.`in_parts` IS NOT NULL HAVING `live` IS NOT NULL
ON DUPLICATE KEY UPDATE `used` = LEAST(`ratelimit_history`.`used` + VALUES(`used`), 4294967295);
DELETE `h` FROM `ratelimit` AS `r` STRAIGHT_JOIN `ratelimit_history` AS `h`
    ON `h`.`sender` = `r`.`sender` AND `h`.`limit_name` = 'default' AND `h`.`expiry` > @now
WHERE `r`.`in_parts` IS NOT NULL;
UPDATE `ratelimit` SET `in_parts` = NULL, `updated` = `updated` WHERE `in_parts` IS NOT NULL;

-- A quota until a time that has passed is over. And to the Perl daemon 0 is unlimited for ever: where that was given for
-- a while, the quota is so large that it makes no difference, and the Perl daemon's own when the period ends.
UPDATE `ratelimit` SET `quota` = `configured`, `updated` = `updated`
WHERE `persist` = 0 AND `until` <= @now AND `configured` IS NOT NULL AND `quota` <> `configured`;
UPDATE `ratelimit` SET `quota` = 4294967295, `updated` = `updated`
WHERE `quota` = 0 AND `persist` = 0 AND NOT `configured` <=> 0;
COMMIT;

ALTER TABLE `ratelimit`
    DROP INDEX `account`,
    DROP INDEX `changes`,
    ADD UNIQUE KEY (`sender`),
    DROP COLUMN `limit_name`,
    DROP COLUMN `configured`,
    DROP COLUMN `seen`,
    DROP COLUMN `until`,
    DROP COLUMN `in_parts`,
    MODIFY `updated` TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP;

CREATE OR REPLACE SQL SECURITY INVOKER VIEW `view_ratelimit` AS
SELECT *, FROM_UNIXTIME(`expiry`) AS `expirytime` FROM `ratelimit`;
