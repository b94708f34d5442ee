
-- Ends the log of an earlier build: every position in it becomes invalid. The tables are kept, since triggers may still write to
-- them.
DO $$ BEGIN
    IF to_regclass('notifyman.era') IS NOT NULL AND to_regclass('notifyman.start') IS NOT NULL THEN
        TRUNCATE notifyman.era, notifyman.start;
    END IF;
END $$;
