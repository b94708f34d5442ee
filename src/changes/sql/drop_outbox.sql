-- Drops the outbox of an earlier version. Sessions that were executing its functions may have written to it meanwhile: these
-- changes are delivered by the current path.
DO $$
BEGIN
    IF to_regclass('notifyman.outbox') IS NOT NULL THEN
        LOCK TABLE notifyman.outbox IN ACCESS EXCLUSIVE MODE;
        PERFORM notifyman.append(o.payload) FROM notifyman.outbox o ORDER BY o.number;
        DROP TABLE notifyman.outbox;
    END IF;
END $$;
