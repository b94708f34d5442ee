
-- The log of an earlier build stays, since triggers may still write it. It ends here: every position in it becomes invalid.
DO $$ BEGIN
    IF to_regclass('notifyman.era') IS NOT NULL AND to_regclass('notifyman.start') IS NOT NULL THEN
        TRUNCATE notifyman.era, notifyman.start;
    END IF;
END $$;
