-- The outbox of an earlier version. Sessions that had called its functions may have written it meanwhile: what they wrote is
-- delivered as it is now.
DO $$
BEGIN
    IF to_regclass('notifyman.outbox') IS NOT NULL THEN
        LOCK TABLE notifyman.outbox IN ACCESS EXCLUSIVE MODE;
        PERFORM notifyman.append(o.payload) FROM notifyman.outbox o ORDER BY o.number;
        DROP TABLE notifyman.outbox;
    END IF;
END $$;
